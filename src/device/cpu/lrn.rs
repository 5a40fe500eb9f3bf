//! Local response normalisation over neighbouring maps.

use super::simd::kernel;
use super::team::{Shared, Team};
use crate::error::Result;
use crate::network::op::Lrn;

/// Pixels of one task.
const PIXELS: usize = 512;

/// `s^-beta`; the paper's exponent by square roots.
#[inline(always)]
pub fn power(s: f32, beta: f32) -> f32 {
    if beta == 0.75 {
        let root = s.sqrt();
        1.0 / (root * root.sqrt())
    } else {
        s.powf(-beta)
    }
}

/// `sums[i] = Σ_d padded[i + d]`, d below `size`.
#[inline(always)]
fn window_sums(size: usize, padded: &[f32], sums: &mut [f32]) {
    if size == 5 {
        // Written out, so that the sums stay in registers.
        let n = sums.len();
        let (a, b, c) = (&padded[..n], &padded[1..n + 1], &padded[2..n + 2]);
        let (d, e) = (&padded[3..n + 3], &padded[4..n + 4]);
        for i in 0..n {
            sums[i] = a[i] + b[i] + c[i] + d[i] + e[i];
        }
        return;
    }
    sums.fill(0.0);
    for d in 0..size {
        for (s, x) in sums.iter_mut().zip(&padded[d..]) {
            *s += x;
        }
    }
}

/// Elements of work space of [`forward_pixels`] and [`backward_pixels`].
pub fn work_space(op: &Lrn) -> usize {
    2 * (op.parts * op.shape.maps + op.size) + (op.parts + 2) * op.shape.maps
}

/// Where a part's maps stand among all that the sum sees.
#[inline(always)]
fn first_map(op: &Lrn, part: usize) -> usize {
    let column = if part == 0 { op.column } else { 1 - op.column };
    if op.parts == 1 {
        0
    } else {
        column * op.shape.maps
    }
}

/// `scales = k + alpha · Σ x²` of the own maps of one pixel.
#[inline(always)]
fn scales(op: &Lrn, x: &[&[f32]], at: usize, squares: &mut [f32], scales: &mut [f32]) {
    let maps = op.shape.maps;
    for (part, x) in x.iter().enumerate() {
        let start = op.size / 2 + first_map(op, part);
        let squares = &mut squares[start..start + maps];
        for (s, x) in squares.iter_mut().zip(&x[at..at + maps]) {
            *s = x * x;
        }
    }
    window_sums(op.size, &squares[first_map(op, 0)..], scales);
    for s in scales {
        *s = op.k + op.alpha * *s;
    }
}

/// Normalises the pixels of `y`, the first of which is element `start` of each part.
#[inline(always)]
pub fn forward_body(op: &Lrn, start: usize, x: &[&[f32]], y: &mut [f32], own: &mut [f32]) {
    let maps = op.shape.maps;
    let (squares, rest) = own.split_at_mut(op.parts * maps + op.size);
    squares.fill(0.0);
    let scale = &mut rest[..maps];
    for (pixel, y) in y.chunks_exact_mut(maps).enumerate() {
        let at = start + pixel * maps;
        scales(op, x, at, squares, scale);
        for ((y, x), s) in y.iter_mut().zip(&x[0][at..at + maps]).zip(&*scale) {
            *y = x * power(*s, op.beta);
        }
    }
}

/// Gradient of the pixels of `dy`, the first of which is element `start` of each part; `give`
/// takes each part's gradient of each pixel.
#[inline(always)]
pub fn backward_body(
    op: &Lrn,
    start: usize,
    x: &[&[f32]],
    dy: &[f32],
    own: &mut [f32],
    mut give: impl FnMut(usize, usize, &[f32]),
) {
    let maps = op.shape.maps;
    let (squares, rest) = own.split_at_mut(op.parts * maps + op.size);
    let (terms, rest) = rest.split_at_mut(op.parts * maps + op.size);
    let (scale, rest) = rest.split_at_mut(maps);
    let (direct, sums) = rest.split_at_mut(maps);
    squares.fill(0.0);
    terms.fill(0.0);
    let factor = 2.0 * op.alpha * op.beta;
    // Element i's sum reaches back by size / 2 maps, so its term reaches forward as far.
    let first = (op.size - 1) / 2 + first_map(op, 0);
    for (pixel, dy) in dy.chunks_exact(maps).enumerate() {
        let at = start + pixel * maps;
        scales(op, x, at, squares, scale);
        let terms_own = &mut terms[first..first + maps];
        let x_own = &x[0][at..at + maps];
        for i in 0..maps {
            let power = power(scale[i], op.beta);
            direct[i] = dy[i] * power;
            terms_own[i] = dy[i] * power * x_own[i] / scale[i];
        }
        for (part, x) in x.iter().enumerate() {
            let sums = &mut sums[..maps];
            window_sums(op.size, &terms[first_map(op, part)..], sums);
            for (s, x) in sums.iter_mut().zip(&x[at..at + maps]) {
                *s *= -factor * x;
            }
            if part == 0 {
                for (s, d) in sums.iter_mut().zip(&*direct) {
                    *s += d;
                }
            }
            give(part, at, sums);
        }
    }
}

kernel!(fn forward_pixels = forward_body(
    op: &Lrn,
    start: usize,
    x: &[&[f32]],
    y: &mut [f32],
    own: &mut [f32],
));

#[inline(always)]
fn backward_parts_body(
    op: &Lrn,
    start: usize,
    x: &[&[f32]],
    dy: &[f32],
    dx: &[Shared<'_>],
    own: &mut [f32],
) {
    backward_body(op, start, x, dy, own, |part, at, gradient| {
        // SAFETY: each pixel belongs to one task.
        unsafe { dx[part].part(at, gradient.len()) }.copy_from_slice(gradient);
    });
}

kernel!(fn backward_pixels = backward_parts_body(
    op: &Lrn,
    start: usize,
    x: &[&[f32]],
    dy: &[f32],
    dx: &[Shared<'_>],
    own: &mut [f32],
));

/// See [`Lrn`]; `x` is one buffer per part, own column first.
pub fn forward(
    team: &mut Team,
    op: &Lrn,
    images: usize,
    x: &[&[f32]],
    y: &mut [f32],
) -> Result<()> {
    team.reserve(0, work_space(op))?;
    let (isa, chunk) = (team.workers.isa, PIXELS * op.shape.maps);
    let y = &mut y[..images * op.shape.len()];
    team.workers.chunks(y, chunk, |task, y, own| {
        forward_pixels(isa, op, task * chunk, x, y, own);
    });
    Ok(())
}

/// Gradients of every part of the input.
pub fn backward(
    team: &mut Team,
    op: &Lrn,
    images: usize,
    x: &[&[f32]],
    dy: &[f32],
    dx: &[Shared<'_>],
) -> Result<()> {
    team.reserve(0, work_space(op))?;
    let (isa, chunk) = (team.workers.isa, PIXELS * op.shape.maps);
    let dy = &dy[..images * op.shape.len()];
    team.workers.run(dy.len().div_ceil(chunk), |task, own| {
        let dy = &dy[task * chunk..dy.len().min((task + 1) * chunk)];
        backward_pixels(isa, op, task * chunk, x, dy, dx, own);
    });
    Ok(())
}
