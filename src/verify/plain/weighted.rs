//! Convolution and fully connected layers.

use crate::network::op::{Activation, Conv, Linear};
use rayon::prelude::*;

/// Rounds sums to f32, into a result or onto what it held.
pub(super) fn store(sums: &[f64], accumulate: bool, into: &mut [f32]) {
    for (into, sum) in into.iter_mut().zip(sums) {
        let before = if accumulate { f64::from(*into) } else { 0.0 };
        *into = (before + sum) as f32;
    }
}

/// The activation, if there is one.
pub(super) fn activate(activation: Option<Activation>, y: f64) -> f64 {
    match activation {
        None => y,
        Some(Activation::Relu) => y.max(0.0),
        Some(Activation::Tanh) => y.tanh(),
    }
}

/// `dy` times the derivative of the activation, if there is one, told from its output.
pub(super) fn slope(activation: Option<Activation>, y: &[f32], dy: &mut [f32]) {
    for (y, dy) in y.iter().zip(dy) {
        let y = f64::from(*y);
        let slope = match activation {
            None => 1.0,
            Some(Activation::Relu) => f64::from(u8::from(y > 0.0)),
            Some(Activation::Tanh) => 1.0 - y * y,
        };
        *dy = (f64::from(*dy) * slope) as f32;
    }
}

/// The input pixel that output position (row, column) reads at (i, j) of its window.
fn tap(op: &Conv, row: usize, column: usize, i: usize, j: usize) -> Option<usize> {
    let w = op.window;
    let y = (row * w.stride + i).checked_sub(w.pad)?;
    let x = (column * w.stride + j).checked_sub(w.pad)?;
    (y < op.input.height && x < op.input.width).then_some(y * op.input.width + x)
}

/// Calls `each(i, j)` for every place in the window.
fn window(op: &Conv) -> impl Iterator<Item = (usize, usize)> {
    let size = op.window.size;
    (0..size * size).map(move |t| (t / size, t % size))
}

pub(super) fn conv_forward(
    op: &Conv,
    images: usize,
    x: &[&[f32]],
    weights: &[&[f32]],
    bias: &[f32],
    y: &mut [f32],
) {
    let (inputs, outputs) = (op.input.maps, op.output.maps);
    let row_len = op.output.width * outputs;
    let rows = y[..images * op.output.len()].par_chunks_mut(row_len);
    rows.enumerate().for_each(|(r, y)| {
        let (image, row) = (r / op.output.height, r % op.output.height);
        for (column, y) in y.chunks_exact_mut(outputs).enumerate() {
            let mut sums: Vec<f64> = bias[..outputs].iter().map(|&b| f64::from(b)).collect();
            for (x, weights) in x.iter().zip(weights) {
                for (i, j) in window(op) {
                    let Some(pixel) = tap(op, row, column, i, j) else {
                        continue;
                    };
                    let x = &x[image * op.input.len() + pixel * inputs..][..inputs];
                    let first = (i * op.window.size + j) * inputs * outputs;
                    add_products(x, &weights[first..], &mut sums);
                }
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = activate(op.activation, sum) as f32;
            }
        }
    });
}

/// `sums += x · weights`.
fn add_products(x: &[f32], weights: &[f32], sums: &mut [f64]) {
    for (x, row) in x.iter().zip(weights.chunks_exact(sums.len())) {
        let x = f64::from(*x);
        for (sum, w) in sums.iter_mut().zip(row) {
            *sum += x * f64::from(*w);
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum()
}

pub(super) fn conv_data(op: &Conv, images: usize, dy: &[f32], weights: &[f32], dx: &mut [f32]) {
    let (inputs, outputs, size) = (op.input.maps, op.output.maps, op.window.size);
    // Transposed, so that the innermost loop runs over neighbours.
    let mut turned = vec![0.0f32; size * size * inputs * outputs];
    for (t, place) in turned.chunks_exact_mut(inputs * outputs).enumerate() {
        for (o, row) in place.chunks_exact_mut(inputs).enumerate() {
            for (m, w) in row.iter_mut().enumerate() {
                *w = weights[(t * inputs + m) * outputs + o];
            }
        }
    }
    let image_len = op.input.len();
    let all = dx[..images * image_len].par_chunks_mut(image_len);
    all.enumerate().for_each(|(image, dx)| {
        let mut sums = vec![0.0f64; image_len];
        let dy = &dy[image * op.output.len()..][..op.output.len()];
        for (p, dy) in dy.chunks_exact(outputs).enumerate() {
            let (row, column) = (p / op.output.width, p % op.output.width);
            for (i, j) in window(op) {
                if let Some(pixel) = tap(op, row, column, i, j) {
                    let first = (i * size + j) * inputs * outputs;
                    add_products(dy, &turned[first..], &mut sums[pixel * inputs..][..inputs]);
                }
            }
        }
        store(&sums, false, dx);
    });
}

pub(super) fn conv_weights(
    op: &Conv,
    images: usize,
    x: &[f32],
    dy: &[f32],
    accumulate: bool,
    gradient: &mut [f32],
) {
    let (inputs, outputs, size) = (op.input.maps, op.output.maps, op.window.size);
    let used = &mut gradient[..op.depth() * outputs];
    let taps = used.par_chunks_mut(inputs * outputs);
    taps.enumerate().for_each(|(t, gradient)| {
        let mut sums = vec![0.0f64; inputs * outputs];
        for (p, dy) in dy[..images * op.output.len()]
            .chunks_exact(outputs)
            .enumerate()
        {
            let (image, p) = (p / op.output.pixels(), p % op.output.pixels());
            let (row, column) = (p / op.output.width, p % op.output.width);
            let Some(pixel) = tap(op, row, column, t / size, t % size) else {
                continue;
            };
            let x = &x[image * op.input.len() + pixel * inputs..][..inputs];
            for (x, sums) in x.iter().zip(sums.chunks_exact_mut(outputs)) {
                let x = f64::from(*x);
                for (sum, d) in sums.iter_mut().zip(dy) {
                    *sum += x * f64::from(*d);
                }
            }
        }
        store(&sums, accumulate, gradient);
    });
}

pub(super) fn linear_forward(
    op: &Linear,
    images: usize,
    x: &[&[f32]],
    weights: &[&[f32]],
    bias: &[f32],
    y: &mut [f32],
) {
    /// Outputs of one task.
    const BLOCK: usize = 64;
    let blocks = op.outputs.div_ceil(BLOCK);
    let sums: Vec<Vec<f64>> = (0..blocks * images)
        .into_par_iter()
        .map(|task| {
            let (block, image) = (task / images, task % images);
            let range = block * BLOCK..op.outputs.min((block + 1) * BLOCK);
            let mut sums: Vec<f64> = bias[range.clone()].iter().map(|&b| f64::from(b)).collect();
            for (x, weights) in x.iter().zip(weights) {
                let x = &x[image * op.depth()..][..op.depth()];
                for (x, row) in x.iter().zip(weights.chunks_exact(op.outputs)) {
                    let x = f64::from(*x);
                    for (sum, w) in sums.iter_mut().zip(&row[range.clone()]) {
                        *sum += x * f64::from(*w);
                    }
                }
            }
            sums
        })
        .collect();
    for (task, sums) in sums.iter().enumerate() {
        let (block, image) = (task / images, task % images);
        let y = &mut y[image * op.outputs + block * BLOCK..][..sums.len()];
        for (y, sum) in y.iter_mut().zip(sums) {
            *y = activate(op.activation, *sum) as f32;
        }
    }
}

pub(super) fn linear_data(op: &Linear, images: usize, dy: &[f32], weights: &[f32], dx: &mut [f32]) {
    let (depth, outputs) = (op.depth(), op.outputs);
    dx[..images * depth]
        .par_iter_mut()
        .enumerate()
        .for_each(|(i, dx)| {
            let (image, row) = (i / depth, i % depth);
            let dy = &dy[image * outputs..][..outputs];
            *dx = dot(dy, &weights[row * outputs..][..outputs]) as f32;
        });
}

pub(super) fn linear_weights(
    op: &Linear,
    images: usize,
    x: &[f32],
    dy: &[f32],
    accumulate: bool,
    gradient: &mut [f32],
) {
    let (depth, outputs) = (op.depth(), op.outputs);
    let rows = gradient[..depth * outputs].par_chunks_mut(outputs);
    rows.enumerate().for_each(|(row, gradient)| {
        let mut sums = vec![0.0f64; outputs];
        for image in 0..images {
            let x = f64::from(x[image * depth + row]);
            for (sum, d) in sums.iter_mut().zip(&dy[image * outputs..][..outputs]) {
                *sum += x * f64::from(*d);
            }
        }
        store(&sums, accumulate, gradient);
    });
}
