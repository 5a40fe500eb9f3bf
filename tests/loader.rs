//! Batches depend on the seed and the step alone: not on workers, nor on where a run started; and
//! what happens where images, workers or the disk fail.

use alexnet_mp::batch::{Draw, pageable};
use alexnet_mp::config::Config;
use alexnet_mp::data::augment::Augmenter;
use alexnet_mp::data::order::permutation;
use alexnet_mp::data::{
    AugmentOptions, ColourRule, EvaluationOptions, Loader, LoaderOptions, ReadOutcome, Share,
    Skipped, Source, Statistics, builtin,
};
use alexnet_mp::error::{Result, data};
use std::sync::Arc;

const SIDE: usize = 20;
const CROP: usize = 16;

fn options() -> LoaderOptions {
    LoaderOptions {
        batch: 6,
        seed: 5,
        workers: 2,
        queue: 2,
        shuffle_window: 0,
        share: Default::default(),
        first_step: 0,
        augment: AugmentOptions {
            crop: CROP,
            ..AugmentOptions::default()
        },
    }
}

type Seen = (Vec<u8>, Vec<Draw>, Vec<u32>);

fn run(source: &Arc<dyn Source>, options: &LoaderOptions, steps: usize) -> Vec<Seen> {
    let statistics = Statistics::compute(&**source, 1).unwrap();
    let mut loader = Loader::train(source.clone(), options, &statistics, &pageable()).unwrap();
    collect(&mut loader, steps)
}

fn collect(loader: &mut Loader, steps: usize) -> Vec<Seen> {
    let mut all = Vec::new();
    while all.len() < steps
        && let Some(batch) = loader.next_batch().unwrap()
    {
        let seen = (
            batch.used_pixels().to_vec(),
            batch.draws.clone(),
            batch.labels.clone(),
        );
        all.push(seen);
        loader.recycle(batch);
    }
    all
}

fn builtin_set(len: usize) -> Arc<dyn Source> {
    builtin::dataset(2, SIDE, len, 10).unwrap().train
}

/// A set whose image `i` is filled with the byte `i`; some are bad, one panics.
struct Marked {
    len: usize,
    bad: fn(usize) -> bool,
    panics: Option<usize>,
    classes: Vec<String>,
    skipped: Skipped,
}

fn marked(len: usize, bad: fn(usize) -> bool, panics: Option<usize>) -> Arc<dyn Source> {
    Arc::new(Marked {
        len,
        bad,
        panics,
        classes: (0..len).map(|i| format!("c{i}")).collect(),
        skipped: Skipped::default(),
    })
}

impl Source for Marked {
    fn len(&self) -> usize {
        self.len
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn label(&self, image: usize) -> u32 {
        image as u32
    }
    fn name(&self, image: usize) -> String {
        format!("c{image}/{image}")
    }
    fn side(&self) -> usize {
        SIDE
    }
    fn read(&self, image: usize, into: &mut [u8]) -> Result<ReadOutcome> {
        assert!(self.panics != Some(image), "made to fail");
        if self.len == 7 {
            return Err(data("the disk is gone"));
        }
        into.fill(image as u8);
        Ok(match (self.bad)(image) {
            true => ReadOutcome::Bad("made bad".into()),
            false => ReadOutcome::Image,
        })
    }
    fn skipped(&self) -> &Skipped {
        &self.skipped
    }
}

#[test]
fn one_two_and_three_workers_give_the_same_bits() {
    let source = builtin_set(50);
    let one = run(
        &source,
        &LoaderOptions {
            workers: 1,
            ..options()
        },
        20,
    );
    for workers in [2, 3] {
        assert!(
            run(
                &source,
                &LoaderOptions {
                    workers,
                    ..options()
                },
                20
            ) == one
        );
    }
    assert!(
        run(
            &source,
            &LoaderOptions {
                queue: 1,
                ..options()
            },
            20
        ) == one
    );
    assert!(
        run(
            &source,
            &LoaderOptions {
                seed: 6,
                ..options()
            },
            20
        ) != one
    );
}

#[test]
fn a_run_may_start_at_any_step() {
    let source = builtin_set(50);
    let whole = run(&source, &options(), 20);
    for first_step in [1, 8, 13] {
        let rest = run(
            &source,
            &LoaderOptions {
                first_step,
                ..options()
            },
            5,
        );
        assert!(rest[..] == whole[first_step as usize..first_step as usize + 5]);
    }
}

#[test]
fn every_image_is_used_once_before_any_is_used_again() {
    let source = marked(50, |_| false, None);
    let labels: Vec<u32> = run(&source, &options(), 25)
        .into_iter()
        .flat_map(|b| b.2)
        .collect();
    for epoch in 0..3 {
        assert_eq!(labels[epoch * 50..][..50], permutation(5, epoch as u32, 50));
    }
}

#[test]
fn replicas_together_read_what_one_alone_would() {
    let source = builtin_set(50);
    let alone = run(&source, &options(), 12);
    for index in 0..3 {
        let share = Share { index, count: 3 };
        let options = LoaderOptions { share, ..options() };
        let part = run(&source, &options, 4);
        let expected = alone.iter().skip(index as usize).step_by(3);
        assert!(part.iter().eq(expected));
    }
}

#[test]
fn a_batch_may_be_larger_than_the_set() {
    let source = marked(4, |_| false, None);
    let labels = &run(&source, &options(), 1)[0].2;
    assert_eq!(labels.len(), 6);
}

#[test]
fn a_bad_image_is_replaced_by_the_next_good_one() {
    let source = marked(40, |i| i % 13 == 4 || i == 39, None);
    let good = marked(40, |_| false, None);
    let zero = Statistics::zero(SIDE);
    let start = |source: &Arc<dyn Source>| {
        Loader::train(source.clone(), &options(), &zero, &pageable()).unwrap()
    };
    let all = collect(&mut start(&good), 20);
    for (with_bad, without) in collect(&mut start(&source), 20).iter().zip(&all) {
        assert_eq!(with_bad.1, without.1);
        for (found, asked) in with_bad.2.iter().zip(&without.2) {
            let expected = match asked {
                4 | 17 | 30 => asked + 1,
                39 => 0,
                _ => *asked,
            };
            assert_eq!(*found, expected);
        }
        let pixel = |i: usize| u32::from(with_bad.0[i * CROP * CROP * 3]);
        assert!((0..6).all(|i| pixel(i) == with_bad.2[i]));
    }
    assert_eq!(source.skipped().count(), 4);
}

#[test]
fn too_many_bad_images_a_panic_and_a_lost_disk_end_the_run_with_one_line() {
    let cases: [(Arc<dyn Source>, &str); 5] = [
        (marked(60, |i| i % 2 == 0, None), "too many bad images"),
        (marked(3, |_| true, None), "bad images"),
        (marked(2000, |_| true, None), "too many bad images"),
        (marked(40, |_| false, Some(9)), "made to fail"),
        (marked(7, |_| false, None), "the disk is gone"),
    ];
    for (source, expected) in cases {
        let zero = Statistics::zero(SIDE);
        let mut loader = Loader::train(source, &options(), &zero, &pageable()).unwrap();
        let error = loop {
            match loader.next_batch() {
                Ok(batch) => loader.recycle(batch.unwrap()),
                Err(error) => break error,
            }
        };
        assert_eq!(error.exit_code(), 3);
        let message = error.to_string();
        assert!(
            message.contains(expected) && !message.contains('\n'),
            "{message}"
        );
        assert!(loader.next_batch().is_err());
    }
}

#[test]
fn a_loader_stops_at_once_and_keeps_its_bound_on_memory() {
    let allocated = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = allocated.clone();
    let allocate: alexnet_mp::batch::HostAllocator = Arc::new(move |bytes| {
        counter.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        Box::new(vec![0u8; bytes])
    });
    let source = builtin_set(1000);
    let zero = Statistics::zero(SIDE);
    let mut loader = Loader::train(source, &options(), &zero, &allocate).unwrap();
    collect(&mut loader, 30);
    let held = loader.next_batch().unwrap();
    let started = std::time::Instant::now();
    drop(loader);
    drop(held);
    assert!(started.elapsed().as_secs() < 2);
    let bytes = allocated.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(bytes, 4 * 6 * CROP * CROP * 3);
}

#[test]
fn hoarding_batches_is_an_error_not_a_hang() {
    let zero = Statistics::zero(SIDE);
    let mut loader = Loader::train(builtin_set(50), &options(), &zero, &pageable()).unwrap();
    let held: Vec<_> = (0..4).map(|_| loader.next_batch().unwrap()).collect();
    assert!(
        loader
            .next_batch()
            .err()
            .unwrap()
            .to_string()
            .contains("recycled")
    );
    drop(held);
}

#[test]
fn evaluation_covers_every_good_image_once_in_order() {
    let source = marked(33, |i| i == 4 || i >= 30, None);
    let expected: Vec<u32> = (0..30).filter(|&i| i != 4).collect();
    for (views, batch) in [(1, 6), (10, 25)] {
        let options = EvaluationOptions {
            batch,
            workers: 3,
            queue: 1,
            crop: CROP,
            views,
            centre_mean: false,
        };
        let mut loader = Loader::evaluation(source.clone(), &options, &pageable()).unwrap();
        let batches = collect(&mut loader, usize::MAX);
        let labels: Vec<u32> = batches.iter().flat_map(|b| b.2.clone()).collect();
        assert!(labels.iter().step_by(views).eq(&expected));
        assert_eq!(labels.len(), expected.len() * views);
        assert!(loader.next_batch().unwrap().is_none());
    }
}

#[test]
fn crops_are_windows_of_the_stored_image_and_their_draws_say_where() {
    let source = builtin_set(50);
    let mut stored = vec![0; SIDE * SIDE * 3];
    let (mut mirrors, mut places) = (0, std::collections::HashSet::new());
    for (step, (pixels, draws, _)) in run(&source, &options(), 40).iter().enumerate() {
        for (slot, draw) in draws.iter().enumerate() {
            let position = step * 6 + slot;
            let image = permutation(5, position as u32 / 50, 50)[position % 50];
            source.read(image as usize, &mut stored).unwrap();
            let crop = &pixels[slot * CROP * CROP * 3..][..CROP * CROP * 3];
            for (y, row) in crop.chunks_exact(CROP * 3).enumerate() {
                let at = ((usize::from(draw.top) + y) * SIDE + usize::from(draw.left)) * 3;
                assert_eq!(row, &stored[at..at + CROP * 3]);
            }
            mirrors += usize::from(draw.mirror);
            places.insert((draw.top, draw.left));
        }
    }
    assert!((90..150).contains(&mirrors), "{mirrors} of 240 mirrored");
    assert!(places.len() == 25, "{} of 25 places", places.len());
}

#[test]
fn the_source_s_rules_share_crops_fix_the_mean_window_and_scale_the_noise() {
    let source = builtin_set(50);
    let mut options = options();
    options.batch = 8;
    options.augment.crop_shared = 4;
    options.augment.centre_mean = true;
    options.augment.colour_rule = ColourRule::Source;
    options.augment.positions = 4;
    let batches = run(&source, &options, 6);
    for (_, draws, _) in &batches {
        for group in draws.chunks(4) {
            assert!(group.iter().all(|d| d.mirror == group[0].mirror));
            assert!(group.iter().all(|d| (d.top, d.left) == (2, 2)));
            assert!(group.windows(2).all(|d| d[0].shift != d[1].shift));
            assert!(group.iter().all(|d| d.gain == 1.0 / 1.1));
        }
    }
}

#[test]
fn crops_reach_every_position_up_to_the_last_and_none_beyond() {
    const STORED: usize = 256;
    let statistics = Statistics::zero(STORED);
    // The paper's 33 offsets a side, 0 to 32, reach the last row and column; the source's 32 leave
    // them out.
    for (preset, positions, offsets) in [
        ("paper", 0, 33),
        ("source-145", 0, 33),
        ("source-145", 32, 32),
        ("source-145", 1, 1),
    ] {
        let overrides = [format!("data.positions={positions}")];
        let options = Config::load(preset, &overrides).unwrap().augmentation();
        assert_eq!(options.crop, 224, "{preset}");
        let shared = options.crop_shared as u64;
        let augmenter = Augmenter::new(&options, &statistics, 3).unwrap();
        let mut seen = vec![0; offsets * offsets];
        // 12 draws a position: each is missed with probability e^−12.
        for draw in 0..12 * seen.len() as u64 {
            let placed = augmenter.draw(0, draw * shared);
            assert!(placed.top < offsets && placed.left < offsets, "{placed:?}");
            assert!(placed.top + options.crop <= STORED && placed.left + options.crop <= STORED);
            seen[placed.top * offsets + placed.left] += 1;
        }
        let missed = seen.iter().filter(|&&n| n == 0).count();
        assert!(
            missed <= 2,
            "{preset}, {positions}: {missed} of {} missed",
            seen.len()
        );
        for side in [0, offsets - 1] {
            assert!(
                (0..offsets).any(|i| seen[side * offsets + i] > 0),
                "row {side}"
            );
            assert!(
                (0..offsets).any(|i| seen[i * offsets + side] > 0),
                "column {side}"
            );
        }
    }
}

#[test]
fn colour_noise_has_the_stated_covariance() {
    let statistics = Statistics {
        eigenvalues: [2500.0, 400.0, 100.0],
        eigenvectors: [[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]],
        ..Statistics::zero(SIDE)
    };
    for (rule, power) in [(ColourRule::Paper, 1.0), (ColourRule::Literal, 2.0)] {
        let options = AugmentOptions {
            crop: CROP,
            colour_rule: rule,
            ..AugmentOptions::default()
        };
        let draws = Augmenter::new(&options, &statistics, 1).unwrap();
        let n = 20_000;
        let mut squares = [0.0f64; 3];
        for position in 0..n {
            let shift = draws.draw(0, position).draw.shift;
            for (k, axis) in statistics.eigenvectors.iter().enumerate() {
                let along: f32 = axis.iter().zip(shift).map(|(a, s)| a * s).sum();
                squares[k] += f64::from(along * along) / n as f64;
            }
        }
        for (square, eigenvalue) in squares.iter().zip(statistics.eigenvalues) {
            let expected = 0.01 * f64::from(eigenvalue).powf(power);
            // Five standard errors of a variance: 5·√(2/n).
            assert!(
                (square / expected - 1.0).abs() < 0.05,
                "{square} {expected}"
            );
        }
    }
}

#[test]
fn options_out_of_range_are_usage_errors() {
    let source = builtin_set(50);
    let statistics = Statistics::zero(SIDE);
    let changes: [fn(&mut LoaderOptions); 7] = [
        |o| o.share = Share { index: 2, count: 2 },
        |o| o.augment.crop = SIDE + 1,
        |o| o.augment.positions = 6,
        |o| o.augment.crop_shared = 0,
        |o| o.augment.colour_noise = f32::NAN,
        |o| o.workers = 0,
        |o| o.batch = 0,
    ];
    for change in changes {
        let mut options = options();
        change(&mut options);
        let error = Loader::train(source.clone(), &options, &statistics, &pageable());
        assert_eq!(error.err().unwrap().exit_code(), 2);
    }
}
