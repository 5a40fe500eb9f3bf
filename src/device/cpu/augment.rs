//! The network's input from 8-bit crops, as [`crate::batch::Draw`] says.

use super::simd::kernel;
use super::team::Workers;
use crate::batch::{Batch, Draw};
use crate::nontemporal::{self, Writer};

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

/// Makes the images of `x`; `mean` is the mean image of `side` × `side` pixels.
pub fn augment(workers: &Workers, input: &Input, side: usize, mean: &[f32], x: &mut [f32]) {
    let line = input.crop * 3;
    let image_len = input.image_len();
    // Groups of 24 fill AVX2's vectors; compiled for AVX-512 the same loops take six times as long.
    let isa = workers.isa.without_avx512();
    workers.chunks(x, image_len, |image, x, _| {
        let pixels = &input.pixels[image * image_len..][..image_len];
        nontemporal::writing(|writer| {
            augment_image(
                isa,
                &input.draws[image],
                pixels,
                mean,
                side,
                line,
                writer,
                x,
            );
        });
    });
}

kernel!(
    /// One image of lines of `line` bytes.
    fn augment_image = image_body(
        draw: &Draw, pixels: &[u8], mean: &[f32], side: usize, line: usize, to: &Writer,
        x: &mut [f32]
    )
);

/// Pixels that are computed together, in elements: eight of three colours fill whole vectors.
const GROUP: usize = 24;

#[inline(always)]
fn image_body(
    draw: &Draw,
    pixels: &[u8],
    mean: &[f32],
    side: usize,
    line: usize,
    to: &Writer,
    x: &mut [f32],
) {
    let colour = Colour::of(draw);
    let lines = x.chunks_exact_mut(line).zip(pixels.chunks_exact(line));
    for (y, (x, pixels)) in lines.enumerate() {
        let start = (usize::from(draw.top) + y) * side + usize::from(draw.left);
        let mean = &mean[start * 3..][..line];
        match draw.mirror {
            true => mirrored_line(&colour, pixels, mean, to, x),
            false => plain_line(&colour, pixels, mean, to, x),
        }
    }
}

/// What is done to the colours of an image: the shift of every element of a group, and the gain.
struct Colour {
    shift: [f32; GROUP],
    gain: f32,
}

impl Colour {
    #[inline(always)]
    fn of(draw: &Draw) -> Self {
        Colour {
            shift: std::array::from_fn(|i| draw.shift[i % 3]),
            gain: draw.gain,
        }
    }

    /// Element `i` of a group, in this order of operations, as on the GPU, so that both give the same bits.
    #[inline(always)]
    fn value(&self, i: usize, pixel: u8, mean: f32) -> f32 {
        (f32::from(pixel) - mean + self.shift[i]) * self.gain
    }

    #[inline(always)]
    fn group(&self, pixels: &[u8; GROUP], mean: &[f32; GROUP]) -> [f32; GROUP] {
        let mut values = [0.0; GROUP];
        for i in 0..GROUP {
            values[i] = self.value(i, pixels[i], mean[i]);
        }
        values
    }
}

#[inline(always)]
fn plain_line(colour: &Colour, pixels: &[u8], mean: &[f32], to: &Writer, x: &mut [f32]) {
    let (pixel_groups, pixel_rest) = pixels.as_chunks::<GROUP>();
    let (mean_groups, mean_rest) = mean.as_chunks::<GROUP>();
    let (x_groups, x_rest) = x.as_chunks_mut::<GROUP>();
    for ((x, pixels), mean) in x_groups.iter_mut().zip(pixel_groups).zip(mean_groups) {
        to.put(colour.group(pixels, mean), x);
    }
    for (i, x) in x_rest.iter_mut().enumerate() {
        *x = colour.value(i, pixel_rest[i], mean_rest[i]);
    }
}

/// The groups of `x` are counted from its end, so that its rest comes first.
#[inline(always)]
fn mirrored_line(colour: &Colour, pixels: &[u8], mean: &[f32], to: &Writer, x: &mut [f32]) {
    let (pixel_groups, pixel_rest) = pixels.as_chunks::<GROUP>();
    let (mean_groups, mean_rest) = mean.as_chunks::<GROUP>();
    let (x_rest, x_groups) = x.as_rchunks_mut::<GROUP>();
    let groups = x_groups.iter_mut().rev().zip(pixel_groups);
    for ((x, pixels), mean) in groups.zip(mean_groups) {
        // Written out, so that it becomes shuffles whether or not the compiler unrolls loops here.
        let [a, b, c, d, e, f, g, h]: [[f32; 3]; GROUP / 3] =
            bytemuck::cast(colour.group(pixels, mean));
        to.put(bytemuck::cast([h, g, f, e, d, c, b, a]), x);
    }
    let end = x_rest.len();
    for i in 0..end {
        x_rest[end - 3 - i / 3 * 3 + i % 3] = colour.value(i, pixel_rest[i], mean_rest[i]);
    }
}
