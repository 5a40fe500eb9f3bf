//! Image folders: `train/CLASS/*.jpg|jpeg|png` and `val/CLASS/*`.
//!
//! Classes are in byte order of their names, images in byte order of class and file name. Hidden
//! files and files with other endings are ignored.

mod duplicates;
mod listing;

use super::images::{self, FileSet};
use crate::data::{Dataset, decode};
use crate::error::{Result, data};
use listing::Listing;
use std::path::Path;

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
    let classes = train.classes().iter().map(|c| c.name.clone()).collect();
    Ok(images::dataset(train, val, classes, side, cache))
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
