//! Normalisation and pooling.

use crate::network::op::{LocalNorm, Lrn, Pool, Shape};
use std::ops::Range;

/// The window of `size` around `i`, clipped to `0..end`.
fn around(i: usize, size: usize, end: usize) -> Range<usize> {
    i.saturating_sub(size / 2)..(i + (size - 1) / 2 + 1).min(end)
}

/// One pixel of all maps that a normalisation sees, column 0's first.
struct Pixel {
    values: Vec<f64>,
    /// `k + alpha · Σ` of every map.
    scales: Vec<f64>,
    /// Place of this column's first map.
    first: usize,
}

impl Pixel {
    fn read(op: &Lrn, pixel: usize, x: &[&[f32]]) -> Pixel {
        let maps = op.shape.maps;
        let column = if op.parts > 1 { op.column } else { 0 };
        let mut values = Vec::with_capacity(op.parts * maps);
        for source in 0..op.parts {
            // The parts come own column first.
            let part = x[usize::from(source != column)];
            values.extend(part[pixel * maps..][..maps].iter().map(|&v| f64::from(v)));
        }
        let scale = |m: usize| {
            let window = &values[around(m, op.size, values.len())];
            let sum: f64 = window.iter().map(|v| v * v).sum();
            f64::from(op.k) + f64::from(op.alpha) * sum
        };
        let scales = (0..values.len()).map(scale).collect();
        Pixel {
            values,
            scales,
            first: column * maps,
        }
    }
}

/// This column's normalised maps.
pub(super) fn normalised(op: &Lrn, images: usize, x: &[&[f32]]) -> Vec<f64> {
    let maps = op.shape.maps;
    let of_pixel = |p: usize| {
        let pixel = Pixel::read(op, p, x);
        let beta = f64::from(op.beta);
        (pixel.first..pixel.first + maps)
            .map(|m| pixel.values[m] * pixel.scales[m].powf(-beta))
            .collect::<Vec<f64>>()
    };
    (0..images * op.shape.pixels()).flat_map(of_pixel).collect()
}

pub(super) fn lrn_forward(op: &Lrn, images: usize, x: &[&[f32]], y: &mut [f32]) {
    for (y, value) in y.iter_mut().zip(normalised(op, images, x)) {
        *y = value as f32;
    }
}

/// Gradients of the parts of the input, own column first.
pub(super) fn lrn_backward(op: &Lrn, images: usize, x: &[&[f32]], dy: &[f64]) -> Vec<Vec<f32>> {
    let maps = op.shape.maps;
    let (alpha, beta) = (f64::from(op.alpha), f64::from(op.beta));
    let mut dx = vec![vec![0.0f32; images * op.shape.len()]; op.parts];
    for p in 0..images * op.shape.pixels() {
        let pixel = Pixel::read(op, p, x);
        let mut gradient = vec![0.0; pixel.values.len()];
        for (m, dy) in dy[p * maps..][..maps].iter().enumerate() {
            let place = pixel.first + m;
            let scale = pixel.scales[place];
            gradient[place] += dy * scale.powf(-beta);
            let shared = -2.0 * alpha * beta * dy * pixel.values[place] * scale.powf(-beta - 1.0);
            for near in around(place, op.size, pixel.values.len()) {
                gradient[near] += shared * pixel.values[near];
            }
        }
        for (source, values) in gradient.chunks(maps).enumerate() {
            let part = usize::from(source * maps != pixel.first);
            let target = &mut dx[part][p * maps..][..maps];
            target
                .iter_mut()
                .zip(values)
                .for_each(|(t, v)| *t = *v as f32);
        }
    }
    dx
}

fn at(shape: Shape, image: usize, row: usize, column: usize, map: usize) -> usize {
    ((image * shape.height + row) * shape.width + column) * shape.maps + map
}

/// Image, row, column and map of every element.
fn places(s: Shape, images: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..images * s.len()).map(move |i| {
        let pixel = i / s.maps;
        (
            pixel / s.pixels(),
            pixel / s.width % s.height,
            pixel % s.width,
            i % s.maps,
        )
    })
}

/// The elements of the square of pixels around one.
fn square(
    op: &LocalNorm,
    (image, row, column, map): (usize, usize, usize, usize),
) -> impl Iterator<Item = usize> {
    let (s, size) = (op.shape, op.size);
    around(row, size, s.height)
        .flat_map(move |r| around(column, size, s.width).map(move |c| at(s, image, r, c, map)))
}

fn square_scale(op: &LocalNorm, x: &[f32], place: (usize, usize, usize, usize)) -> f64 {
    let sum: f64 = square(op, place).map(|i| f64::from(x[i]).powi(2)).sum();
    f64::from(op.k) + f64::from(op.alpha) * sum
}

pub(super) fn local_norm_forward(op: &LocalNorm, images: usize, x: &[f32], y: &mut [f32]) {
    for (i, place) in places(op.shape, images).enumerate() {
        let scale = square_scale(op, x, place);
        y[i] = (f64::from(x[i]) * scale.powf(-f64::from(op.beta))) as f32;
    }
}

pub(super) fn local_norm_backward(
    op: &LocalNorm,
    images: usize,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    let (alpha, beta) = (f64::from(op.alpha), f64::from(op.beta));
    let mut gradient = vec![0.0; images * op.shape.len()];
    for (i, place) in places(op.shape, images).enumerate() {
        let (scale, dy) = (square_scale(op, x, place), f64::from(dy[i]));
        gradient[i] += dy * scale.powf(-beta);
        let shared = -2.0 * alpha * beta * dy * f64::from(x[i]) * scale.powf(-beta - 1.0);
        for near in square(op, place) {
            gradient[near] += shared * f64::from(x[near]);
        }
    }
    super::weighted::store(&gradient, false, dx);
}

/// For each output the element that is its window's first maximum, in row-major order.
fn maxima(op: &Pool, images: usize, x: &[f64]) -> Vec<Option<usize>> {
    let w = op.window;
    let inside = |position: usize, end: usize| {
        (0..w.size).filter_map(move |i| {
            (position * w.stride + i)
                .checked_sub(w.pad)
                .filter(|&p| p < end)
        })
    };
    let first = |(image, row, column, map): (usize, usize, usize, usize)| {
        let mut best: Option<usize> = None;
        for r in inside(row, op.input.height) {
            for c in inside(column, op.input.width) {
                let here = at(op.input, image, r, c, map);
                if best.is_none_or(|b| x[here] > x[b]) {
                    best = Some(here);
                }
            }
        }
        best
    };
    places(op.output, images).map(first).collect()
}

pub(super) fn pool_forward(op: &Pool, images: usize, x: &[f64], y: &mut [f32]) {
    for (y, best) in y.iter_mut().zip(maxima(op, images, x)) {
        *y = best.map_or(0.0, |b| x[b] as f32);
    }
}

pub(super) fn pool_backward(op: &Pool, images: usize, x: &[f64], dy: &[f32]) -> Vec<f64> {
    let mut dx = vec![0.0; images * op.input.len()];
    for (best, dy) in maxima(op, images, x).into_iter().zip(dy) {
        if let Some(best) = best {
            dx[best] += f64::from(*dy);
        }
    }
    dx
}
