//! Images named one by one, by folder or by pattern, without a data set around them.

use crate::data::folder::is_image;
use crate::data::{ReadOutcome, Skipped, Source, decode, image_bytes};
use crate::error::{Result, data, usage};
use std::path::{Path, PathBuf};

/// Image files as a set of unknown classes; the label of every image is 0.
pub struct Files {
    paths: Vec<PathBuf>,
    side: usize,
    skipped: Skipped,
}

impl Files {
    /// The files that `names` mean, in their order: files as they are; folders with every .jpg,
    /// .jpeg and .png below them, in byte order; patterns (`photos/*.jpg`) likewise.
    ///
    /// # Errors
    /// `Data` where a name means nothing; `Usage` for a broken pattern.
    pub fn find(names: &[PathBuf], side: usize) -> Result<Self> {
        let mut paths = Vec::new();
        for name in names {
            let before = paths.len();
            match std::fs::metadata(name) {
                Ok(found) if found.is_dir() => below(name, &mut paths, 0),
                Ok(_) => paths.push(name.clone()),
                Err(e) => matching(name, &e, &mut paths)?,
            }
            if paths.len() == before {
                return Err(data(format!(
                    "{}: no files that end in .jpg, .jpeg or .png",
                    decode::escape(name.as_os_str())
                )));
            }
        }
        Ok(Files {
            paths,
            side,
            skipped: Skipped::default(),
        })
    }

    /// Where an image is.
    pub fn path(&self, image: usize) -> &Path {
        &self.paths[image]
    }

    /// Name of the folder an image is in: its class, in folders by class.
    pub fn folder(&self, image: usize) -> Option<String> {
        let folder = self.paths[image].parent()?.file_name()?;
        Some(decode::escape(folder))
    }

    /// Pixels of an image as the network gets them cropped from, `[row][column][colour]`.
    ///
    /// # Errors
    /// `Data` where it has become unreadable.
    pub fn pixels(&self, image: usize) -> Result<Vec<u8>> {
        decode::load(&self.paths[image], self.side)
    }
}

/// Adds the images in a folder and its folders, hidden ones left out.
fn below(folder: &Path, paths: &mut Vec<PathBuf>, depth: usize) {
    // A loop of links ends here.
    const DEEPEST: usize = 32;
    let Ok(entries) = std::fs::read_dir(folder) else {
        tracing::warn!(
            "skipping the folder {}: cannot be read",
            decode::escape(folder.as_os_str())
        );
        return;
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    found.sort_unstable_by(|a, b| {
        let bytes = |p: &PathBuf| p.as_os_str().as_encoded_bytes().to_vec();
        bytes(a).cmp(&bytes(b))
    });
    for path in found {
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if path.is_dir() {
            if depth < DEEPEST {
                below(&path, paths, depth + 1);
            }
        } else if is_image(path.as_os_str()) {
            paths.push(path);
        }
    }
}

/// Adds what a pattern matches; a name without any of `*?[` is a file that is not there.
fn matching(name: &Path, missing: &std::io::Error, paths: &mut Vec<PathBuf>) -> Result<()> {
    let text = name.to_string_lossy();
    if !text.contains(['*', '?', '[']) {
        return Err(data(format!(
            "{}: {missing}",
            decode::escape(name.as_os_str())
        )));
    }
    let found = glob::glob(&text).map_err(|e| usage(format!("pattern {text}: {e}")))?;
    for path in found.flatten() {
        if path.is_dir() {
            below(&path, paths, 0);
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

impl Source for Files {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn classes(&self) -> &[String] {
        &[]
    }

    fn label(&self, _: usize) -> u32 {
        0
    }

    fn name(&self, image: usize) -> String {
        decode::escape(self.paths[image].as_os_str())
    }

    fn side(&self) -> usize {
        self.side
    }

    fn read(&self, image: usize, into: &mut [u8]) -> Result<ReadOutcome> {
        let into = &mut into[..image_bytes(self)];
        Ok(
            match decode::read_square(&self.paths[image], self.side, into) {
                Ok(()) => ReadOutcome::Image,
                Err(reason) => ReadOutcome::Bad(reason),
            },
        )
    }

    fn skipped(&self) -> &Skipped {
        &self.skipped
    }
}
