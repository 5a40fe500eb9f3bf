//! Normalisation over neighbouring maps, then max pooling, without keeping the normalised maps:
//! one image of them at a time is made, backward once more.

use super::simd::kernel;
use super::team::Team;
use super::{lrn, pool};
use crate::error::Result;
use crate::network::op::{Lrn, Pool};

#[inline(always)]
fn forward_body(lrn: &Lrn, pool: &Pool, x: &[f32], y: &mut [f32], own: &mut [f32]) {
    let (normalised, own) = own.split_at_mut(x.len());
    lrn::forward_body(lrn, 0, &[x], normalised, own);
    pool::forward_body(pool, normalised, y);
}

#[inline(always)]
fn backward_body(
    (lrn, pool): (&Lrn, &Pool),
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    own: &mut [f32],
) {
    let (normalised, own) = own.split_at_mut(x.len());
    let (gradient, own) = own.split_at_mut(x.len());
    lrn::forward_body(lrn, 0, &[x], normalised, own);
    pool::backward_body(pool, normalised, y, dy, gradient, own);
    lrn::backward_body(lrn, 0, &[x], gradient, own, |_, at, g| {
        dx[at..at + g.len()].copy_from_slice(g);
    });
}

kernel!(fn forward_image = forward_body(
    lrn: &Lrn,
    pool: &Pool,
    x: &[f32],
    y: &mut [f32],
    own: &mut [f32],
));
kernel!(fn backward_image = backward_body(
    ops: (&Lrn, &Pool),
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    own: &mut [f32],
));

/// Both operations, forward.
pub fn forward(
    team: &mut Team,
    lrn: &Lrn,
    pool: &Pool,
    images: usize,
    x: &[f32],
    y: &mut [f32],
) -> Result<()> {
    debug_assert_eq!(lrn.parts, 1);
    let (isa, len) = (team.workers.isa, pool.input.len());
    team.reserve(0, len + lrn::work_space(lrn))?;
    let y = &mut y[..images * pool.output.len()];
    team.workers.chunks(y, pool.output.len(), |image, y, own| {
        forward_image(isa, lrn, pool, &x[image * len..][..len], y, own);
    });
    Ok(())
}

/// Gradient of the normalisation's input.
pub fn backward(
    team: &mut Team,
    lrn: &Lrn,
    pool: &Pool,
    images: usize,
    x: &[f32],
    y: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) -> Result<()> {
    debug_assert_eq!(lrn.parts, 1);
    let (isa, len, pooled) = (team.workers.isa, pool.input.len(), pool.output.len());
    team.reserve(0, 2 * len + lrn::work_space(lrn))?;
    team.workers
        .chunks(&mut dx[..images * len], len, |image, dx, own| {
            let (y, dy) = (
                &y[image * pooled..][..pooled],
                &dy[image * pooled..][..pooled],
            );
            backward_image(isa, (lrn, pool), &x[image * len..][..len], y, dy, dx, own);
        });
    Ok(())
}
