//! The network's input from 8-bit crops.

use crate::support::*;
use alexnet_mp::batch::{Batch, Draw, pageable};
use alexnet_mp::data::augment::Augmenter;
use alexnet_mp::data::{AugmentOptions, ColourRule, Statistics};
use alexnet_mp::device::Device;

for_each_device!(
    pixels_are_shifted_mirrored_and_scaled_as_drawn,
    a_plain_draw_subtracts_the_mean_of_its_own_place,
    every_device_gives_the_same_bits,
);

/// Sides of images and of their crops: the paper's; lines of two whole groups of a SIMD path, and a rest; one pixel.
const SIZES: [(usize, usize); 3] = [(256, 224), (24, 19), (6, 1)];

fn batch(crop: usize, draws: &[Draw]) -> Batch {
    let mut batch = Batch::with_capacity(draws.len() + 1, crop, &pageable());
    for (i, byte) in batch.pixels.bytes_mut().iter_mut().enumerate() {
        *byte = (i * 37 % 256) as u8;
    }
    batch.draws.extend_from_slice(draws);
    batch.labels.extend(0..draws.len() as u32);
    batch
}

fn augmented<D: Device>(
    d: &mut D,
    (side, crop): (usize, usize),
    batch: &Batch,
    mean: &[f32],
) -> Vec<f32> {
    let elements = batch.len() * batch.crop_bytes();
    let mut input = d.allocate_input(batch.len() + 1, crop).unwrap();
    let (mean, mut x) = (filled(d, mean), d.allocate(elements).unwrap());
    d.upload_input(batch, &mut input).unwrap();
    d.input_arrived(&input).unwrap();
    d.augment(batch.len(), &input, side, &mean, &mut x).unwrap();
    read(d, &x, elements)
}

fn pixels_are_shifted_mirrored_and_scaled_as_drawn<D: Device>(open: Open<D>) {
    let mut d = open();
    let draw = Draw {
        top: 3,
        left: 5,
        mirror: false,
        shift: [1.5, -20.0, 0.25],
        gain: 1.0 / 1.1,
    };
    let mirrored = Draw {
        mirror: true,
        ..draw
    };
    for (side, crop) in SIZES {
        let batch = batch(crop, &[mirrored, draw, Draw::plain(0, 2)]);
        let mean: Vec<f32> = random(0, side * side * 3)
            .iter()
            .map(|x| 128.0 * x)
            .collect();
        let mut expected = vec![0.0; batch.len() * batch.crop_bytes()];
        for (i, draw) in batch.draws.iter().enumerate() {
            for (y, x, c) in (0..crop * crop * 3).map(|p| (p / 3 / crop, p / 3 % crop, p % 3)) {
                let pixel = batch.pixels.bytes()[((i * crop + y) * crop + x) * 3 + c];
                let at = ((usize::from(draw.top) + y) * side + usize::from(draw.left) + x) * 3 + c;
                let sum = f64::from(pixel) - f64::from(mean[at]) + f64::from(draw.shift[c]);
                let to = if draw.mirror { crop - 1 - x } else { x };
                expected[((i * crop + y) * crop + to) * 3 + c] = sum * f64::from(draw.gain);
            }
        }
        let found = augmented(&mut d, (side, crop), &batch, &mean);
        assert_close((side, crop), &found, &expected, 1e-6);
    }
}

fn a_plain_draw_subtracts_the_mean_of_its_own_place<D: Device>(open: Open<D>) {
    let mut d = open();
    let (side, crop) = SIZES[1];
    let batch = batch(crop, &[Draw::plain(5, 5)]);
    let mean: Vec<f32> = (0..side * side * 3).map(|i| i as f32).collect();
    let x = augmented(&mut d, (side, crop), &batch, &mean);
    assert_eq!(x[0], 0.0 - ((5 * side + 5) * 3) as f32);
}

/// As stated in the definition: pixel − mean, + shift, · gain, each rounded to f32 in this order;
/// what one device may not do is to round otherwise than another. Images as training draws them,
/// under every rule of the colour noise.
fn every_device_gives_the_same_bits<D: Device>(open: Open<D>) {
    let mut d = open();
    SIZES
        .iter()
        .for_each(|&sizes| gives_the_bits_of_the_definition(&mut d, sizes));
}

fn gives_the_bits_of_the_definition<D: Device>(d: &mut D, (side, crop): (usize, usize)) {
    let mean: Vec<f32> = random(1, side * side * 3)
        .iter()
        .map(|x| 120.0 + 50.0 * x)
        .collect();
    let statistics = Statistics {
        mean: mean.clone(),
        eigenvalues: [3000.0, 300.0, 70.0],
        eigenvectors: [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]],
        ..Statistics::zero(side)
    };
    let mut draws = Vec::new();
    for colour_rule in [ColourRule::Paper, ColourRule::Source, ColourRule::Literal] {
        let options = AugmentOptions {
            crop,
            colour_rule,
            ..AugmentOptions::default()
        };
        let augmenter = Augmenter::new(&options, &statistics, 7).unwrap();
        draws.extend((0..6).map(|position| augmenter.draw(0, position).draw));
    }
    assert!(draws.iter().any(|d| d.mirror) && draws.iter().any(|d| !d.mirror));
    let batch = batch(crop, &draws);
    let found = augmented(d, (side, crop), &batch, &mean);
    for (i, draw) in draws.iter().enumerate() {
        for (y, x, c) in (0..crop * crop * 3).map(|p| (p / 3 / crop, p / 3 % crop, p % 3)) {
            let pixel = batch.pixels.bytes()[((i * crop + y) * crop + x) * 3 + c];
            let at = ((usize::from(draw.top) + y) * side + usize::from(draw.left) + x) * 3 + c;
            let expected = (f32::from(pixel) - mean[at] + draw.shift[c]) * draw.gain;
            let to = if draw.mirror { crop - 1 - x } else { x };
            let found = found[((i * crop + y) * crop + to) * 3 + c];
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "image {i}, row {y}, column {x}, colour {c}: {found} for {expected}"
            );
        }
    }
}
