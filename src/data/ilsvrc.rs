//! ILSVRC as it is downloaded: archives that are never unpacked, or Kaggle's folders.
//!
//! Classes are the WordNet ids of the training images in byte order. Validation images lie without
//! classes; these come from the devkit or from Kaggle's LOC_val_solution.csv.

pub mod archive;
mod flat;
pub mod matlab;
mod truth;

use crate::data::decode::escape;
use crate::data::images::{self, FileSet};
use crate::data::{Dataset, folder};
use crate::error::{Result, data};
use archive::Archive;
use flat::Flat;
use std::path::{Path, PathBuf};
use truth::Truth;

/// The training archive in a folder: ILSVRC2012_img_train.tar, ILSVRC2010_images_train.tar.
fn train_archive(root: &Path) -> Option<PathBuf> {
    find(root, |name| {
        name.starts_with("ILSVRC") && name.ends_with("train.tar")
    })
}

/// The first entry of a folder, in byte order, whose name fits.
fn find(root: &Path, fits: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = std::fs::read_dir(root).ok()?.flatten();
    let fitting = entries.filter(|e| fits(&e.file_name().to_string_lossy()));
    fitting.map(|e| e.path()).min()
}

/// Whether a folder holds the archives.
pub fn has_archives(root: &Path) -> bool {
    train_archive(root).is_some()
}

/// The folder with Kaggle's train and val, if this is above or at it.
pub fn kaggle_folder(root: &Path) -> Option<PathBuf> {
    ["ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC", ""]
        .iter()
        .map(|below| root.join(below))
        .find(|folder| folder.join("train").is_dir() && flat::is_flat(&folder.join("val")))
}

/// Opens the archives in `root`: `ILSVRC*train.tar` and, beside it, `ILSVRC*val.tar` with
/// `ILSVRC*devkit*` as archive or folder.
///
/// Errors: `Data` for broken archives, and validation images without a class.
pub fn open_archives(root: &Path, side: usize, cache: usize) -> Result<Dataset> {
    let path = train_archive(root).ok_or_else(|| {
        data(format!(
            "{}: expected ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and \
             ILSVRC2012_devkit_t12.tar.gz, or Kaggle's ILSVRC/Data/CLS-LOC and \
             LOC_val_solution.csv; found neither",
            shown(root)
        ))
    })?;
    let (train, classes) = Archive::train(&path)?;
    if train.len() == 0 {
        return Err(data(format!("{}: no images in it", shown(&path))));
    }
    folder::warn_of_one_class(&path, classes.len());
    let val = find(root, |name| {
        name.starts_with("ILSVRC") && name.ends_with("val.tar")
    });
    let val = match val {
        Some(path) => Some(Archive::val(&path, &classes, &Truth::find(&[root])?)?),
        None => None,
    };
    dataset(root, train, val, classes, side, cache)
}

/// Opens Kaggle's folders: `folder` holds train and val.
///
/// Errors: `Data` for unreadable folders, and validation images without a class.
pub fn open_kaggle(root: &Path, folder: &Path, side: usize, cache: usize) -> Result<Dataset> {
    let (train, classes) = folder::training(&folder.join("train"))?;
    let above: Vec<&Path> = std::iter::once(root)
        .chain(folder.ancestors().take(4))
        .collect();
    let val = Flat::open(&folder.join("val"), &classes, &Truth::find(&above)?)?;
    dataset(root, train, Some(val), classes, side, cache)
}

fn dataset(
    root: &Path,
    train: impl FileSet + 'static,
    val: Option<impl FileSet + 'static>,
    classes: Vec<String>,
    side: usize,
    cache: usize,
) -> Result<Dataset> {
    if val.as_ref().is_some_and(|val| val.len() == 0) {
        return Err(data(format!("{}: no validation images", shown(root))));
    }
    if val.is_none() {
        folder::warn_of_no_validation(root);
    }
    let val = val.map(|val| Box::new(val) as Box<dyn FileSet>);
    Ok(images::dataset(Box::new(train), val, classes, side, cache))
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str())
}

/// Labels of validation images by the true classes of their numbers; all must be known.
fn labels<'a>(
    files: impl Iterator<Item = &'a [u8]>,
    classes: &[String],
    truth: &Truth,
    path: &Path,
) -> Result<Vec<u32>> {
    let label = |file: &[u8]| {
        let class = truth.class(file)?;
        let found = classes.binary_search_by(|c| c.as_str().cmp(class));
        found.ok().map(|label| label as u32)
    };
    let (mut labels, mut unknown, mut first) = (Vec::new(), 0, None);
    for file in files {
        match label(file) {
            Some(label) => labels.push(label),
            None => {
                unknown += 1;
                first.get_or_insert_with(|| shown_name(file));
            }
        }
    }
    match first {
        None => Ok(labels),
        Some(first) => Err(data(format!(
            "{}: {unknown} of {} images have no class among the {} of train, the first is {first} \
             (classes from {})",
            shown(path),
            unknown + labels.len(),
            classes.len(),
            shown(&truth.path)
        ))),
    }
}

fn shown_name(name: &[u8]) -> String {
    use std::os::unix::ffi::OsStrExt;
    escape(std::ffi::OsStr::from_bytes(name))
}
