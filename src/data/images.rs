//! Image files as a source, wherever their bytes lie: decoded when read, and kept where all fit.

use super::times::{Stage, Times};
use crate::data::{Dataset, ReadOutcome, Skipped, Source, decode, image_bytes};
use crate::error::Result;
use std::sync::{Arc, OnceLock};

/// JPEG and PNG files by number, in byte order of class and file name.
pub trait FileSet: Send + Sync {
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class of a file.
    fn label(&self, image: usize) -> u32;

    /// "class/file", escaped for messages.
    fn name(&self, image: usize) -> String;

    /// The same with what the files lie in before it.
    fn place(&self, image: usize) -> String;

    /// A file's bytes. An error is the reason why there are none, in a few words.
    fn bytes(&self, image: usize) -> Result<Vec<u8>, String>;
}

/// One half of a data set that is made of image files.
pub struct Images {
    files: Box<dyn FileSet>,
    classes: Vec<String>,
    side: usize,
    skipped: Skipped,
    times: Times,
    /// Decoded images, one place per image, or none where they would need too much memory.
    kept: Vec<OnceLock<Box<[u8]>>>,
}

/// The data set of these files; images are kept in memory once decoded where all of `train` fit
/// into `cache` MiB, and all of `val` into what is left.
pub fn dataset(
    train: Box<dyn FileSet>,
    val: Option<Box<dyn FileSet>>,
    classes: Vec<String>,
    side: usize,
    cache: usize,
) -> Dataset {
    let cache = cache << 20;
    let used = train.len().saturating_mul(side * side * 3);
    let rest = if used <= cache { cache - used } else { cache };
    let make = |files, cache| Arc::new(Images::new(files, classes.clone(), side, cache));
    Dataset {
        train: make(train, cache),
        val: val.map(|val| make(val, rest) as Arc<dyn Source>),
        statistics: None,
    }
}

impl Images {
    /// Files of these classes, scaled to `side` when read; they are kept in memory if all fit into
    /// `cache` bytes.
    pub fn new(files: Box<dyn FileSet>, classes: Vec<String>, side: usize, cache: usize) -> Self {
        let fits = files.len().saturating_mul(side * side * 3) <= cache;
        let places = if fits { files.len() } else { 0 };
        Images {
            kept: (0..places).map(|_| OnceLock::new()).collect(),
            files,
            classes,
            side,
            skipped: Skipped::default(),
            times: Times::default(),
        }
    }

    fn decode(&self, image: usize, into: &mut [u8]) -> Result<(), String> {
        let bytes = self.times.count(Stage::Disk, || self.files.bytes(image))?;
        self.times.count(Stage::Decode, || {
            decode::square(&decode::decode(&bytes)?, self.side, into)
        })
    }
}

impl Source for Images {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, image: usize) -> u32 {
        self.files.label(image)
    }

    fn name(&self, image: usize) -> String {
        self.files.name(image)
    }

    fn place(&self, image: usize) -> String {
        self.files.place(image)
    }

    fn side(&self) -> usize {
        self.side
    }

    fn read(&self, image: usize, into: &mut [u8]) -> Result<ReadOutcome> {
        if let Some(reason) = self.skipped.reason(image) {
            return Ok(ReadOutcome::Bad(reason));
        }
        let into = &mut into[..image_bytes(self)];
        match self.decode(image, into) {
            Err(reason) => Ok(ReadOutcome::Bad(reason)),
            Ok(()) => {
                if let Some(place) = self.kept.get(image) {
                    // Another worker may have been faster, with the same bytes.
                    let _ = place.set(into.to_vec().into_boxed_slice());
                }
                Ok(ReadOutcome::Image)
            }
        }
    }

    fn in_memory(&self, image: usize) -> Result<Option<&[u8]>> {
        Ok(self.kept.get(image).and_then(OnceLock::get).map(|b| &b[..]))
    }

    fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    fn times(&self) -> Option<&Times> {
        Some(&self.times)
    }
}
