//! The bad images of a set: each named once, counted, and too many of them an error.

use crate::data::decode::escape;
use crate::data::{Dataset, Source};
use crate::error::{Error, Result, data};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many bad images read one after another end the run.
pub const IN_A_ROW: usize = 100;

/// In small sets one per cent is less than one image: so many bad ones are always borne, as long
/// as they are no more than half of the set.
const ALWAYS_BORNE: usize = 10;

/// The file in which a run or a preparation lists its bad images.
pub const FILE_NAME: &str = "skipped.txt";

/// Bad images met by now, by index, with the reason.
#[derive(Debug, Default)]
pub struct Skipped {
    reasons: Mutex<BTreeMap<usize, String>>,
    in_a_row: AtomicUsize,
}

impl Skipped {
    fn reasons(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        // A map is whole between statements, whoever panicked.
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many images were found bad.
    pub fn count(&self) -> usize {
        self.reasons().len()
    }

    /// The bad images and why, in their order.
    pub fn list(&self) -> Vec<(usize, String)> {
        self.reasons()
            .iter()
            .map(|(&i, why)| (i, why.clone()))
            .collect()
    }

    /// A line for each bad image of both halves of a set: half and name, a tab, and why.
    pub fn listed(set: &Dataset) -> String {
        let mut lines = String::new();
        let val = set.val.iter().map(|val| ("val", val));
        for (half, source) in std::iter::once(("train", &set.train)).chain(val) {
            for (image, reason) in source.skipped().list() {
                lines += &format!("{half}/{}\t{reason}\n", source.name(image));
            }
        }
        lines
    }

    /// An error that ends work because of its images, with the list of the bad ones, which `write`
    /// leaves in `folder`; any other error as it is.
    pub fn with_list(
        error: Error,
        set: &Dataset,
        folder: &Path,
        write: impl FnOnce(&Path, &[u8]) -> Result<()>,
    ) -> Error {
        let (list, file) = (Self::listed(set), folder.join(FILE_NAME));
        match error {
            // Where the list cannot be written, the error that came first is the one to tell.
            Error::Data(text) if !list.is_empty() && write(&file, list.as_bytes()).is_ok() => {
                data(format!("{text}; {} names all", escape(file.as_os_str())))
            }
            error => error,
        }
    }

    /// Why an image is bad, if it is known to be.
    pub fn reason(&self, image: usize) -> Option<String> {
        self.reasons().get(&image).cloned()
    }

    /// An image was read well.
    pub(crate) fn note_good(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// Notes a bad image, with a warning the first time.
    ///
    /// Errors: `Data` when 100 in a row are bad, or over 1 % of the set.
    pub(crate) fn note(&self, source: &dyn Source, image: usize, reason: &str) -> Result<()> {
        let mut reasons = self.reasons();
        let new = reasons.insert(image, reason.to_owned()).is_none();
        let bad = reasons.len();
        drop(reasons);
        if new {
            tracing::warn!("skipping {}: {reason}", source.place(image));
        }
        let row = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let len = source.len();
        let limit = (len / 100).max(ALWAYS_BORNE.min(len / 2));
        if row < IN_A_ROW && bad <= limit {
            return Ok(());
        }
        let how = if bad > limit {
            format!("{bad} of {len} images are bad, {limit} are borne")
        } else {
            format!("{row} bad images in a row, {bad} of {len} in all")
        };
        Err(data(format!(
            "too many bad images: {how}; the last is {}: {reason}; mend or remove them",
            source.place(image)
        )))
    }
}
