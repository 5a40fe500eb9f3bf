//! Softmax, multinomial logistic loss and the counts of errors.

use super::team::Workers;
use crate::device::Score;

/// Largest of the logits.
fn largest(logits: &[f32]) -> f32 {
    logits.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Softmax over the classes of each image.
pub fn forward(workers: &Workers, classes: usize, logits: &[f32], probabilities: &mut [f32]) {
    workers.chunks(probabilities, classes, |image, p, _| {
        let logits = &logits[image * classes..][..classes];
        let largest = largest(logits);
        let mut sum = 0.0f64;
        for (p, x) in p.iter_mut().zip(logits) {
            *p = (x - largest).exp();
            sum += f64::from(*p);
        }
        let inverse = (1.0 / sum) as f32;
        p.iter_mut().for_each(|p| *p *= inverse);
    });
}

/// Adds the images' losses and errors, in order.
pub fn score(classes: usize, logits: &[f32], labels: &[u32], tally: &mut Score) {
    for (logits, &label) in logits.chunks_exact(classes).zip(labels) {
        let label = label as usize;
        let (own, largest) = (logits[label], largest(logits));
        let sum: f64 = logits.iter().map(|x| f64::from(x - largest).exp()).sum();
        // The difference first: ln of the sum would vanish beside a large logit.
        tally.loss += sum.ln() + (f64::from(largest) - f64::from(own));
        // Written so that everything ranks before a NaN.
        let before = |(class, x): (usize, &f32)| !(*x < own || (*x == own && class >= label));
        let logits = logits.iter().enumerate();
        let rank = logits
            .filter(|&(c, x)| c != label && before((c, x)))
            .count();
        tally.top1_errors += u64::from(rank >= 1);
        tally.top5_errors += u64::from(rank >= 5);
    }
}

/// `dlogits = (probabilities − one-hot(label)) · scale`.
pub fn backward(
    workers: &Workers,
    classes: usize,
    probabilities: &[f32],
    labels: &[u32],
    scale: f32,
    dlogits: &mut [f32],
) {
    workers.chunks(dlogits, classes, |image, d, _| {
        let label = labels[image] as usize;
        let probabilities = &probabilities[image * classes..][..classes];
        for (class, (d, p)) in d.iter_mut().zip(probabilities).enumerate() {
            *d = (p - if class == label { 1.0 } else { 0.0 }) * scale;
        }
    });
}
