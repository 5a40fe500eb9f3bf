//! Dropout with given masks and with drawn ones.

use crate::support::*;
use alexnet_mp::device::{Activated, Device, Mask};
use alexnet_mp::network::op::{Activation, Dropout};
use alexnet_mp::random::{Key, Purpose};

for_each_device!(
    a_given_mask_decides_which_units_pass,
    drawn_masks_are_the_words_of_the_generator,
    the_rate_of_dropped_units_is_as_asked,
    backward_scales_the_gradient_of_kept_units,
    backward_may_include_the_activation_before,
    two_columns_draw_the_mask_of_one,
);

fn op(units: usize, rescale: bool) -> Dropout {
    Dropout {
        units,
        first_unit: 0,
        all_units: units,
        rate: 0.5,
        rescale,
    }
}

fn counter<'a, B>(step: u64, first_image: usize) -> Mask<'a, B> {
    let key = Key::new(5, Purpose::Dropout);
    Mask::Counter {
        key,
        lane: 6,
        step,
        first_image,
    }
}

/// Which units of `y` all ones are kept.
fn drawn<D: Device>(d: &mut D, op: &Dropout, images: usize, step: u64, first: usize) -> Vec<bool> {
    let mut y = filled(d, &vec![1.0; images * op.units]);
    d.dropout_forward(op, images, &counter(step, first), &mut y)
        .unwrap();
    read(d, &y, images * op.units)
        .iter()
        .map(|&y| y != 0.0)
        .collect()
}

fn a_given_mask_decides_which_units_pass<D: Device>(open: Open<D>) {
    let mut d = open();
    for (rescale, factor) in [(false, 1.0), (true, 2.0)] {
        let op = op(37, rescale);
        let x = random(0, 3 * 37);
        let kept: Vec<f32> = random(1, x.len())
            .iter()
            .map(|x| f32::from(*x > 0.0))
            .collect();
        let (mut y, mask) = (filled(&mut d, &x), filled(&mut d, &kept));
        d.dropout_forward(&op, 3, &Mask::Given(&mask), &mut y)
            .unwrap();
        let expected: Vec<f32> = x.iter().zip(&kept).map(|(x, m)| x * m * factor).collect();
        assert_eq!(read(&mut d, &y, x.len()), expected);
        let (mut y, ones) = (filled(&mut d, &x), filled(&mut d, &vec![1.0; x.len()]));
        d.dropout_forward(&op, 3, &Mask::Given(&ones), &mut y)
            .unwrap();
        let expected: Vec<f32> = x.iter().map(|x| x * factor).collect();
        assert_eq!(read(&mut d, &y, x.len()), expected);
    }
}

fn drawn_masks_are_the_words_of_the_generator<D: Device>(open: Open<D>) {
    let mut d = open();
    let key = Key::new(5, Purpose::Dropout);
    // The second column of fc6, an odd one, and one unit.
    for (units, images, rate) in [(2048, 2, 0.5), (13, 4, 0.3), (1, 1, 0.5)] {
        let op = Dropout {
            units,
            first_unit: units,
            all_units: 2 * units,
            rate,
            rescale: false,
        };
        let kept = drawn(&mut d, &op, images, 9, 7);
        for (i, kept) in kept.iter().enumerate() {
            let element = (7 + i / units) * 2 * units + units + i % units;
            assert_eq!(*kept, key.word(element as u32, 6, 9) >= op.threshold());
        }
    }
}

fn the_rate_of_dropped_units_is_as_asked<D: Device>(open: Open<D>) {
    let mut d = open();
    for rate in [0.5, 0.1] {
        let op = Dropout {
            rate,
            ..op(2048, false)
        };
        let kept = drawn(&mut d, &op, 64, 3, 0);
        let n = kept.len() as f64;
        let dropped = kept.iter().filter(|k| !**k).count() as f64 / n;
        let rate = f64::from(rate);
        // Five standard errors.
        assert!((dropped - rate).abs() < 5.0 * (rate * (1.0 - rate) / n).sqrt());
        assert_ne!(kept, drawn(&mut d, &op, 64, 4, 0));
    }
}

fn backward_scales_the_gradient_of_kept_units<D: Device>(open: Open<D>) {
    let mut d = open();
    for (units, rescale, factor) in [(50, false, 1.0), (50, true, 2.0), (2048, true, 2.0)] {
        let (op, n) = (op(units, rescale), 2 * units);
        let gradient = random(1, n);
        let mut dy = filled(&mut d, &gradient);
        let kept = drawn(&mut d, &op, 2, 1, 0);
        d.dropout_backward(&op, 2, &counter(1, 0), None, &mut dy)
            .unwrap();
        let dy = read(&mut d, &dy, n);
        for i in 0..n {
            assert_eq!(dy[i], if kept[i] { gradient[i] * factor } else { 0.0 });
        }
    }
}

fn backward_may_include_the_activation_before<D: Device>(open: Open<D>) {
    let mut d = open();
    for (activation, rescale) in [
        (Activation::Relu, false),
        (Activation::Relu, true),
        (Activation::Tanh, false),
        (Activation::Tanh, true),
    ] {
        let (op, n) = (op(51, rescale), 3 * 51);
        let (z, gradient) = (wide(&random(0, n)), random(1, n));
        let mut y = filled(&mut d, &narrow(&activate(activation, &z)));
        let mut dy = filled(&mut d, &gradient);
        let mask = || counter(8, 2);
        d.dropout_forward(&op, 3, &mask(), &mut y).unwrap();
        let before = Some(Activated { activation, y: &y });
        d.dropout_backward(&op, 3, &mask(), before, &mut dy)
            .unwrap();
        let kept = drawn(&mut d, &op, 3, 8, 2);
        let factor = f64::from(op.training_scale());
        let dropped = |z: &[f64]| -> Vec<f64> {
            let y = activate(activation, z).into_iter().zip(&kept);
            y.map(|(y, &kept)| if kept { y * factor } else { 0.0 })
                .collect()
        };
        let slopes = differences(dropped, &z, &wide(&gradient));
        assert_close(activation, &read(&mut d, &dy, n), &slopes, GRADIENT);
    }
}

fn two_columns_draw_the_mask_of_one<D: Device>(open: Open<D>) {
    let mut d = open();
    let whole = drawn(&mut d, &op(20, false), 3, 2, 0);
    for first_unit in [0, 10] {
        let half = Dropout {
            units: 10,
            first_unit,
            ..op(20, false)
        };
        let kept = drawn(&mut d, &half, 3, 2, 0);
        for image in 0..3 {
            let expected = &whole[image * 20 + first_unit..][..10];
            assert_eq!(&kept[image * 10..][..10], expected);
        }
    }
}
