//! The update of stochastic gradient descent with momentum and weight decay.

use super::simd::{Isa, kernel};
use super::team::{CHUNK, Workers};
use crate::network::op::Sgd;

#[inline(always)]
fn update_body(op: &Sgd, weights: &mut [f32], momentum: &mut [f32], gradient: &[f32]) {
    let decay = op.decay * op.rate;
    for ((w, v), g) in weights.iter_mut().zip(momentum.iter_mut()).zip(gradient) {
        *v = op.momentum * *v - decay * *w - op.rate * g;
        *w += *v;
    }
}

kernel!(
    /// One update of as many elements as the slices have.
    pub fn update = update_body(
        op: &Sgd,
        weights: &mut [f32],
        momentum: &mut [f32],
        gradient: &[f32],
    )
);

/// See [`Sgd`].
pub fn sgd(
    workers: &Workers,
    op: &Sgd,
    weights: &mut [f32],
    momentum: &mut [f32],
    gradient: &[f32],
) {
    let isa: Isa = workers.isa;
    workers.chunk_pairs((weights, CHUNK), (momentum, CHUNK), |chunk, w, v| {
        update(isa, op, w, v, &gradient[chunk * CHUNK..][..w.len()]);
    });
}
