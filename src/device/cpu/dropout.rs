//! Dropout: masks drawn from the counter-based generator, or given.

use super::buffer::Buffer;
use super::team::Team;
use crate::device::Mask;
use crate::network::op::Dropout;

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

/// `dy = dy · mask · scale`, and the kept `y` divided by the scale again.
pub fn backward(
    team: &mut Team,
    op: &Dropout,
    images: usize,
    mask: &Mask<'_, Buffer>,
    y: &mut [f32],
    dy: &mut [f32],
) {
    let scale = op.training_scale();
    let (y, dy) = (&mut y[..images * op.units], &mut dy[..images * op.units]);
    team.workers
        .chunk_pairs((y, op.units), (dy, op.units), |image, y, dy| {
            for_each_unit(op, mask, image, |unit, kept| {
                if kept {
                    y[unit] /= scale;
                    dy[unit] *= scale;
                } else {
                    dy[unit] = 0.0;
                }
            });
        });
}
