//! Opening a set of 1.28 million images, as large as ImageNet's: `cargo bench --bench index`.
//! `IMAGES` sets how many.
//!
//! The index is written as `prepare` writes it; the shards are sparse files of the right lengths
//! (252 GB that take no room), which opening never reads. Timed are the index, all shards and the
//! order of the first epoch; the memory is the growth of the process's resident set.

use alexnet_mp::data::Reads;
use alexnet_mp::data::order::permutation;
use alexnet_mp::data::shards::format::{DATA_START, Entry, Index, ShardFile};
use alexnet_mp::data::shards::{Shards, Store, TRAIN, index_path, shard_path};
use std::path::Path;
use std::time::Instant;

const SIDE: usize = 256;
const CLASSES: usize = 1000;
const IMAGE: u64 = (SIDE * SIDE * 3) as u64;
/// Images of a shard: 1 GiB.
const OF_SHARD: u64 = (1 << 30) / IMAGE;

fn main() {
    let images = std::env::var("IMAGES").ok().and_then(|n| n.parse().ok());
    let images = images.unwrap_or(1_281_167);
    let root = std::env::temp_dir().join(format!("alexnet-mp-index-{}", std::process::id()));
    std::fs::create_dir_all(&root).expect("a temporary folder");
    write(&root, images);
    let classes: Vec<String> = (0..CLASSES).map(|c| format!("n{c:08}")).collect();
    for _ in 0..5 {
        let (before, start) = (resident(), Instant::now());
        let set = Shards::open(&root, TRAIN, classes.clone(), Reads::Mapped).expect("a good set");
        let opened = start.elapsed();
        let order = permutation(1, 0, images as usize);
        let both = start.elapsed();
        println!(
            "{} images in {} shards: opened in {:.3} s, first order after {:.3} s, {} MB more in memory",
            order.len(),
            set.index().shards.len(),
            opened.as_secs_f64(),
            both.as_secs_f64(),
            (resident() - before) / 1_000_000
        );
    }
    let _ = std::fs::remove_dir_all(&root);
}

/// An index of images in byte order, stored in an order of their own, and its shards.
fn write(root: &Path, images: u64) {
    let place = permutation(7, 0, images as usize);
    let mut index = Index {
        store: Store::Raw,
        side: SIDE,
        shards: Vec::new(),
        entries: Vec::with_capacity(images as usize),
        names: Vec::new(),
    };
    for (image, &at) in place.iter().enumerate() {
        let label = image * CLASSES / images as usize;
        index
            .names
            .extend(format!("n{label:08}_{image}.JPEG").bytes());
        let entry = Entry {
            checksum: u64::from(at),
            offset: DATA_START + u64::from(at) % OF_SHARD * IMAGE,
            bytes: IMAGE as u32,
            label: label as u32,
            place: (u64::from(at) / OF_SHARD) as u32,
            name_end: index.names.len() as u32,
        };
        index.entries.push(entry.pack());
    }
    for shard in 0..images.div_ceil(OF_SHARD) {
        let here = OF_SHARD.min(images - shard * OF_SHARD);
        let data_end = DATA_START + here * IMAGE;
        let bytes = data_end + here * 32;
        let file = std::fs::File::create(shard_path(root, TRAIN, shard as usize));
        file.and_then(|file| file.set_len(bytes)).expect("a shard");
        index.shards.push(ShardFile {
            bytes,
            data_end,
            checksum: 0,
        });
    }
    std::fs::write(index_path(root, TRAIN), index.to_bytes()).expect("an index");
}

/// Bytes of the process in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}
