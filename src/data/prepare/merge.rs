//! The end of a preparation: from finished shards to index, statistics and manifest.

use super::job::{Half, Job, Summary, manifest, source, write_whole};
use crate::data::shards::format::{DATA_START, Entry, Index, LeftOut, ShardFile, Tail};
use crate::data::shards::{CLASSES, STATISTICS, Store, TRAIN, index_path, shard_path, shown};
use crate::data::skipped::FILE_NAME as LEFT_OUT;
use crate::data::statistics::Sums;
use crate::data::{Dataset, Source};
use crate::error::{Result, data};
use serde_json::json;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

/// The tail of a shard that is whole; none where it is not there, or not as expected.
pub fn finished(path: &Path, store: Store, side: usize) -> Option<Tail> {
    let (tail, _, _) = read_tail(path).ok()?;
    (tail.store == store && tail.side == side).then_some(tail)
}

/// A shard's tail, its checksum and the length of the file.
pub fn read_tail(path: &Path) -> Result<(Tail, u64, u64), String> {
    let failed = |e: std::io::Error| format!("cannot be read: {e}");
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let seek = |file: &mut File, to| file.seek(SeekFrom::Start(to)).map(drop);
    let (tail, checksum) = Tail::read(&mut file, length, seek)?;
    Ok((tail, checksum, length))
}

/// Writes everything but the shards, the manifest last.
pub fn finish(set: &Dataset, root: &Path, job: &Job) -> Result<Summary> {
    let classes = set.train.classes();
    let mut summary = Summary {
        train: 0,
        val: 0,
        classes: classes.len(),
        left_out: 0,
        bytes: 0,
    };
    let (mut listed, mut halves) = (String::new(), serde_json::Map::new());
    for (half, plan) in job.halves() {
        let merged = Merged::read(source(set, half)?, root, half, plan)?;
        if half == TRAIN {
            summary.train = merged.index.entries.len();
            if merged.sums.images == 0 {
                return Err(data(format!("no usable image among {}", plan.images)));
            }
            let statistics = merged.sums.statistics();
            statistics.write(&root.join(STATISTICS), None)?;
        } else {
            summary.val = merged.index.entries.len();
        }
        for left in &merged.left_out {
            listed += &format!("{half}/{}\t{}\n", left.name, left.reason);
        }
        summary.left_out += merged.left_out.len();
        summary.bytes += merged.index.shards.iter().map(|s| s.bytes).sum::<u64>();
        halves.insert(half.into(), merged.as_json(root, half));
        write_whole(&index_path(root, half), &merged.index.to_bytes())?;
    }
    write_whole(&root.join(LEFT_OUT), listed.as_bytes())?;
    write_whole(&root.join(CLASSES), (classes.join("\n") + "\n").as_bytes())?;
    let text = json!({
        "program": concat!("alexnet-mp ", env!("CARGO_PKG_VERSION")),
        "side": job.side,
        "store": job.store,
        "quality": job.quality,
        "order": job.order,
        "classes": classes.len(),
        "skipped": summary.left_out,
        "skipped_list": LEFT_OUT,
        "halves": halves,
    });
    let text = serde_json::to_string_pretty(&text).unwrap_or_default();
    write_whole(&manifest(root), text.as_bytes())?;
    Ok(summary)
}

/// The shards of a half, put together.
struct Merged {
    index: Index,
    sums: Sums,
    left_out: Vec<LeftOut>,
}

impl Merged {
    fn read(source: &dyn Source, root: &Path, half: &str, plan: &Half) -> Result<Self> {
        let mut sums = Sums::new(source.side());
        let (mut left_out, mut shards) = (Vec::new(), Vec::new());
        // An image's number in the source, its shard's entry, and its name.
        let mut images: Vec<(u32, Entry, Box<[u8]>)> = Vec::with_capacity(plan.images);
        let mut store = Store::Raw;
        for number in 0..plan.shards() {
            let path = shard_path(root, half, number);
            let (tail, checksum, bytes) =
                read_tail(&path).map_err(|e| data(format!("{}: {e}", shown(&path))))?;
            shards.push(ShardFile {
                bytes,
                data_end: tail.offset,
                checksum,
            });
            let mut name = 0;
            for entry in tail.entries.iter().map(|&words| Entry::unpack(words)) {
                let place = Entry {
                    place: number as u32,
                    ..entry
                };
                let end = entry.name_end as usize;
                images.push((entry.place, place, tail.names[name..end].into()));
                name = end;
            }
            if let Some(part) = &tail.sums {
                sums.merge(part);
            }
            left_out.extend(tail.left_out);
            store = tail.store;
        }
        images.sort_unstable_by_key(|&(image, ..)| image);
        left_out.sort_unstable_by_key(|left| left.image);
        let mut index = Index {
            store,
            side: source.side(),
            shards,
            entries: Vec::with_capacity(images.len()),
            names: Vec::new(),
        };
        for (_, mut entry, name) in images {
            index.names.extend(name);
            entry.name_end = index.names.len() as u32;
            index.entries.push(entry.pack());
        }
        Ok(Merged {
            index,
            sums,
            left_out,
        })
    }

    fn as_json(&self, root: &Path, half: &str) -> serde_json::Value {
        let shard = |(number, shard): (usize, &ShardFile)| {
            let path = shard_path(root, half, number);
            json!({
                "file": path.file_name().unwrap_or_default().to_string_lossy(),
                "bytes": shard.bytes,
                "image_bytes": shard.data_end - DATA_START,
                "checksum": format!("{:016x}", shard.checksum),
            })
        };
        json!({
            "images": self.index.entries.len(),
            "skipped": self.left_out.len(),
            "shards": self.index.shards.iter().enumerate().map(shard).collect::<Vec<_>>(),
        })
    }
}
