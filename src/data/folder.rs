//! Image folders: `train/CLASS/*.jpg|jpeg|png` and `val/CLASS/*`.
//!
//! Classes are in byte order of their names, images in byte order of class and file name. Hidden
//! files and files with other endings are ignored.

mod duplicates;
mod listing;

use crate::data::{Dataset, ReadOutcome, Skipped, Source, decode, image_bytes};
use crate::error::{Result, data};
use listing::Listing;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// One half of an image folder. Its images are decoded when read, and kept where all fit.
pub struct Folder {
    files: Listing,
    classes: Vec<String>,
    side: usize,
    skipped: Skipped,
    /// Decoded images, one place per image, or none where they would need too much memory.
    kept: Vec<OnceLock<Box<[u8]>>>,
}

/// Opens an image folder; images are scaled to `side`, and kept in memory once decoded where all
/// of `train` fit into `cache` MiB, and all of `val` into what is left.
///
/// Errors: `Data` where there are no images, or `val` has a class that `train` has not.
pub fn open(root: &Path, side: usize, cache: usize) -> Result<Dataset> {
    let train_root = root.join("train");
    if !train_root.is_dir() {
        return Err(not_a_set(root));
    }
    let train = Listing::read(&train_root)?;
    if train.len() == 0 {
        return Err(empty(&train_root, train.classes().len()));
    }
    warn_of_classes(&train_root, &train);
    let val_root = root.join("val");
    let val = match val_root.is_dir() {
        true => Some(Listing::read(&val_root)?.matching(&train, &val_root)?),
        false => None,
    };
    if let Some(val) = val.as_ref().filter(|val| val.len() == 0) {
        return Err(empty(&val_root, val.classes().len()));
    }
    if val.is_none() {
        tracing::warn!("{}: no val folder, so nothing to validate on", shown(root));
    }
    duplicates::warn(root, &train, val.as_ref());
    let classes: Vec<String> = train.classes().iter().map(|c| c.name.clone()).collect();
    let cache = cache << 20;
    let used = train.len().saturating_mul(side * side * 3);
    let rest = if used <= cache { cache - used } else { cache };
    let make = |files, cache| Arc::new(Folder::new(files, classes.clone(), side, cache));
    Ok(Dataset {
        train: make(train, cache),
        val: val.map(|val| make(val, rest) as Arc<dyn Source>),
        statistics: None,
    })
}

fn shown(path: &Path) -> String {
    decode::escape(path.as_os_str())
}

fn not_a_set(root: &Path) -> crate::error::Error {
    let found = match std::fs::metadata(root) {
        Err(e) => e.to_string(),
        Ok(m) if !m.is_dir() => "it is a file".into(),
        Ok(_) => "there is no folder train in it".into(),
    };
    data(format!(
        "{}: expected an image folder (train/CLASS/*.jpg, val/CLASS/*.jpg) or a folder made by \
         `prepare`; {found}",
        shown(root)
    ))
}

fn empty(root: &Path, classes: usize) -> crate::error::Error {
    data(format!(
        "{}: no images: 0 files that end in .jpg, .jpeg or .png in {classes} class folders",
        shown(root)
    ))
}

fn warn_of_classes(root: &Path, files: &Listing) {
    let classes = files.classes().len();
    if classes == 1 {
        tracing::warn!(
            "{}: 1 class only, so there is nothing to tell apart",
            shown(root)
        );
    }
    let empty: Vec<&str> = files.empty_classes().collect();
    if let Some(first) = empty.first() {
        tracing::warn!(
            "{}: {} of {classes} class folders hold no images, the first is {first}",
            shown(root),
            empty.len()
        );
    }
}

impl Folder {
    fn new(files: Listing, classes: Vec<String>, side: usize, cache: usize) -> Self {
        let fits = files.len().saturating_mul(side * side * 3) <= cache;
        let places = if fits { files.len() } else { 0 };
        Folder {
            kept: (0..places).map(|_| OnceLock::new()).collect(),
            files,
            classes,
            side,
            skipped: Skipped::default(),
        }
    }

    /// Where an image is.
    pub fn path(&self, image: usize) -> PathBuf {
        self.files.path(image)
    }
}

impl Source for Folder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, image: usize) -> u32 {
        self.files.class_of(image).label
    }

    fn name(&self, image: usize) -> String {
        self.files.name(image)
    }

    fn side(&self) -> usize {
        self.side
    }

    fn read(&self, image: usize, into: &mut [u8]) -> Result<ReadOutcome> {
        if let Some(reason) = self.skipped.reason(image) {
            return Ok(ReadOutcome::Bad(reason));
        }
        let into = &mut into[..image_bytes(self)];
        match decode::read_square(&self.path(image), self.side, into) {
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
}
