//! Dropout: masks drawn from the counter-based generator, or given.

use super::activation::slope;
use super::buffer::Buffer;
use super::team::Team;
use crate::device::{Activated, Mask};
use crate::network::op::{Activation, Dropout};

/// Calls `each(unit, kept)` for the column's units of one image.
fn for_each_unit(
    op: &Dropout,
    mask: &Mask<'_, Buffer>,
    image: usize,
    mut each: impl FnMut(usize, bool),
) {
    match mask.now() {
        Mask::Later { .. } => unreachable!("read just now"),
        Mask::Given(mask) => {
            for (unit, m) in mask[image * op.units..][..op.units].iter().enumerate() {
                each(unit, *m != 0.0);
            }
        }
        Mask::Counter {
            key,
            lane,
            step,
            first_image,
        } => {
            let first = (first_image + image) * op.all_units + op.first_unit;
            let threshold = op.threshold();
            let mut block = u32::MAX;
            let mut words = [0; 4];
            for unit in 0..op.units {
                let element = (first + unit) as u32;
                if element / 4 != block {
                    block = element / 4;
                    words = key.words(block, lane, step);
                }
                each(unit, words[(element % 4) as usize] >= threshold);
            }
        }
    }
}

/// Zeroes dropped units of `y` and scales the kept ones.
pub fn forward(
    team: &mut Team,
    op: &Dropout,
    images: usize,
    mask: &Mask<'_, Buffer>,
    y: &mut [f32],
) {
    let scale = op.training_scale();
    let y = &mut y[..images * op.units];
    team.workers.chunks(y, op.units, |image, y, _| {
        for_each_unit(op, mask, image, |unit, kept| {
            y[unit] = if kept { y[unit] * scale } else { 0.0 };
        });
    });
}

/// `dy = dy · mask · scale`, and the derivative of the activation before.
pub fn backward(
    team: &mut Team,
    op: &Dropout,
    images: usize,
    mask: &Mask<'_, Buffer>,
    before: Option<Activated<'_, Buffer>>,
    dy: &mut [f32],
) {
    let (scale, isa) = (op.training_scale(), team.workers.isa);
    let dy = &mut dy[..images * op.units];
    team.workers.chunks(dy, op.units, |image, dy, _| {
        for_each_unit(op, mask, image, |unit, kept| {
            dy[unit] = if kept { dy[unit] * scale } else { 0.0 };
        });
        let Some(Activated { activation, y }) = &before else {
            return;
        };
        let y = &y[image * op.units..][..op.units];
        match activation {
            // Its derivative is told from the sign, which scaling leaves.
            Activation::Relu => slope(isa, Some(Activation::Relu), y, dy),
            Activation::Tanh => {
                for (dy, y) in dy.iter_mut().zip(y) {
                    let undropped = y / scale;
                    *dy *= 1.0 - undropped * undropped;
                }
            }
        }
    });
}
