//! Sets made by `prepare`: images of one size, packed into shards with checksums, and an index.

pub mod format;
mod reader;
mod writer;

pub use reader::Reads;
pub use writer::ShardWriter;

use crate::data::times::{Stage, Times};
use crate::data::{Dataset, ReadOutcome, Skipped, Source, Statistics, decode, image_bytes};
use crate::error::{Error, Result, data};
use format::{Entry, Index};
use reader::Reader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_64;

/// Names of the files of a prepared set. The manifest is written last: with it, the set is whole.
pub const MANIFEST: &str = "manifest.json";
pub const JOB: &str = "job.json";
pub const CLASSES: &str = "classes.txt";
pub const STATISTICS: &str = "stats.safetensors";

/// How an image is stored in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// side × side × 3 bytes, `[row][column][red, green, blue]`.
    Raw,
    /// A JPEG file.
    Jpeg,
}

impl Store {
    fn code(self) -> u32 {
        self as u32
    }

    fn from_code(code: u32) -> Result<Self, String> {
        [Store::Raw, Store::Jpeg]
            .into_iter()
            .find(|store| store.code() == code)
            .ok_or_else(|| format!("images stored in an unknown way ({code})"))
    }
}

/// A half of a set: its files are `train-00000.shard`, …, and `train.index`.
pub const TRAIN: &str = "train";
/// See [`TRAIN`].
pub const VAL: &str = "val";

/// File of a half's index.
pub fn index_path(root: &Path, half: &str) -> PathBuf {
    root.join(format!("{half}.index"))
}

/// File of a shard.
pub fn shard_path(root: &Path, half: &str, shard: usize) -> PathBuf {
    root.join(format!("{half}-{shard:05}.shard"))
}

pub(crate) fn shown(path: &Path) -> String {
    decode::escape(path.as_os_str())
}

/// Whether a folder was made by `prepare`, finished or not.
pub fn is_prepared(root: &Path) -> bool {
    root.join(MANIFEST).is_file() || root.join(JOB).is_file()
}

/// Opens a prepared set whose images have `side`.
///
/// Errors: `Data` for an unfinished or damaged set, or another side.
pub fn open(root: &Path, side: usize, reads: Reads) -> Result<Dataset> {
    let set = open_any_side(root, reads)?;
    let found = set.train.side();
    if found != side {
        return Err(data(format!(
            "{}: its images were prepared with side {found}, the configuration asks for data.side \
             = {side}: add --set data.side={found}, or prepare the images again with --side {side}",
            shown(root)
        )));
    }
    Ok(set)
}

/// Opens a prepared set, whatever the side of its images.
///
/// Errors: `Data` for an unfinished or damaged set.
pub fn open_any_side(root: &Path, reads: Reads) -> Result<Dataset> {
    let has_val = read_manifest(root)?;
    let classes = read_classes(&root.join(CLASSES))?;
    let train = Shards::open(root, TRAIN, classes.clone(), reads)?;
    let val = match has_val {
        true => Some(Shards::open(root, VAL, classes, reads)?),
        false => None,
    };
    let (statistics, _) = Statistics::read(&root.join(STATISTICS))?;
    if statistics.side != train.side() {
        return Err(data(format!(
            "{}: the mean has side {}, the images {}",
            shown(&root.join(STATISTICS)),
            statistics.side,
            train.side()
        )));
    }
    Ok(Dataset {
        train: Arc::new(train),
        val: val.map(|val| Arc::new(val) as Arc<dyn Source>),
        statistics: Some(Arc::new(statistics)),
    })
}

/// Whether a prepared set has a validation half.
fn read_manifest(root: &Path) -> Result<bool> {
    let path = root.join(MANIFEST);
    let text = std::fs::read_to_string(&path).map_err(|_| {
        data(format!(
            "{}: not completely prepared; run the same `alexnet-mp prepare` again to finish it",
            shown(root)
        ))
    })?;
    let manifest: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| data(format!("{}: broken: {e}", shown(&path))))?;
    Ok(manifest["halves"].get(VAL).is_some())
}

fn read_classes(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| data(format!("{}: cannot be read: {e}", shown(path))))?;
    let classes: Vec<String> = text.lines().map(str::to_owned).collect();
    match classes.is_empty() {
        true => Err(data(format!("{}: no classes", shown(path)))),
        false => Ok(classes),
    }
}

/// One half of a prepared set.
pub struct Shards {
    root: PathBuf,
    half: &'static str,
    index: Index,
    classes: Vec<String>,
    readers: Vec<Reader>,
    /// One bit per image: its checksum was found right.
    verified: Vec<AtomicU64>,
    skipped: Skipped,
    times: Times,
}

impl Shards {
    /// Opens one half: its index and all its shards.
    ///
    /// Errors: `Data` naming the file, what was expected and what was found.
    pub fn open(
        root: &Path,
        half: &'static str,
        classes: Vec<String>,
        reads: Reads,
    ) -> Result<Self> {
        let path = index_path(root, half);
        let index =
            read_index(&path, classes.len()).map_err(|e| data(format!("{}: {e}", shown(&path))))?;
        let mut readers = Vec::with_capacity(index.shards.len());
        for (shard, expected) in index.shards.iter().enumerate() {
            let path = shard_path(root, half, shard);
            let reader = Reader::open(&path, expected, reads)
                .map_err(|e| data(format!("{}: {e}", shown(&path))))?;
            readers.push(reader);
        }
        let words = index.entries.len().div_ceil(64);
        Ok(Shards {
            root: root.to_owned(),
            half,
            index,
            classes,
            readers,
            verified: (0..words).map(|_| AtomicU64::new(0)).collect(),
            skipped: Skipped::default(),
            times: Times::default(),
        })
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    fn damaged(&self, entry: &Entry, what: &dyn std::fmt::Display) -> Error {
        data(format!(
            "{}: {what} at byte {}; run `alexnet-mp prepare` again without this file",
            shown(&shard_path(&self.root, self.half, entry.place as usize)),
            entry.offset
        ))
    }

    /// Compares an image's checksum when its bytes are first used.
    fn verify(&self, image: usize, entry: &Entry, bytes: &[u8]) -> Result<()> {
        let (word, bit) = (&self.verified[image / 64], 1 << (image % 64));
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        if xxh3_64(bytes) != entry.checksum {
            return Err(self.damaged(entry, &"checksum error"));
        }
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    /// An image's stored bytes, checked, handed to `use_them`.
    pub fn stored<T>(&self, image: usize, use_them: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let entry = self.index.entry(image);
        let start = std::time::Instant::now();
        self.readers[entry.place as usize]
            .with(&entry, |bytes| {
                touch(bytes);
                self.times.add(Stage::Disk, start.elapsed());
                self.verify(image, &entry, bytes)?;
                Ok(use_them(bytes))
            })
            .map_err(|e| self.damaged(&entry, &format!("cannot be read: {e}")))?
    }
}

fn read_index(path: &Path, classes: usize) -> Result<Index, String> {
    let failed = |e: std::io::Error| format!("cannot be read: {e}");
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err("not a regular file".into());
    }
    Index::read(&mut file, found.len(), classes)
}

/// Brings every page of a mapped range into memory.
fn touch(bytes: &[u8]) {
    let sum = bytes.iter().step_by(4096).fold(0u8, |sum, &x| sum ^ x);
    std::hint::black_box(sum);
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.index.entries.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, image: usize) -> u32 {
        self.index.entry(image).label
    }

    fn name(&self, image: usize) -> String {
        let class = &self.classes[self.label(image) as usize];
        format!("{class}/{}", self.index.name(image))
    }

    fn side(&self) -> usize {
        self.index.side
    }

    fn read(&self, image: usize, into: &mut [u8]) -> Result<ReadOutcome> {
        let into = &mut into[..image_bytes(self)];
        let side = self.side();
        self.stored(image, |stored| match self.index.store {
            Store::Raw => {
                into.copy_from_slice(stored);
                Ok(())
            }
            Store::Jpeg => self.times.count(Stage::Decode, || {
                decode::square(&decode::decode(stored)?, side, into)
            }),
        })?
        // The checksum was right, so the set itself is wrong.
        .map_err(|reason| self.damaged(&self.index.entry(image), &reason))?;
        Ok(ReadOutcome::Image)
    }

    fn in_memory(&self, image: usize) -> Result<Option<&[u8]>> {
        if self.index.store != Store::Raw {
            return Ok(None);
        }
        let entry = self.index.entry(image);
        let Some(bytes) = self.readers[entry.place as usize].in_memory(&entry) else {
            return Ok(None);
        };
        self.times.count(Stage::Disk, || touch(bytes));
        self.verify(image, &entry, bytes)?;
        Ok(Some(bytes))
    }

    fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    fn pieces(&self) -> Vec<Vec<u32>> {
        pieces(&self.index)
    }

    fn will_need(&self, images: &[u32]) {
        let place = |&image: &u32| {
            let entry = self.index.entry(image as usize);
            (entry.place, entry.offset, u64::from(entry.bytes))
        };
        let mut ranges: Vec<(u32, u64, u64)> = images.iter().map(place).collect();
        ranges.sort_unstable();
        // One request for images that lie side by side.
        let together = ranges.chunk_by(|a, b| a.0 == b.0 && a.1 + a.2 == b.1);
        for run in together {
            let bytes = run.iter().map(|r| r.2).sum();
            self.readers[run[0].0 as usize].will_need(run[0].1, bytes);
        }
    }

    fn times(&self) -> Option<&Times> {
        Some(&self.times)
    }
}

/// Bytes of a piece: enough that a disk's seek between two costs little.
const PIECE: u64 = 64 << 20;

/// Images in stored order, cut into pieces that lie in one shard each.
fn pieces(index: &Index) -> Vec<Vec<u32>> {
    let mut order: Vec<(u32, u64, u32)> = (0..index.entries.len())
        .map(|image| {
            let entry = index.entry(image);
            (entry.place, entry.offset / PIECE, image as u32)
        })
        .collect();
    order.sort_unstable_by_key(|&(shard, _, image)| (shard, index.entry(image as usize).offset));
    order
        .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
        .map(|piece| piece.iter().map(|p| p.2).collect())
        .collect()
}
