//! The network's input from 8-bit crops, as [`crate::batch::Draw`] says.

use super::team::Workers;
use crate::batch::{Batch, Draw};

/// A batch's crops, draws and labels.
#[derive(Default)]
pub struct Input {
    pixels: Vec<u8>,
    crop: usize,
    draws: Vec<Draw>,
    pub labels: Vec<u32>,
}

impl Input {
    /// Room for `images` crops of `crop` × `crop` pixels.
    pub fn new(images: usize, crop: usize) -> Input {
        Input {
            pixels: Vec::with_capacity(images * crop * crop * 3),
            crop,
            draws: Vec::with_capacity(images),
            labels: Vec::with_capacity(images),
        }
    }

    pub fn bytes(&self) -> usize {
        self.pixels.capacity()
            + self.draws.capacity() * size_of::<Draw>()
            + self.labels.capacity() * 4
    }

    /// Elements of one image.
    pub fn image_len(&self) -> usize {
        self.crop * self.crop * 3
    }

    /// Copies a batch.
    pub fn fill(&mut self, batch: &Batch) {
        self.crop = batch.crop;
        self.pixels.clear();
        self.pixels.extend_from_slice(batch.used_pixels());
        self.draws.clear();
        self.draws.extend_from_slice(&batch.draws);
        self.set_labels(&batch.labels);
    }

    /// Copies labels.
    pub fn set_labels(&mut self, labels: &[u32]) {
        self.labels.clear();
        self.labels.extend_from_slice(labels);
    }
}

/// Makes `images` images; `mean` is the mean image of `side` × `side` pixels.
pub fn augment(workers: &Workers, input: &Input, side: usize, mean: &[f32], x: &mut [f32]) {
    let crop = input.crop;
    let line = crop * 3;
    workers.chunks(x, crop * line, |image, x, _| {
        let draw = &input.draws[image];
        let pixels = &input.pixels[image * crop * line..][..crop * line];
        let lines = x.chunks_exact_mut(line).zip(pixels.chunks_exact(line));
        for (y, (x, pixels)) in lines.enumerate() {
            let start = (usize::from(draw.top) + y) * side + usize::from(draw.left);
            augment_line(draw, pixels, &mean[start * 3..][..line], x);
        }
    });
}

fn augment_line(draw: &Draw, pixels: &[u8], mean: &[f32], x: &mut [f32]) {
    let value =
        |pixel: u8, mean: f32, c: usize| (f32::from(pixel) - mean + draw.shift[c]) * draw.gain;
    let pixels = pixels.chunks_exact(3).zip(mean.chunks_exact(3));
    let fill = |(x, (p, m)): (&mut [f32], (&[u8], &[f32]))| {
        for c in 0..3 {
            x[c] = value(p[c], m[c], c);
        }
    };
    if draw.mirror {
        x.chunks_exact_mut(3).rev().zip(pixels).for_each(fill);
    } else {
        x.chunks_exact_mut(3).zip(pixels).for_each(fill);
    }
}
