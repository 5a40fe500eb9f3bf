//! The built-in data set: reproducible, balanced, fast, and out of reach of linear classifiers.

use alexnet_mp::data::{ReadOutcome, Source, Statistics, builtin};
use std::sync::Arc;

const SIDE: usize = 72;

fn image(source: &dyn Source, index: usize) -> Vec<u8> {
    let mut pixels = vec![0; source.side() * source.side() * 3];
    let outcome = source.read(index, &mut pixels).unwrap();
    assert_eq!(outcome, ReadOutcome::Image);
    pixels
}

/// Softmax regression with momentum on features of mean 0; returns its error on the test set.
fn linear_error(train: &[(Vec<f32>, usize)], test: &[(Vec<f32>, usize)], epochs: usize) -> f32 {
    let inputs = train[0].0.len();
    let mut weights = vec![vec![0.0f32; inputs + 1]; 10];
    let scores = |weights: &[Vec<f32>], x: &[f32]| -> Vec<f32> {
        let score = |w: &Vec<f32>| w[inputs] + w.iter().zip(x).map(|(a, b)| a * b).sum::<f32>();
        weights.iter().map(score).collect()
    };
    for epoch in 0..epochs {
        let rate = 2.0 / (inputs as f32 * (1.0 + epoch as f32));
        for (x, label) in train {
            let s = scores(&weights, x);
            let top = s.iter().copied().fold(f32::MIN, f32::max);
            let p: Vec<f32> = s.iter().map(|v| (v - top).exp()).collect();
            let total: f32 = p.iter().sum();
            for (class, w) in weights.iter_mut().enumerate() {
                let step = rate * (f32::from(u8::from(class == *label)) - p[class] / total);
                w[inputs] += step;
                w.iter_mut().zip(x).for_each(|(w, x)| *w += step * x);
            }
        }
    }
    let wrong = test.iter().filter(|(x, label)| {
        let s = scores(&weights, x);
        s.iter()
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(b.1))
            .unwrap()
            .0
            != *label
    });
    wrong.count() as f32 / test.len() as f32
}

/// Images as features: mean brightness of `cell` × `cell` blocks per colour, about −1 to 1.
fn features(source: &dyn Source, cell: usize) -> Vec<(Vec<f32>, usize)> {
    let cells = SIDE / cell;
    (0..source.len())
        .map(|i| {
            let mut sums = vec![0.0; cells * cells * 3];
            for (at, value) in image(source, i).into_iter().enumerate() {
                let (y, x, c) = (at / 3 / SIDE / cell, at / 3 % SIDE / cell, at % 3);
                sums[(y * cells + x) * 3 + c] += f32::from(value);
            }
            let scale = 1.0 / (cell * cell) as f32;
            let values = sums.iter().map(|s| (s * scale - 128.0) / 64.0).collect();
            (values, source.label(i) as usize)
        })
        .collect()
}

#[test]
fn linear_classifiers_and_mean_colours_stay_below_60_per_cent() {
    let set = builtin::dataset(1, SIDE, 4000, 1000).unwrap();
    let (train, val) = (set.train, set.val.unwrap());
    let pixels = linear_error(&features(&*train, 1), &features(&*val, 1), 4);
    let blocks = linear_error(&features(&*train, 4), &features(&*val, 4), 10);
    let colour = linear_error(&features(&*train, SIDE), &features(&*val, SIDE), 10);
    println!("errors: pixels {pixels}, blocks {blocks}, mean colour {colour}");
    assert!(
        pixels > 0.4 && blocks > 0.4,
        "pixels {pixels}, blocks {blocks}"
    );
    assert!(colour > 0.8, "mean colour {colour}");
}

#[test]
fn images_are_functions_of_seed_index_and_half_and_never_shared() {
    let sets: Vec<_> = [1, 1, 2]
        .map(|seed| builtin::dataset(seed, SIDE, 200, 200).unwrap())
        .into();
    let val: Vec<Arc<dyn Source>> = sets.iter().map(|s| s.val.clone().unwrap()).collect();
    assert_eq!(image(&*sets[0].train, 7), image(&*sets[1].train, 7));
    assert_ne!(image(&*sets[0].train, 7), image(&*sets[2].train, 7));
    let mut seen = std::collections::HashSet::new();
    for i in 0..200 {
        assert!(seen.insert(image(&*sets[0].train, i)));
        assert!(seen.insert(image(&*val[0], i)));
    }
    let of_class = |c| (0..200).filter(|&i| val[0].label(i) == c).count();
    assert!((0..10).all(|c| of_class(c) == 20));
    assert_eq!(val[0].classes().len(), 10);
}

#[test]
fn the_mean_image_is_grey_and_the_colours_vary() {
    let set = builtin::dataset(3, SIDE, 2000, 10).unwrap();
    let statistics = Statistics::compute(&*set.train, 2).unwrap();
    let mean = statistics.mean.iter().sum::<f32>() / statistics.mean.len() as f32;
    assert!((110.0..145.0).contains(&mean), "{mean}");
    assert!(statistics.eigenvalues.iter().all(|&x| x > 100.0));
    assert_eq!(statistics, Statistics::compute(&*set.train, 1).unwrap());
}

#[test]
fn it_is_fast_enough_to_feed_training() {
    let set = builtin::dataset(1, SIDE, 1000, 10).unwrap();
    let mut pixels = vec![0; SIDE * SIDE * 3];
    let rate = (0..3)
        .map(|_| {
            let started = std::time::Instant::now();
            (0..1000).for_each(|i| drop(set.train.read(i, &mut pixels).unwrap()));
            1000.0 / started.elapsed().as_secs_f64()
        })
        .fold(0.0, f64::max);
    println!("{rate:.0} images/s");
    // A tenth of what one core does: machines are busy.
    assert!(rate > 1000.0, "{rate}");
}
