//! `prepare --check` finds what is wrong in a prepared set, and nothing where all is right.

use crate::prepared::{RAW, never, prepared};
use crate::support::*;
use alexnet_mp::data::Statistics;
use alexnet_mp::data::prepare::PrepareOptions;
use alexnet_mp::data::prepare::check::{Findings, check};
use alexnet_mp::data::shards::format::{Entry, Index};
use alexnet_mp::data::shards::{self, Store};
use image::RgbImage;
use std::fs;
use std::path::Path;

/// A picture of noise of its own, redder than blue as photographs are.
fn noise(n: u32) -> Vec<u8> {
    let size = SIDE as u32;
    png(RgbImage::from_fn(size, size, |x, y| {
        let mixed = (x * 31 + y * 997 + n * 7919).wrapping_mul(2_654_435_761) >> 25;
        image::Rgb([mixed as u8 + 90, mixed as u8 + 60, mixed as u8 + 30])
    }))
}

fn set(root: &Path, options: &PrepareOptions, more: &[(&str, Vec<u8>)]) -> std::path::PathBuf {
    let (source, target) = (root.join("source"), root.join("target"));
    for n in 0..80 {
        let class = ["a", "b"][n as usize % 2];
        put(source.join(format!("train/{class}/{n:02}.png")), &noise(n));
        if n < 10 {
            put(
                source.join(format!("val/{class}/{n:02}.png")),
                &noise(1000 + n),
            );
        }
    }
    for (name, bytes) in more {
        put(source.join(name), bytes);
    }
    prepared(&source, &target, options).unwrap();
    target
}

fn checked(target: &Path) -> Findings {
    check(target, &never()).unwrap().0
}

#[test]
fn a_good_set_has_no_findings_but_its_numbers() {
    for store in [Store::Raw, Store::Jpeg] {
        let root = tempfile::tempdir().unwrap();
        let target = set(root.path(), &PrepareOptions { store, ..RAW }, &[]);
        let found = checked(&target);
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        assert_eq!(
            found.facts[0],
            "train: 80 images of 2 classes, 40 to 40 in each, in 2 shards"
        );
        assert_eq!(found.facts[1].split(':').next(), Some("mean colour"));
        assert_eq!(
            found.facts[2],
            "val: 10 images of 2 classes, 5 to 5 in each, in 1 shards"
        );
    }
}

#[test]
fn damage_of_every_kind_is_a_problem_that_names_the_file() {
    let root = tempfile::tempdir().unwrap();
    let target = set(root.path(), &RAW, &[]);
    let shard = shards::shard_path(&target, shards::TRAIN, 1);
    let length = fs::metadata(&shard).unwrap().len() as usize;
    let cases = [
        (
            "train-00001.shard",
            4096 + 5 * 3072 + 7,
            "train-00001.shard: checksum error at byte 19456",
        ),
        ("train-00001.shard", 3, "not a finished shard"),
        (
            "train-00001.shard",
            length - 20,
            "checksum error in the tail",
        ),
        ("train.index", 600, "train.index: checksum error"),
        (
            "stats.safetensors",
            5003,
            "the mean image differs from the images'",
        ),
    ];
    for (name, at, expected) in cases {
        let path = target.join(name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let found = checked(&target).problems;
        assert!(
            found.iter().any(|p| p.contains(expected)),
            "{name} {at}: {found:?}"
        );
        fs::write(&path, &good).unwrap();
    }
    assert!(checked(&target).problems.is_empty());
    fs::remove_file(target.join("manifest.json")).unwrap();
    assert_eq!(check(&target, &never()).err().unwrap().exit_code(), 3);
}

#[test]
fn an_index_that_is_not_the_shards_own_is_a_problem() {
    let root = tempfile::tempdir().unwrap();
    let target = set(root.path(), &RAW, &[]);
    let path = shards::index_path(&target, shards::TRAIN);
    let bytes = fs::read(&path).unwrap();
    let index = Index::read(&mut &bytes[..], bytes.len() as u64, 2).unwrap();
    let with = |change: &dyn Fn(usize, Entry) -> Entry| {
        let mut index = index.clone();
        for (image, words) in index.entries.iter_mut().enumerate() {
            *words = change(image, Entry::unpack(*words)).pack();
        }
        fs::write(&path, index.to_bytes()).unwrap();
        checked(&target).problems
    };
    let swapped = with(&|_, entry| Entry {
        label: 1 - entry.label,
        ..entry
    });
    assert!(
        swapped.iter().any(|p| p.contains("not the index's")),
        "{swapped:?}"
    );
    assert!(
        swapped.iter().any(|p| p.contains("not in order of labels")),
        "{swapped:?}"
    );
    let moved = with(&|image, entry| match image {
        3 => Entry {
            offset: entry.offset - 3,
            ..entry
        },
        _ => entry,
    });
    assert!(
        moved.iter().any(|p| p.contains("checksum error at byte")),
        "{moved:?}"
    );
}

#[test]
fn doubtful_sets_are_warned_of_with_numbers() {
    let root = tempfile::tempdir().unwrap();
    let target = set(
        root.path(),
        &RAW,
        &[
            ("train/a/twin.png", noise(2)),
            ("train/b/twin.png", noise(2)),
            ("val/b/leak.png", noise(4)),
            ("val/b/other.png", noise(7)),
        ],
    );
    let found = checked(&target);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    for expected in [
        "2 training images repeat another one, 1 of them in another class: a/twin.png as train/a/02.png",
        "2 validation images are in train too, 1 of them in another class: b/leak.png as train/a/04.png",
    ] {
        assert!(
            found.warnings.iter().any(|w| w == expected),
            "{:?}",
            found.warnings
        );
    }
    assert_eq!(found.warnings.len(), 2);
}

#[test]
fn swapped_channels_and_classes_out_of_order_are_warned_of() {
    let root = tempfile::tempdir().unwrap();
    let target = set(root.path(), &RAW, &[]);
    fs::write(target.join("classes.txt"), "z\nb\n").unwrap();
    let found = checked(&target);
    assert!(
        found
            .warnings
            .iter()
            .any(|w| w.contains("not in byte order")),
        "{:?}",
        found.warnings
    );
    fs::write(target.join("classes.txt"), "b\nb\n").unwrap();
    assert!(checked(&target).problems[0].contains("1 names of classes stand there twice"));
    fs::write(target.join("classes.txt"), "a\nb\n").unwrap();
    let path = target.join("stats.safetensors");
    let (mut statistics, _) = Statistics::read(&path).unwrap();
    statistics
        .mean
        .chunks_exact_mut(3)
        .for_each(|p| p.reverse());
    statistics.write(&path, None).unwrap();
    let found = checked(&target);
    assert!(
        found
            .warnings
            .iter()
            .any(|w| w.contains("blue, green, red")),
        "{:?}",
        found.warnings
    );
    assert_eq!(found.problems.len(), 1);
}
