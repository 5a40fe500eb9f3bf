//! Non-linearities, and scaling and adding, element by element.

use super::simd::{Isa, kernel};
use super::team::{CHUNK, Workers};
use crate::network::op::Activation;

#[inline(always)]
fn relu_body(y: &mut [f32]) {
    for y in y {
        // Not `max`, so that a NaN stays one.
        *y = if *y < 0.0 { 0.0 } else { *y };
    }
}

#[inline(always)]
fn relu_backward_body(y: &[f32], dy: &mut [f32]) {
    for (dy, y) in dy.iter_mut().zip(y) {
        *dy = if *y > 0.0 { *dy } else { 0.0 };
    }
}

#[inline(always)]
fn scale_body(factor: f32, y: &mut [f32]) {
    for y in y {
        *y *= factor;
    }
}

#[inline(always)]
fn add_body(from: &[f32], into: &mut [f32]) {
    for (t, s) in into.iter_mut().zip(from) {
        *t += s;
    }
}

kernel!(fn relu = relu_body(y: &mut [f32]));
kernel!(fn relu_backward = relu_backward_body(y: &[f32], dy: &mut [f32]));
kernel!(fn scale_chunk = scale_body(factor: f32, y: &mut [f32]));
kernel!(fn add_chunk = add_body(from: &[f32], into: &mut [f32]));

/// `tanh(y)` in place.
pub fn tanh(y: &mut [f32]) {
    for y in y {
        *y = y.tanh();
    }
}

/// `y = activation(y)`, in the calling thread.
pub fn apply(isa: Isa, activation: Option<Activation>, y: &mut [f32]) {
    match activation {
        None => {}
        Some(Activation::Relu) => relu(isa, y),
        Some(Activation::Tanh) => tanh(y),
    }
}

/// `dy = dy · activation'(y)`, in the calling thread.
pub fn slope(isa: Isa, activation: Option<Activation>, y: &[f32], dy: &mut [f32]) {
    match activation {
        None => {}
        Some(Activation::Relu) => relu_backward(isa, y, dy),
        Some(Activation::Tanh) => {
            for (dy, y) in dy.iter_mut().zip(y) {
                *dy *= 1.0 - y * y;
            }
        }
    }
}

/// `y = activation(y)`.
pub fn forward(workers: &Workers, activation: Activation, y: &mut [f32]) {
    let isa = workers.isa;
    workers.chunks(y, CHUNK, |_, y, _| apply(isa, Some(activation), y));
}

/// `dy = dy · activation'(y)`, the derivative told from the output.
pub fn backward(workers: &Workers, activation: Activation, y: &[f32], dy: &mut [f32]) {
    let isa = workers.isa;
    workers.chunks(dy, CHUNK, |chunk, dy, _| {
        slope(isa, Some(activation), &y[chunk * CHUNK..][..dy.len()], dy);
    });
}

/// `y = factor · y`.
pub fn scale(workers: &Workers, factor: f32, y: &mut [f32]) {
    let isa = workers.isa;
    workers.chunks(y, CHUNK, |_, y, _| scale_chunk(isa, factor, y));
}

/// `into = into + from`.
pub fn add(workers: &Workers, from: &[f32], into: &mut [f32]) {
    let isa = workers.isa;
    workers.chunks(into, CHUNK, |chunk, into, _| {
        add_chunk(isa, &from[chunk * CHUNK..][..into.len()], into);
    });
}
