//! Max pooling.

use super::activation;
use super::simd::kernel;
use super::team::Team;
use crate::error::Result;
use crate::network::op::{Pool, Window};
use std::ops::Range;

/// The pixels of a window's position that are inside an edge of `input` pixels.
#[inline(always)]
pub fn inside(window: Window, position: usize, input: usize) -> Range<usize> {
    let start = position * window.stride;
    start.saturating_sub(window.pad)..(start + window.size).saturating_sub(window.pad).min(input)
}

/// Pools one image.
#[inline(always)]
pub fn forward_body(op: &Pool, x: &[f32], y: &mut [f32]) {
    let maps = op.input.maps;
    for (pixel, y) in y.chunks_exact_mut(maps).enumerate() {
        let rows = inside(op.window, pixel / op.output.width, op.input.height);
        let columns = inside(op.window, pixel % op.output.width, op.input.width);
        if rows.is_empty() || columns.is_empty() {
            y.fill(0.0);
            continue;
        }
        y.fill(f32::NEG_INFINITY);
        for row in rows {
            for column in columns.clone() {
                let x = &x[(row * op.input.width + column) * maps..][..maps];
                for (y, x) in y.iter_mut().zip(x) {
                    *y = if *x > *y { *x } else { *y };
                }
            }
        }
    }
}

/// Adds the gradient of one image to `dx`; `left` is work space of as many elements as maps.
#[inline(always)]
pub fn backward_body(
    op: &Pool,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    left: &mut [f32],
) {
    let maps = op.input.maps;
    let left = &mut left[..maps];
    dx.fill(0.0);
    for (pixel, (y, dy)) in y.chunks_exact(maps).zip(dy.chunks_exact(maps)).enumerate() {
        left.copy_from_slice(dy);
        for row in inside(op.window, pixel / op.output.width, op.input.height) {
            for column in inside(op.window, pixel % op.output.width, op.input.width) {
                let at = (row * op.input.width + column) * maps;
                let (x, dx) = (&x[at..at + maps], &mut dx[at..at + maps]);
                for i in 0..maps {
                    // What the first maximum takes is not left for a later one.
                    let taken = if x[i] == y[i] { left[i] } else { 0.0 };
                    dx[i] += taken;
                    left[i] -= taken;
                }
            }
        }
    }
}

kernel!(fn pool_image = forward_body(op: &Pool, x: &[f32], y: &mut [f32]));
kernel!(fn unpool_image = backward_body(
    op: &Pool,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    left: &mut [f32],
));

/// See [`Pool`].
pub fn forward(team: &mut Team, op: &Pool, images: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
    let (isa, len) = (team.workers.isa, op.input.len());
    let y = &mut y[..images * op.output.len()];
    team.workers.chunks(y, op.output.len(), |image, y, _| {
        pool_image(isa, op, &x[image * len..][..len], y);
    });
    Ok(())
}

/// Gradient of the input: each window's goes to its first maximum.
pub fn backward(
    team: &mut Team,
    op: &Pool,
    images: usize,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    team.reserve(0, op.input.maps)?;
    let (isa, len, pooled) = (team.workers.isa, op.input.len(), op.output.len());
    team.workers
        .chunks(&mut dx[..images * len], len, |image, dx, own| {
            let (y, dy) = (
                &y[image * pooled..][..pooled],
                &dy[image * pooled..][..pooled],
            );
            let x = &x[image * len..][..len];
            unpool_image(isa, op, x, y, dy, dx, own);
            activation::slope(isa, op.activated, x, dx);
        });
    Ok(())
}
