//! Prepared sets: the same images and statistics as their source, whoever made them, and never
//! wrong ones.

use crate::support::*;
use alexnet_mp::batch::pageable;
use alexnet_mp::data::prepare::{PrepareOptions, StoredOrder, Summary, Watch, prepare};
use alexnet_mp::data::shards::{self, Store};
use alexnet_mp::data::{AugmentOptions, Dataset, Loader, LoaderOptions, Reads, Source, Statistics};
use alexnet_mp::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Stops a preparation after so many images.
pub struct After(AtomicU64);

impl Watch for After {
    fn advance(&self, images: u64) {
        let left = self.0.load(Ordering::Relaxed).saturating_sub(images);
        self.0.store(left, Ordering::Relaxed);
    }

    fn stop(&self) -> Option<Error> {
        (self.0.load(Ordering::Relaxed) == 0).then_some(Error::Interrupted(2))
    }
}

pub fn never() -> After {
    After(AtomicU64::new(u64::MAX))
}

pub const RAW: PrepareOptions = PrepareOptions {
    store: Store::Raw,
    quality: 95,
    order: StoredOrder::Random,
    workers: 2,
};

pub fn prepared(source: &Path, target: &Path, options: &PrepareOptions) -> Result<Summary> {
    prepare(&open(source)?, target, options, &never())
}

/// Name and contents of every file of a folder.
pub fn contents(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(root)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

/// A folder with `count` images in each class, and where to prepare it.
pub fn folders(count: u32) -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let (source, target) = (root.path().join("source"), root.path().join("target"));
    good_set(&source, count);
    (root, source, target)
}

pub fn halves(set: &Dataset) -> [Arc<dyn Source>; 2] {
    [set.train.clone(), set.val.clone().unwrap()]
}

#[test]
fn a_prepared_set_is_its_source_image_for_image() {
    let (_root, source, target) = folders(70);
    put(source.join("train/b/broken.png"), b"");
    let made = prepared(&source, &target, &RAW).unwrap();
    assert_eq!((made.train, made.val, made.left_out), (140, 140, 1));
    let (folder, set) = (open(&source).unwrap(), open(&target).unwrap());
    for (from, to) in halves(&folder).iter().zip(halves(&set)) {
        assert_eq!(to.classes(), from.classes());
        let good = (0..from.len()).filter(|&i| !from.name(i).contains("broken"));
        for (i, j) in (0..to.len()).zip(good) {
            assert_eq!((to.name(i), to.label(i)), (from.name(j), from.label(j)));
            assert!(read(&*to, i) == read(&**from, j), "{}", to.name(i));
            assert_eq!(to.in_memory(i).unwrap().unwrap(), read(&*to, i).1);
        }
    }
    assert_eq!(
        *set.statistics.unwrap(),
        Statistics::compute(&*folder.train, 1).unwrap()
    );
    let list = fs::read_to_string(target.join("skipped.txt")).unwrap();
    assert_eq!(list, "train/b/broken.png\tthe file is empty\n");
    let classes = fs::read_to_string(target.join("classes.txt")).unwrap();
    assert_eq!(classes, "a\nb\n");
}

#[test]
fn training_reads_the_same_batches_from_shards_as_from_the_folder() {
    let (_root, source, target) = folders(20);
    prepared(&source, &target, &RAW).unwrap();
    let options = LoaderOptions {
        batch: 7,
        seed: 3,
        workers: 2,
        queue: 2,
        shuffle_window: 0,
        share: Default::default(),
        first_step: 2,
        augment: AugmentOptions {
            crop: 28,
            ..AugmentOptions::default()
        },
    };
    let run = |root: &Path| {
        let mut set = open(root).unwrap();
        let statistics = set.statistics(None, 1).unwrap();
        let mut loader = Loader::train(set.train, &options, &statistics, &pageable()).unwrap();
        let one = |_| {
            let batch = loader.next_batch().unwrap().unwrap();
            let seen = (
                batch.used_pixels().to_vec(),
                batch.draws.clone(),
                batch.labels.clone(),
            );
            loader.recycle(batch);
            seen
        };
        (0..12).map(one).collect::<Vec<_>>()
    };
    assert!(run(&source) == run(&target));
}

#[test]
fn the_files_are_the_same_bits_whatever_the_number_of_workers() {
    let (root, source, _) = folders(70);
    for store in [Store::Raw, Store::Jpeg] {
        let files = [1, 2, 5].map(|workers| {
            let target = root.path().join(format!("{store:?}-{workers}"));
            let options = PrepareOptions {
                store,
                workers,
                ..RAW
            };
            prepared(&source, &target, &options).unwrap();
            contents(&target)
        });
        assert_eq!(files[0].len(), 3 + 3 + 7);
        assert!(files[0] == files[1] && files[0] == files[2]);
    }
}

#[test]
fn an_interrupted_preparation_goes_on_without_redoing_finished_shards() {
    let (root, source, target) = folders(100);
    let whole = root.path().join("whole");
    prepared(&source, &whole, &RAW).unwrap();
    let one = PrepareOptions { workers: 1, ..RAW };
    let stopped = prepare(&open(&source).unwrap(), &target, &one, &After(150.into()));
    assert_eq!(stopped.unwrap_err().exit_code(), 130);
    let unfinished = open(&target).err().unwrap();
    assert_eq!(unfinished.exit_code(), 3);
    assert!(
        unfinished
            .to_string()
            .contains("run the same `alexnet-mp prepare` again")
    );
    let inode = |shard: usize| {
        let path = shards::shard_path(&target, shards::TRAIN, shard);
        fs::metadata(path).map(|m| m.ino()).ok()
    };
    let before = [0, 1, 2].map(inode);
    assert!(before[0].is_some() && before[1].is_some() && before[2].is_none());
    prepared(&source, &target, &RAW).unwrap();
    assert_eq!([inode(0), inode(1)], before[..2]);
    let mut files = contents(&target);
    files.retain(|name, _| !name.ends_with(".tmp"));
    assert!(files == contents(&whole));
    // Once more, there is nothing left to do.
    prepared(&source, &target, &RAW).unwrap();
    assert_eq!([inode(0), inode(1)], before[..2]);
}

#[test]
fn a_folder_that_holds_anything_else_is_left_alone() {
    let (root, source, target) = folders(5);
    let other = root.path().join("other");
    put(other.join("thesis.txt"), b"all my work");
    let refused = |target: &Path, options: &PrepareOptions| {
        let error = prepared(&source, target, options).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    assert!(refused(&other, &RAW).contains("not empty"));
    assert_eq!(contents(&other).len(), 1);
    prepared(&source, &target, &RAW).unwrap();
    let before = contents(&target);
    let jpeg = PrepareOptions {
        store: Store::Jpeg,
        ..RAW
    };
    let message = refused(&target, &jpeg);
    assert!(
        message.contains("store \"raw 0\", now \"jpeg 95\""),
        "{message}"
    );
    let sorted = PrepareOptions {
        order: StoredOrder::Sorted,
        ..RAW
    };
    assert!(refused(&target, &sorted).contains("order Random, now Sorted"));
    put(source.join("train/a/new.png"), &png(picture(9, 40, 32)));
    assert!(refused(&target, &RAW).contains("training images 10, now 11"));
    assert!(contents(&target) == before);
}

#[test]
fn too_many_bad_images_end_a_preparation() {
    let (_root, source, target) = folders(30);
    for n in 0..20 {
        put(
            source.join(format!("train/a/bad{n}.jpg")),
            b"<html>404</html>",
        );
    }
    let error = prepared(&source, &target, &RAW).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("too many bad images"), "{error}");
}

#[test]
fn jpeg_shards_hold_nearly_the_same_pixels() {
    let (_root, source, target) = folders(10);
    let options = PrepareOptions {
        store: Store::Jpeg,
        ..RAW
    };
    prepared(&source, &target, &options).unwrap();
    let (folder, set) = (open(&source).unwrap(), open(&target).unwrap());
    for i in 0..set.train.len() {
        let (stored, original) = (read(&*set.train, i).1, read(&*folder.train, i).1);
        let far = stored
            .iter()
            .zip(&original)
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(far.unwrap() < 16, "{far:?}");
    }
    assert!(set.train.in_memory(0).unwrap().is_none());
}

#[test]
fn direct_reads_give_what_mapped_ones_do() {
    let (root, source, _) = folders(20);
    for store in [Store::Raw, Store::Jpeg] {
        let target = root.path().join(format!("{store:?}"));
        prepared(&source, &target, &PrepareOptions { store, ..RAW }).unwrap();
        let mapped = shards::open(&target, SIDE, Reads::Mapped).unwrap();
        let direct = shards::open(&target, SIDE, Reads::Direct).unwrap();
        for i in 0..mapped.train.len() {
            assert!(read(&*direct.train, i) == read(&*mapped.train, i));
            assert!(direct.train.in_memory(i).unwrap().is_none());
        }
    }
}

#[test]
fn another_side_is_refused_with_the_remedy() {
    let (_root, source, target) = folders(3);
    prepared(&source, &target, &RAW).unwrap();
    let error = shards::open(&target, 64, Reads::Mapped).err().unwrap();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("--set data.side=32"), "{error}");
}

#[test]
fn a_windowed_order_reads_pieces_in_a_row_and_every_image_once() {
    let (_root, source, target) = folders(100);
    prepared(&source, &target, &RAW).unwrap();
    let set = open(&target).unwrap();
    // One piece a shard here, and all classes in each: they were mixed when they were stored.
    let pieces = set.train.pieces();
    assert_eq!(
        pieces.iter().map(Vec::len).collect::<Vec<_>>(),
        [64, 64, 64, 8]
    );
    for piece in &pieces[..3] {
        let of_a = piece
            .iter()
            .filter(|&&i| set.train.label(i as usize) == 0)
            .count();
        assert!((16..48).contains(&of_a), "{of_a} of 64");
    }
    let run = |workers, batch| {
        let options = LoaderOptions {
            batch,
            seed: 3,
            workers,
            queue: 2,
            first_step: 0,
            augment: AugmentOptions {
                crop: 28,
                ..AugmentOptions::default()
            },
            shuffle_window: 80,
            share: Default::default(),
        };
        let zero = Statistics::zero(SIDE);
        let mut loader = Loader::train(set.train.clone(), &options, &zero, &pageable()).unwrap();
        let mut labels: Vec<u32> = Vec::new();
        while labels.len() < 200 {
            let batch = loader.next_batch().unwrap().unwrap();
            labels.extend(&batch.labels);
            loader.recycle(batch);
        }
        labels
    };
    let expected: Vec<u32> = alexnet_mp::data::order::windowed(3, 0, &pieces, 80)
        .iter()
        .map(|&i| set.train.label(i as usize))
        .collect();
    assert_eq!(run(1, 20), expected);
    assert_eq!(run(3, 20), expected);
    assert_eq!(run(2, 8), expected);
}

#[test]
fn a_preparation_of_archives_is_the_same_bits_as_one_of_folders() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    crate::archives::as_folder(&at("folder"));
    crate::archives::as_archives(&at("archives"));
    for from in ["folder", "archives"] {
        prepared(&at(from), &at(&format!("from-{from}")), &RAW).unwrap();
    }
    assert!(contents(&at("from-folder")) == contents(&at("from-archives")));
}
