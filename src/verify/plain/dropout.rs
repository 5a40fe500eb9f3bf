//! Dropout, one unit at a time.

use crate::device::Mask;
use crate::network::op::Dropout;

/// Multiplies all units of some images by the mask, and by the scale of training. Forward and backward alike.
pub fn apply(op: &Dropout, mask: &Mask<'_, Vec<f32>>, values: &mut [f32]) {
    for (i, value) in values.iter_mut().enumerate() {
        *value *= kept(op, mask, i) * op.training_scale();
    }
}

/// 1 where unit `i` of all images' units is kept, else 0.
fn kept(op: &Dropout, mask: &Mask<'_, Vec<f32>>, i: usize) -> f32 {
    match mask.now() {
        Mask::Later { .. } => unreachable!("read just now"),
        Mask::Given(mask) => mask[i],
        Mask::Counter {
            key,
            lane,
            step,
            first_image,
        } => {
            let (image, unit) = (first_image + i / op.units, op.first_unit + i % op.units);
            let word = key.word((image * op.all_units + unit) as u32, lane, step);
            f32::from(u8::from(word >= op.threshold()))
        }
    }
}
