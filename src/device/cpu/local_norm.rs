//! Response normalisation within each map, over a square of pixels.

use super::lrn::power;
use super::simd::kernel;
use super::team::Team;
use crate::error::Result;
use crate::network::op::{LocalNorm, Shape};

/// Sums over the squares that reach `before` pixels up and left, clipped; in place. `line` is
/// work space for one line of pixels.
#[inline(always)]
fn square_sums(shape: Shape, size: usize, before: usize, x: &mut [f32], work: &mut [f32]) {
    let (row, maps) = (shape.width * shape.maps, shape.maps);
    let work = &mut work[..x.len()];
    sum_along(x, work, row, maps, (size, before));
    sum_along(work, x, x.len(), row, (size, before));
}

/// `sums[i] = Σ x[i + d · step]` within each line of `line` elements.
#[inline(always)]
fn sum_along(
    x: &[f32],
    sums: &mut [f32],
    line: usize,
    step: usize,
    (size, before): (usize, usize),
) {
    let count = line / step;
    for (x, sums) in x.chunks_exact(line).zip(sums.chunks_exact_mut(line)) {
        for (i, sums) in sums.chunks_exact_mut(step).enumerate() {
            sums.fill(0.0);
            for j in i.saturating_sub(before)..count.min((i + size).saturating_sub(before)) {
                for (s, x) in sums.iter_mut().zip(&x[j * step..]) {
                    *s += x;
                }
            }
        }
    }
}

/// `k + alpha · Σ x²`.
#[inline(always)]
fn scales(op: &LocalNorm, x: &[f32], scales: &mut [f32], work: &mut [f32]) {
    for (s, x) in scales.iter_mut().zip(x) {
        *s = x * x;
    }
    square_sums(op.shape, op.size, op.size / 2, scales, work);
    for s in scales {
        *s = op.k + op.alpha * *s;
    }
}

#[inline(always)]
fn forward_body(op: &LocalNorm, x: &[f32], y: &mut [f32], work: &mut [f32]) {
    scales(op, x, y, work);
    for (y, x) in y.iter_mut().zip(x) {
        *y = x * power(*y, op.beta);
    }
}

#[inline(always)]
fn backward_body(op: &LocalNorm, x: &[f32], dy: &[f32], dx: &mut [f32], work: &mut [f32]) {
    let (terms, work) = work.split_at_mut(x.len());
    scales(op, x, dx, work);
    for (i, t) in terms.iter_mut().enumerate() {
        let direct = dy[i] * power(dx[i], op.beta);
        *t = direct * x[i] / dx[i];
        dx[i] = direct;
    }
    square_sums(op.shape, op.size, (op.size - 1) / 2, terms, work);
    let factor = 2.0 * op.alpha * op.beta;
    for (i, d) in dx.iter_mut().enumerate() {
        *d -= factor * x[i] * terms[i];
    }
}

kernel!(fn forward_image = forward_body(
    op: &LocalNorm,
    x: &[f32],
    y: &mut [f32],
    work: &mut [f32],
));
kernel!(fn backward_image = backward_body(
    op: &LocalNorm,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    work: &mut [f32],
));

/// See [`LocalNorm`].
pub fn forward(
    team: &mut Team,
    op: &LocalNorm,
    images: usize,
    x: &[f32],
    y: &mut [f32],
) -> Result<()> {
    let (isa, len) = (team.workers.isa, op.shape.len());
    team.reserve(0, len)?;
    team.workers
        .chunks(&mut y[..images * len], len, |image, y, own| {
            forward_image(isa, op, &x[image * len..][..len], y, own);
        });
    Ok(())
}

/// Gradient of the input.
pub fn backward(
    team: &mut Team,
    op: &LocalNorm,
    images: usize,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    let (isa, len) = (team.workers.isa, op.shape.len());
    team.reserve(0, 2 * len)?;
    team.workers
        .chunks(&mut dx[..images * len], len, |image, dx, own| {
            let (x, dy) = (&x[image * len..][..len], &dy[image * len..][..len]);
            backward_image(isa, op, x, dy, dx, own);
        });
    Ok(())
}
