//! Errors and log loss from class probabilities: in all, class by class, and the worst confusions.

/// How well the probabilities of a set of images fit its labels. Errors are shares, 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    pub images: usize,
    pub top1_error: f64,
    pub top5_error: f64,
    /// Mean of −ln(probability of the true class).
    pub log_loss: f64,
    /// Classes without images included.
    pub classes: Vec<ClassScore>,
    /// Images of class `.0` whose most probable class is `.1`: how many. The most frequent first,
    /// right ones left out.
    pub confusions: Vec<(usize, usize, usize)>,
}

/// One class of the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassScore {
    pub images: usize,
    pub top1_errors: usize,
    pub top5_errors: usize,
}

/// Scores `[images, classes]` probabilities. Of equal probabilities the lower class comes first.
pub fn scores(probabilities: &[f32], labels: &[u32], classes: usize) -> Scores {
    let mut per_class = vec![ClassScore::default(); classes];
    let mut confused = std::collections::BTreeMap::new();
    let mut log_loss = 0.0;
    for (row, &label) in probabilities.chunks_exact(classes).zip(labels) {
        let label = label as usize;
        let rank = rank(row, label);
        let score = &mut per_class[label];
        score.images += 1;
        score.top1_errors += usize::from(rank > 0);
        score.top5_errors += usize::from(rank > 4);
        log_loss -= f64::from(row[label].max(f32::MIN_POSITIVE)).ln();
        if rank > 0 {
            *confused.entry((label, best(row, 1)[0])).or_insert(0usize) += 1;
        }
    }
    let mut confusions: Vec<_> = confused.into_iter().map(|((a, b), n)| (a, b, n)).collect();
    confusions.sort_by_key(|&(a, b, n)| (std::cmp::Reverse(n), a, b));
    let n = labels.len().max(1) as f64;
    let sum = |of: fn(&ClassScore) -> usize| per_class.iter().map(of).sum::<usize>() as f64;
    Scores {
        images: labels.len(),
        top1_error: sum(|c| c.top1_errors) / n,
        top5_error: sum(|c| c.top5_errors) / n,
        log_loss: log_loss / n,
        classes: per_class,
        confusions,
    }
}

/// The `count` most probable classes, best first.
pub fn best(row: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
    order.truncate(count);
    order
}

/// Classes before `label`.
fn rank(row: &[f32], label: usize) -> usize {
    let own = row[label];
    let before = |(class, &p): (usize, &f32)| p > own || (p == own && class < label);
    row.iter().enumerate().filter(|&c| before(c)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_losses_and_confusions_are_counted() {
        #[rustfmt::skip]
        let probabilities = [
            0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1, // label 2: right
            0.3, 0.2, 0.1, 0.1, 0.1, 0.15, 0.05, // label 6: not among the first five
            0.3, 0.2, 0.1, 0.1, 0.1, 0.15, 0.05, // label 1: second
        ];
        let found = scores(&probabilities, &[2, 6, 1], 7);
        assert_eq!(found.images, 3);
        assert!((found.top1_error - 2.0 / 3.0).abs() < 1e-12);
        assert!((found.top5_error - 1.0 / 3.0).abs() < 1e-12);
        let loss = -(0.3f64.ln() + 0.05f64.ln() + 0.2f64.ln()) / 3.0;
        assert!((found.log_loss - loss).abs() < 1e-6);
        assert_eq!(found.confusions, [(1, 0, 1), (6, 0, 1)]);
        assert_eq!(found.classes[6].top5_errors, 1);
    }

    #[test]
    fn of_equal_classes_the_lower_one_wins() {
        assert_eq!(best(&[0.25; 4], 2), [0, 1]);
        assert_eq!(scores(&[0.25; 4], &[0], 4).top1_error, 0.0);
        assert_eq!(scores(&[0.25; 4], &[1], 4).top1_error, 1.0);
    }
}
