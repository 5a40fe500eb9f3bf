//! Softmax, its loss and its gradient, one row at a time.

use crate::device::Score;

/// Probabilities of each image's classes.
pub fn forward(classes: usize, images: usize, logits: &[f32], probabilities: &mut [f32]) {
    let rows = logits
        .chunks(classes)
        .zip(probabilities.chunks_mut(classes));
    for (x, p) in rows.take(images) {
        let log = log_sum(x);
        p.iter_mut()
            .zip(x)
            .for_each(|(p, x)| *p = (f64::from(*x) - log).exp() as f32);
    }
}

/// Adds the images' cross-entropy, top-1 and top-5 errors to `tally`. Of equal logits the first ranks highest.
pub fn score(classes: usize, images: usize, logits: &[f32], labels: &[u32], tally: &mut Score) {
    for (x, &label) in logits.chunks(classes).zip(labels).take(images) {
        let label = label as usize;
        tally.loss += log_sum(x) - f64::from(x[label]);
        let above = |&(i, v): &(usize, &f32)| *v > x[label] || (*v == x[label] && i < label);
        let rank = x.iter().enumerate().filter(above).count();
        tally.top1_errors += u64::from(rank >= 1);
        tally.top5_errors += u64::from(rank >= 5);
    }
}

/// The gradient of `scale` times the summed cross-entropy.
pub fn backward(
    classes: usize,
    probabilities: &[f32],
    labels: &[u32],
    scale: f32,
    dlogits: &mut [f32],
) {
    for (i, dlogit) in dlogits.iter_mut().enumerate() {
        let hot = labels[i / classes] as usize == i % classes;
        let difference = f64::from(probabilities[i]) - f64::from(u8::from(hot));
        *dlogit = (difference * f64::from(scale)) as f32;
    }
}

/// ln Σ exp(x).
fn log_sum(x: &[f32]) -> f64 {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = x
        .iter()
        .map(|&x| (f64::from(x) - f64::from(largest)).exp())
        .sum();
    f64::from(largest) + sum.ln()
}
