//! Image folders: `train/CLASS/*.jpg|jpeg|png` and `val/CLASS/*`.
//!
//! Classes are in byte order of their names, images in byte order of class and file name. Hidden
//! files and files with other endings are ignored.

mod duplicates;
mod listing;

use super::images::{self, FileSet};
use crate::data::{Dataset, decode};
use crate::error::{Result, data};
pub(super) use listing::{Listing, entries, is_image};
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
    let (train, classes) = training(&train_root)?;
    let val_root = root.join("val");
    let val = match val_root.is_dir() {
        true => Some(Listing::read(&val_root)?.matching(&train, &val_root)?),
        false => None,
    };
    if let Some(val) = val.as_ref().filter(|val| val.len() == 0) {
        return Err(empty(&val_root, val.classes().len()));
    }
    if val.is_none() {
        warn_of_no_validation(root);
    }
    duplicates::warn(root, &train, val.as_ref());
    let val = val.map(|val| Box::new(val) as Box<dyn FileSet>);
    Ok(images::dataset(Box::new(train), val, classes, side, cache))
}

/// Lists a folder of class folders, and the names of the classes.
///
/// Errors: `Data` where it cannot be read or holds no images.
pub(super) fn training(root: &Path) -> Result<(Listing, Vec<String>)> {
    let train = Listing::read(root)?;
    if train.len() == 0 {
        return Err(empty(root, train.classes().len()));
    }
    warn_of_classes(root, &train);
    let classes = train.classes().iter().map(|c| c.name.clone()).collect();
    Ok((train, classes))
}

pub(super) fn warn_of_no_validation(root: &Path) {
    let root = shown(root);
    tracing::warn!("{root}: no validation images, so nothing to validate on");
}

pub(super) fn warn_of_one_class(root: &Path, classes: usize) {
    if classes == 1 {
        let root = shown(root);
        tracing::warn!("{root}: 1 class only, so there is nothing to tell apart");
    }
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
        "{}: expected an image folder (train/CLASS/*.jpg, val/CLASS/*.jpg), a folder made by \
         `prepare`, or ILSVRC as downloaded; {found}",
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
    warn_of_one_class(root, classes);
    let empty: Vec<&str> = files.empty_classes().collect();
    if let Some(first) = empty.first() {
        tracing::warn!(
            "{}: {} of {classes} class folders hold no images, the first is {first}",
            shown(root),
            empty.len()
        );
    }
}
