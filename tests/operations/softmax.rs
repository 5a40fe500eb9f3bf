//! Softmax, loss and errors.

use crate::support::*;
use alexnet_mp::device::{Device, Score};

for_each_device!(
    probabilities_agree_with_float64,
    extreme_logits_neither_overflow_nor_divide_by_zero,
    the_loss_is_that_of_float64,
    errors_are_counted_by_rank_and_ties_go_to_the_lower_class,
    a_tally_adds_up_until_it_is_taken,
    the_gradient_is_the_slope_of_the_loss,
    the_gradient_over_many_classes_agrees_with_float64,
    a_nan_is_never_a_right_answer,
);

fn probabilities(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
    logits.iter().map(|x| (x - largest).exp() / sum).collect()
}

fn labels<D: Device>(d: &mut D, labels: &[u32]) -> D::Input {
    let mut input = d.allocate_input(labels.len(), 1).unwrap();
    d.upload_labels(labels, &mut input).unwrap();
    input
}

fn score<D: Device>(d: &mut D, classes: usize, logits: &[f32], label: &[u32]) -> Score {
    let (buffer, input) = (filled(d, logits), labels(d, label));
    let mut tally = d.allocate_tally().unwrap();
    d.score(classes, label.len(), &buffer, &input, &mut tally)
        .unwrap();
    d.take_tally(&mut tally).unwrap()
}

fn probabilities_agree_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for (classes, images) in [(1000, 5), (10, 1), (1, 3), (33, 2)] {
        let logits: Vec<f32> = random(0, classes * images)
            .iter()
            .map(|x| 8.0 * x)
            .collect();
        let buffer = filled(&mut d, &logits);
        let mut p = d.allocate(logits.len()).unwrap();
        d.softmax_forward(classes, images, &buffer, &mut p).unwrap();
        let expected: Vec<f64> = logits
            .chunks(classes)
            .flat_map(|x| probabilities(&wide(x)))
            .collect();
        assert_close(classes, &read(&mut d, &p, logits.len()), &expected, FORWARD);
    }
}

fn extreme_logits_neither_overflow_nor_divide_by_zero<D: Device>(open: Open<D>) {
    let mut d = open();
    let logits = [
        3e38, -3e38, 0.0, -1e30, -1e30, -1e30, 1000.0, 1000.0, -1000.0,
    ];
    let buffer = filled(&mut d, &logits);
    let mut p = d.allocate(9).unwrap();
    d.softmax_forward(3, 3, &buffer, &mut p).unwrap();
    let third = 1.0 / 3.0;
    let expected = [1.0, 0.0, 0.0, third, third, third, 0.5, 0.5, 0.0];
    assert_close("extreme", &read(&mut d, &p, 9), &expected, 1e-6);
    let loss = score(&mut d, 3, &logits, &[0, 1, 2]).loss;
    let expected = 3.0f64.ln() + 2000.0 + 2.0f64.ln();
    assert!((loss - expected).abs() < 1e-3, "{loss}");
}

fn the_loss_is_that_of_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for classes in [1, 10, 1000] {
        let logits: Vec<f32> = random(0, classes * 7).iter().map(|x| 8.0 * x).collect();
        let label: Vec<u32> = (0..7).map(|i| (i * 13) % classes as u32).collect();
        let images = logits.chunks(classes).zip(&label);
        let loss = |(x, l): (&[f32], &u32)| -probabilities(&wide(x))[*l as usize].ln();
        let expected: f64 = images.map(loss).sum();
        let loss = score(&mut d, classes, &logits, &label).loss;
        assert!(
            (loss - expected).abs() <= 1e-5 * expected,
            "{loss} {expected}"
        );
    }
}

fn errors_are_counted_by_rank_and_ties_go_to_the_lower_class<D: Device>(open: Open<D>) {
    let mut d = open();
    let mut errors = |logits: &[f32], label| {
        let s = score(&mut d, logits.len(), logits, &[label]);
        (s.top1_errors, s.top5_errors)
    };
    let falling = [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0];
    assert_eq!(errors(&falling, 0), (0, 0));
    assert_eq!(errors(&falling, 1), (1, 0));
    assert_eq!(errors(&falling, 4), (1, 0));
    assert_eq!(errors(&falling, 5), (1, 1));
    let equal = [0.0; 7];
    assert_eq!(errors(&equal, 0), (0, 0));
    assert_eq!(errors(&equal, 4), (1, 0));
    assert_eq!(errors(&equal, 5), (1, 1));
    assert_eq!(errors(&[2.0], 0), (0, 0));
    assert_eq!(errors(&[2.0, 3.0], 0), (1, 0));
}

fn a_tally_adds_up_until_it_is_taken<D: Device>(open: Open<D>) {
    let mut d = open();
    let (logits, input) = (filled(&mut d, &[1.0, 0.0]), labels(&mut d, &[1]));
    let mut tally = d.allocate_tally().unwrap();
    d.score(2, 1, &logits, &input, &mut tally).unwrap();
    let once = d.take_tally(&mut tally).unwrap();
    for _ in 0..3 {
        d.score(2, 1, &logits, &input, &mut tally).unwrap();
    }
    let thrice = d.take_tally(&mut tally).unwrap();
    assert_eq!(
        (once.top1_errors, thrice.top1_errors, thrice.top5_errors),
        (1, 3, 0)
    );
    assert!((thrice.loss - 3.0 * once.loss).abs() < 1e-5);
    assert_eq!(d.take_tally(&mut tally).unwrap(), Score::default());
}

fn the_gradient_is_the_slope_of_the_loss<D: Device>(open: Open<D>) {
    let mut d = open();
    for classes in [1, 9] {
        let logits = random(0, 2 * classes);
        let label = [0, classes as u32 - 1];
        let (buffer, input) = (filled(&mut d, &logits), labels(&mut d, &label));
        let mut p = d.allocate(2 * classes).unwrap();
        d.softmax_forward(classes, 2, &buffer, &mut p).unwrap();
        let mut dlogits = d.allocate(2 * classes).unwrap();
        d.softmax_backward(classes, 2, &p, &input, (0.25, None), &mut dlogits)
            .unwrap();
        let images = logits.chunks(classes).zip(label);
        let slopes = images.flat_map(|(x, l)| {
            let loss = |x: &[f64]| vec![-probabilities(x)[l as usize].ln()];
            differences(loss, &wide(x), &[0.25])
        });
        let slopes: Vec<f64> = slopes.collect();
        let gradient = read(&mut d, &dlogits, 2 * classes);
        if classes == 1 {
            assert_eq!(gradient, [0.0; 2]);
        } else {
            assert_close(classes, &gradient, &slopes, GRADIENT);
        }
    }
}

fn the_gradient_over_many_classes_agrees_with_float64<D: Device>(open: Open<D>) {
    let mut d = open();
    for (classes, images) in [(1000, 2), (1000, 1), (257, 3), (2, 1)] {
        let logits: Vec<f32> = random(0, classes * images)
            .iter()
            .map(|x| 8.0 * x)
            .collect();
        let label: Vec<u32> = (0..images as u32)
            .map(|i| i * 501 % classes as u32)
            .collect();
        let (buffer, input) = (filled(&mut d, &logits), labels(&mut d, &label));
        let mut p = d.allocate(logits.len()).unwrap();
        d.softmax_forward(classes, images, &buffer, &mut p).unwrap();
        let mut dlogits = filled(&mut d, &vec![7.0; logits.len()]);
        d.softmax_backward(classes, images, &p, &input, (0.25, None), &mut dlogits)
            .unwrap();
        let of_image = |(x, &label): (&[f32], &u32)| {
            let mut gradient = probabilities(&wide(x));
            gradient[label as usize] -= 1.0;
            gradient.into_iter().map(|g| 0.25 * g)
        };
        let expected: Vec<f64> = logits
            .chunks(classes)
            .zip(&label)
            .flat_map(of_image)
            .collect();
        assert_close(
            classes,
            &read(&mut d, &dlogits, logits.len()),
            &expected,
            GRADIENT,
        );
    }
}

fn a_nan_is_never_a_right_answer<D: Device>(open: Open<D>) {
    let mut d = open();
    let s = score(&mut d, 7, &[f32::NAN; 7], &[0]);
    assert!(s.loss.is_nan());
    assert_eq!((s.top1_errors, s.top5_errors), (1, 1));
}
