//! The reference: a device that computes every operation in float64, as its definition reads.
//!
//! Nothing here is fast or shared with the other devices, so that a mistake of theirs is not
//! repeated: buffers are plain vectors in the layout of [`crate::network::op`], sums are float64,
//! results are rounded to f32 once.

mod augment;
mod dropout;
mod maps;
mod operations;
mod softmax;
mod weighted;

use crate::batch::Draw;

/// See the module.
#[derive(Default)]
pub struct Plain {
    bytes: usize,
}

/// A batch's crops, draws and labels.
#[derive(Default)]
pub struct Input {
    pixels: Vec<u8>,
    crop: usize,
    draws: Vec<Draw>,
    labels: Vec<u32>,
}

type Buffer = Vec<f32>;
