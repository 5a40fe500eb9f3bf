//! What is to be prepared: written first, so that an interrupted preparation can go on only as it
//! began.

use super::PrepareOptions;
use crate::data::shards::{JOB, MANIFEST, Store, TRAIN, VAL, shown};
use crate::data::{Dataset, Source, image_bytes, statistics};
use crate::error::{Result, data, usage};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;

/// The order in which training images lie in the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredOrder {
    /// Mixed, always in the same way: pieces read one after another hold all classes.
    #[default]
    Random,
    /// By class and file name, as the source lies on its disk.
    Sorted,
}

/// What a preparation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub train: usize,
    pub val: usize,
    pub classes: usize,
    pub left_out: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Everything the bits of a prepared set depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    version: u32,
    pub side: usize,
    pub store: String,
    /// Of stored JPEGs.
    pub quality: Option<u8>,
    pub order: StoredOrder,
    pub train: Half,
    pub val: Option<Half>,
}

/// One half of the source, and how it is cut into shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Half {
    pub images: usize,
    pub shard_images: usize,
    /// Digest of names and labels.
    fingerprint: String,
}

/// The largest shard, in bytes of raw pixels.
const SHARD_BYTES: usize = 1 << 30;

/// So many shards at least, so that all workers have work, but none smaller than so many images.
const SHARDS: usize = 64;
const FEWEST_IMAGES: usize = 64;

impl Half {
    fn new(source: &dyn Source) -> Self {
        let largest = (SHARD_BYTES / image_bytes(source)).max(1);
        let even = source.len().div_ceil(SHARDS).max(FEWEST_IMAGES);
        Half {
            images: source.len(),
            shard_images: even.min(largest),
            fingerprint: statistics::fingerprint(source),
        }
    }

    pub fn shards(&self) -> usize {
        self.images.div_ceil(self.shard_images)
    }
}

/// The source of a half.
pub fn source<'a>(set: &'a Dataset, half: &str) -> Result<&'a dyn Source> {
    match half {
        TRAIN => Ok(&*set.train),
        _ => set
            .val
            .as_deref()
            .ok_or_else(|| data("internal error: there is no validation set")),
    }
}

impl Job {
    pub fn new(set: &Dataset, options: &PrepareOptions) -> Result<Self> {
        let limit = u32::MAX as usize;
        let most = set
            .val
            .as_ref()
            .map_or(0, |val| val.len())
            .max(set.train.len());
        if most > limit {
            return Err(data(format!("{most} images; expected at most {limit}")));
        }
        Ok(Job {
            version: 1,
            side: set.train.side(),
            store: match options.store {
                Store::Raw => "raw".into(),
                Store::Jpeg => "jpeg".into(),
            },
            quality: (options.store == Store::Jpeg).then_some(options.quality),
            order: options.order,
            train: Half::new(&*set.train),
            val: set.val.as_deref().map(Half::new),
        })
    }

    pub fn halves(&self) -> impl Iterator<Item = (&'static str, &Half)> {
        let val = self.val.as_ref().map(|half| (VAL, half));
        std::iter::once((TRAIN, &self.train)).chain(val)
    }

    /// Takes the folder for this job: a new or empty one, or one that holds the same job. The lock
    /// keeps others out while it lives.
    ///
    /// Errors: `Usage` for any other folder.
    pub fn claim(&self, root: &Path) -> Result<File> {
        let refused = |what: String| usage(format!("{}: {what}", shown(root)));
        std::fs::create_dir_all(root).map_err(|e| refused(format!("cannot be created: {e}")))?;
        let path = root.join(JOB);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(_) => self.begin(root)?,
        };
        let found: Job = serde_json::from_str(&text)
            .map_err(|e| data(format!("{}: broken: {e}", shown(&path))))?;
        if let Some(what) = self.difference(&found) {
            return Err(refused(format!(
                "holds another preparation ({what}); name another folder, or remove this one"
            )));
        }
        let lock = File::open(&path).map_err(|e| refused(format!("cannot be locked: {e}")))?;
        lock.try_lock()
            .map_err(|_| refused("another `alexnet-mp prepare` is at work there".into()))?;
        Ok(lock)
    }

    fn begin(&self, root: &Path) -> Result<String> {
        let refused = |what: String| usage(format!("{}: {what}", shown(root)));
        let mut entries =
            std::fs::read_dir(root).map_err(|e| refused(format!("cannot be read: {e}")))?;
        if entries.next().is_some() {
            return Err(refused(
                "not empty, and not begun by `prepare`; name a new folder".into(),
            ));
        }
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        write_whole(&root.join(JOB), text.as_bytes())?;
        Ok(text)
    }

    /// What makes `found` another job, in words.
    fn difference(&self, found: &Job) -> Option<String> {
        if self == found {
            return None;
        }
        let named = |what: &str, found: &dyn std::fmt::Debug, now: &dyn std::fmt::Debug| {
            Some(format!("{what} {found:?}, now {now:?}"))
        };
        if self.version != found.version {
            return named("format", &found.version, &self.version);
        }
        if self.side != found.side {
            return named("side", &found.side, &self.side);
        }
        if (&self.store, self.quality) != (&found.store, found.quality) {
            let with = |job: &Job| format!("{} {}", job.store, job.quality.unwrap_or_default());
            return named("store", &with(found), &with(self));
        }
        if self.order != found.order {
            return named("order", &found.order, &self.order);
        }
        if self.train.images != found.train.images {
            return named("training images", &found.train.images, &self.train.images);
        }
        Some("images of other names".into())
    }
}

/// Writes a file, replacing an older one in one step.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        std::fs::write(&unfinished, bytes)?;
        File::open(&unfinished)?.sync_all()?;
        std::fs::rename(&unfinished, path)
    };
    write().map_err(|e| data(format!("{}: cannot be written: {e}", shown(path))))
}

/// Where the manifest stands.
pub fn manifest(root: &Path) -> std::path::PathBuf {
    root.join(MANIFEST)
}
