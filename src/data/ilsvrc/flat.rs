//! Validation images in one folder, without classes.

use super::{Truth, labels};
use crate::data::decode::{escape, read_file};
use crate::data::folder::{entries, is_image};
use crate::data::images::FileSet;
use crate::error::{Result, data};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Numbered images, by class and name.
pub struct Flat {
    folder: PathBuf,
    classes: Vec<String>,
    files: Vec<(u32, OsString)>,
}

/// Whether a folder holds images itself, and no folders.
pub fn is_flat(folder: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(folder) else {
        return false;
    };
    // A look at the first few tells: there are 50,000.
    let first: Vec<_> = entries.by_ref().take(100).flatten().collect();
    first.iter().any(|e| is_image(&e.file_name()))
        && !first
            .iter()
            .any(|e| e.file_type().is_ok_and(|t| t.is_dir()))
}

impl Flat {
    /// Errors: `Data` where the folder cannot be read, or an image's class is unknown.
    pub fn open(folder: &Path, classes: &[String], truth: &Truth) -> Result<Self> {
        let mut names = entries(folder).map_err(|e| {
            data(format!(
                "{}: cannot be read: {e}",
                escape(folder.as_os_str())
            ))
        })?;
        names.retain(|name| is_image(name));
        let bytes = names.iter().map(|name| name.as_encoded_bytes());
        let labels = labels(bytes, classes, truth, folder)?;
        let mut files: Vec<(u32, OsString)> = labels.into_iter().zip(names).collect();
        // Names are in order already, and stay so within a class.
        files.sort_by_key(|file| file.0);
        Ok(Flat {
            folder: folder.to_owned(),
            classes: classes.to_vec(),
            files,
        })
    }
}

impl FileSet for Flat {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn label(&self, image: usize) -> u32 {
        self.files[image].0
    }

    fn name(&self, image: usize) -> String {
        let (label, file) = &self.files[image];
        format!("{}/{}", self.classes[*label as usize], escape(file))
    }

    fn place(&self, image: usize) -> String {
        escape(self.folder.join(&self.files[image].1).as_os_str())
    }

    fn bytes(&self, image: usize) -> Result<Vec<u8>, String> {
        read_file(&self.folder.join(&self.files[image].1))
    }
}
