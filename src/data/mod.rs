//! Images, from where they are kept to the batches that the devices read.
//!
//! A [`Source`] is an indexed set of stored images; [`builtin`] makes one by computation,
//! [`shards`] reads one that [`prepare`] made, [`images`] decodes one from image files: those of a
//! [`folder`], of [`ilsvrc`]'s archives; [`files`] from files named one by one. [`order`] says which
//! image is used when, [`augment`] what is drawn for each use, and [`loader`] joins them into
//! batches in the background. Everything random is a pure function of the seed and of counters, so
//! batches do not depend on the number of workers, nor on where a run was interrupted.

pub mod augment;
pub mod builtin;
pub mod decode;
pub mod files;
pub mod folder;
pub mod ilsvrc;
pub mod images;
pub mod loader;
pub mod order;
pub mod prepare;
pub mod shards;
pub mod skipped;
pub mod statistics;
pub mod times;

pub use augment::{AugmentOptions, ColourRule};
pub use loader::{EvaluationOptions, Loader, LoaderOptions, Share};
pub use shards::Reads;
pub use skipped::Skipped;
pub use statistics::Statistics;
pub use times::{Stage, Times};

use crate::error::Result;
use std::path::Path;
use std::sync::Arc;

/// What came of reading one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The pixels are there.
    Image,
    /// The image cannot be used, for this reason; others still can.
    Bad(String),
}

/// An indexed set of square RGB images with labels.
pub trait Source: Send + Sync {
    /// Images in the set, bad ones included.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the classes, in the order of their labels.
    fn classes(&self) -> &[String];

    /// Class of an image, below `classes().len()`.
    fn label(&self, image: usize) -> u32;

    /// "class/file", escaped for messages.
    fn name(&self, image: usize) -> String;

    /// Where an image is, for messages: its name with the folders before it, where it is a file.
    fn place(&self, image: usize) -> String {
        self.name(image)
    }

    /// Side of the stored images, in pixels.
    fn side(&self) -> usize;

    /// Writes an image's side × side × 3 bytes, `[row][column][red, green, blue]`. An error means
    /// that the whole set is unusable; a bad image is no error.
    fn read(&self, image: usize, into: &mut [u8]) -> Result<ReadOutcome>;

    /// The bytes [`read`](Source::read) would write, where the set already has them in memory.
    fn in_memory(&self, image: usize) -> Result<Option<&[u8]>> {
        let _ = image;
        Ok(None)
    }

    /// The bad images met by now.
    fn skipped(&self) -> &Skipped;

    /// The images as they are stored, in pieces best read one piece after another; none where
    /// every order is as good.
    fn pieces(&self) -> Vec<Vec<u32>> {
        Vec::new()
    }

    /// Says that these images will be read soon, so that a disk can begin.
    fn will_need(&self, images: &[u32]) {
        let _ = images;
    }

    /// The time spent reading and decoding by now, where it is counted.
    fn times(&self) -> Option<&Times> {
        None
    }
}

/// Bytes of one stored image.
pub(crate) fn image_bytes(source: &dyn Source) -> usize {
    source.side() * source.side() * 3
}

/// An image's pixels, in place or read into `scratch`; `None` for a bad image, which is noted.
pub(crate) fn pixels<'a>(
    source: &'a dyn Source,
    image: usize,
    scratch: &'a mut [u8],
) -> Result<Option<&'a [u8]>> {
    if let Some(bytes) = source.in_memory(image)? {
        return Ok(Some(bytes));
    }
    match source.read(image, scratch)? {
        ReadOutcome::Image => {
            source.skipped().note_good();
            Ok(Some(scratch))
        }
        ReadOutcome::Bad(reason) => {
            source.skipped().note(source, image, &reason)?;
            Ok(None)
        }
    }
}

/// A training set, perhaps a validation set, and the statistics of the training set.
#[derive(Clone)]
pub struct Dataset {
    pub train: Arc<dyn Source>,
    pub val: Option<Arc<dyn Source>>,
    /// Where the set came with its statistics; else they are computed on first use.
    pub statistics: Option<Arc<Statistics>>,
}

impl Dataset {
    /// The statistics of the training set: those it came with, else those of the file `cache` if
    /// it belongs to this set, else computed on `threads` threads and written to `cache`.
    ///
    /// Errors: `Data` where too many images are bad, or the file cannot be written.
    pub fn statistics(&mut self, cache: Option<&Path>, threads: usize) -> Result<Arc<Statistics>> {
        if let Some(statistics) = &self.statistics {
            return Ok(statistics.clone());
        }
        let found = Arc::new(Statistics::cached(&*self.train, cache, threads)?);
        self.statistics = Some(found.clone());
        Ok(found)
    }
}

/// How a data set on disk is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Side of the stored images, in pixels; larger and smaller ones are scaled.
    pub side: usize,
    /// MiB of decoded images that may be kept in memory.
    pub cache_mib: usize,
    /// How prepared shards are read.
    pub reads: Reads,
}

/// How the images of a data set lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Made by `prepare`.
    Prepared,
    /// `train/CLASS/*.jpg`, `val/CLASS/*.jpg`.
    Folder,
    /// ILSVRC's archives, or Kaggle's folders.
    Ilsvrc,
}

impl Layout {
    /// What is found in a folder.
    pub fn of(root: &Path) -> Self {
        if shards::is_prepared(root) {
            Layout::Prepared
        } else if ilsvrc::has_archives(root) || ilsvrc::kaggle_folder(root).is_some() {
            Layout::Ilsvrc
        } else {
            Layout::Folder
        }
    }
}

/// Opens the data set in a folder, whatever its layout.
///
/// Errors: `Data` where the folder is no data set, is damaged, holds no images, or a class is in
/// `val` alone.
pub fn open(root: &Path, options: &OpenOptions) -> Result<Dataset> {
    open_as(Layout::of(root), root, options)
}

/// Opens a data set of a known layout.
///
/// Errors: as [`open`].
pub fn open_as(layout: Layout, root: &Path, options: &OpenOptions) -> Result<Dataset> {
    let &OpenOptions {
        side,
        cache_mib,
        reads,
    } = options;
    match layout {
        Layout::Prepared => shards::open(root, side, reads),
        Layout::Folder => folder::open(root, side, cache_mib),
        Layout::Ilsvrc => match ilsvrc::kaggle_folder(root) {
            Some(folder) => ilsvrc::open_kaggle(root, &folder, side, cache_mib),
            None => ilsvrc::open_archives(root, side, cache_mib),
        },
    }
}
