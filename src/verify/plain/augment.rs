//! The network's input from 8-bit crops, one number at a time.

use super::Input;

/// `mean` is \[side\]\[side\]\[3\], `x` \[image\]\[crop\]\[crop\]\[3\].
pub fn augment(images: usize, input: &Input, side: usize, mean: &[f32], x: &mut [f32]) {
    let crop = input.crop;
    for (image, draw) in input.draws[..images].iter().enumerate() {
        for (i, j, c) in (0..crop * crop * 3).map(|p| (p / 3 / crop, p / 3 % crop, p % 3)) {
            let pixel = input.pixels[((image * crop + i) * crop + j) * 3 + c];
            let (row, column) = (usize::from(draw.top) + i, usize::from(draw.left) + j);
            let value = f64::from(pixel) - f64::from(mean[(row * side + column) * 3 + c])
                + f64::from(draw.shift[c]);
            let to = if draw.mirror { crop - 1 - j } else { j };
            x[((image * crop + i) * crop + to) * 3 + c] = (value * f64::from(draw.gain)) as f32;
        }
    }
}
