//! Damage to a prepared set: every flipped bit and every truncation is found, and can be repaired.

use crate::prepared::{RAW, contents, folders, halves, prepared};
use crate::support::*;
use alexnet_mp::data::Reads;
use alexnet_mp::data::prepare::PrepareOptions;
use alexnet_mp::data::shards::{self, Store};
use alexnet_mp::error::{Error, Result};
use std::fs;
use std::path::Path;

/// Flips a bit of a file while `look` looks.
fn flipped<T>(path: &Path, at: usize, look: impl FnOnce() -> T) -> T {
    let good = fs::read(path).unwrap();
    let mut bad = good.clone();
    bad[at] ^= 0x20;
    fs::write(path, &bad).unwrap();
    let seen = look();
    fs::write(path, good).unwrap();
    seen
}

/// The error of opening a set and reading all its images.
fn error_of(target: &Path) -> Option<Error> {
    let read_all = || -> Result<()> {
        for half in halves(&open(target)?) {
            let mut pixels = vec![0; SIDE * SIDE * 3];
            for image in 0..half.len() {
                half.in_memory(image)?;
                half.read(image, &mut pixels)?;
            }
        }
        Ok(())
    };
    read_all().err()
}

#[test]
fn every_flipped_bit_of_an_image_or_an_index_is_found() {
    let (_root, source, target) = folders(3);
    for store in [Store::Raw, Store::Jpeg] {
        let target = target.with_extension(format!("{store:?}"));
        prepared(&source, &target, &PrepareOptions { store, ..RAW }).unwrap();
        assert!(error_of(&target).is_none());
        let shard = shards::shard_path(&target, shards::TRAIN, 0);
        let set = shards::Shards::open(
            &target,
            shards::TRAIN,
            vec!["a".into(), "b".into()],
            Reads::Mapped,
        );
        let last = set.unwrap().index().shards[0].data_end as usize;
        for at in [4096, 5000, last - 1] {
            let error = flipped(&shard, at, || error_of(&target)).expect("found");
            assert_eq!(error.exit_code(), 3);
            let message = error.to_string();
            assert!(
                message.contains("train-00000.shard: checksum error at byte "),
                "{message}"
            );
        }
        let index = shards::index_path(&target, shards::TRAIN);
        for at in 0..fs::metadata(&index).unwrap().len() as usize {
            let error = flipped(&index, at, || error_of(&target)).expect("found");
            assert_eq!(error.exit_code(), 3);
            assert!(error.to_string().contains("train.index"), "{error}");
        }
    }
}

#[test]
fn every_truncated_file_is_found() {
    let (_root, source, target) = folders(3);
    prepared(&source, &target, &RAW).unwrap();
    for name in [
        "train-00000.shard",
        "val-00000.shard",
        "train.index",
        "val.index",
        "stats.safetensors",
        "classes.txt",
        "manifest.json",
    ] {
        let path = target.join(name);
        let good = fs::read(&path).unwrap();
        for length in [0, 1, 40, 72, good.len() / 2, good.len() - 1] {
            if length >= good.len() || name == "classes.txt" && length > 1 {
                continue;
            }
            fs::write(&path, &good[..length]).unwrap();
            let error = error_of(&target).expect("found");
            assert_eq!(error.exit_code(), 3, "{name} {length}");
            let message = error.to_string();
            // With a class lost the labels have none.
            let named = message.contains(name)
                || name == "classes.txt" && message.contains("label 1 with 1 classes");
            assert!(named, "{name} {length}: {message}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(error_of(&target).expect("found").exit_code(), 3, "{name}");
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn a_damaged_shard_that_is_taken_away_is_made_again() {
    let (_root, source, target) = folders(40);
    prepared(&source, &target, &RAW).unwrap();
    let before = contents(&target);
    let shard = shards::shard_path(&target, shards::TRAIN, 1);
    fs::write(&shard, &before["train-00001.shard"][..9000]).unwrap();
    let error = open(&target).err().unwrap().to_string();
    assert!(
        error.contains("train-00001.shard: truncated: 9000 bytes, the index says"),
        "{error}"
    );
    fs::remove_file(&shard).unwrap();
    prepared(&source, &target, &RAW).unwrap();
    assert!(contents(&target) == before);
}
