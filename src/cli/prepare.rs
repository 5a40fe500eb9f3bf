//! `alexnet-mp prepare`.

use crate::data::prepare::{self, PrepareOptions, StoredOrder, Watch};
use crate::data::shards::{MANIFEST, Store};
use crate::data::{self, Dataset, Layout, OpenOptions};
use crate::error::{Error, Result, data as data_error, usage};
use crate::report::contact_sheet::{ClassRow, contact_sheet};
use crate::report::format::{grouped, shell_word};
use crate::report::messages::result;
use crate::report::picture::Picture;
use crate::report::progress::Progress;
use crate::train::Signals;
use std::path::{Path, PathBuf};

/// Scale images once and pack them into shards that training reads fast
///
/// Writes DST with shards, an index, classes.txt, stats.safetensors (mean image and colour
/// statistics) and skipped.txt. Interrupted, the same command goes on where it stopped.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp prepare photos/ prepared/                   photos/train/CLASS/*.jpg, photos/val/CLASS/*
  alexnet-mp prepare photos/ prepared/ --store jpeg      an eighth of the space, slower to read
  alexnet-mp prepare downloads/ imagenet/                ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar,
                                                         ILSVRC2012_devkit_t12.tar.gz in downloads/
  alexnet-mp prepare --check imagenet/                   is everything right in it?
  alexnet-mp train --data prepared/")]
pub struct Prepare {
    /// What to prepare
    #[arg(value_name = "SRC", required_unless_present = "check")]
    source: Option<PathBuf>,
    /// Folder for the prepared set, new or interrupted
    #[arg(value_name = "DST", required_unless_present = "check")]
    target: Option<PathBuf>,
    /// Check a prepared set instead: checksums, classes, duplicates, statistics; writes check.png
    /// there, a picture to look at
    #[arg(long, value_name = "DIR", conflicts_with_all = ["source", "target"])]
    check: Option<PathBuf>,
    /// What SRC is: folders by class, or ILSVRC's archives or Kaggle's folders [default: found out]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Side of the stored images, in pixels
    #[arg(long, value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u16).range(16..=4096))]
    side: u16,
    /// How images are stored: raw 8-bit, or JPEG
    #[arg(long, value_enum, default_value_t = StoreName::Raw)]
    store: StoreName,
    /// Quality of stored JPEGs [default: 95]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: Option<u8>,
    /// Order of the training images in the shards; sorted reads a slow disk faster now, and mixes
    /// worse with data.shuffle_window later
    #[arg(long, value_enum, default_value_t = OrderName::Random)]
    order: OrderName,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    workers: Option<u16>,
}

/// Quality of JPEGs unless --quality says another.
const QUALITY: u8 = 95;

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Folder,
    Ilsvrc,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum StoreName {
    Raw,
    Jpeg,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum OrderName {
    Random,
    Sorted,
}

impl Prepare {
    fn layout(&self, source: &Path) -> Result<Layout> {
        match self.format {
            Some(Format::Folder) => Ok(Layout::Folder),
            Some(Format::Ilsvrc) => Ok(Layout::Ilsvrc),
            None => match Layout::of(source) {
                Layout::Prepared => Err(usage(format!(
                    "{}: already made by `prepare`; name the folder with the images",
                    source.display()
                ))),
                found => Ok(found),
            },
        }
    }

    pub fn run(self, quiet: bool) -> Result<()> {
        match (&self.check, &self.source, &self.target) {
            (Some(root), ..) => check(root, quiet),
            (None, Some(source), Some(target)) => self.prepare(source, target, quiet),
            _ => Err(usage("expected SRC and DST, or --check DIR")),
        }
    }

    fn prepare(&self, source: &Path, target: &Path, quiet: bool) -> Result<()> {
        if self.quality.is_some() && matches!(self.store, StoreName::Raw) {
            return Err(usage(
                "--quality is that of JPEGs: it goes with --store jpeg",
            ));
        }
        let signals = Signals::install()?;
        let open = OpenOptions {
            side: self.side.into(),
            cache_mib: 0,
            reads: Default::default(),
        };
        let set = data::open_as(self.layout(source)?, source, &open)?;
        let images = set.train.len() + set.val.as_ref().map_or(0, |val| val.len());
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let options = PrepareOptions {
            store: match self.store {
                StoreName::Raw => Store::Raw,
                StoreName::Jpeg => Store::Jpeg,
            },
            quality: self.quality.unwrap_or(QUALITY),
            order: match self.order {
                OrderName::Random => StoredOrder::Random,
                OrderName::Sorted => StoredOrder::Sorted,
            },
            workers: self.workers.map_or_else(cores, usize::from),
        };
        let watch = Watcher {
            progress: Progress::counting("preparing", images as u64, "images", quiet),
            signals,
        };
        let made = prepare::prepare(&set, target, &options, &watch)?;
        watch.progress.finish();
        let word = shell_word(target);
        let target = target.display();
        result(&format!(
            "{target}: {} training and {} validation images of {} classes, {} skipped, {} MB\n\
             next: alexnet-mp train --data {word}",
            grouped(made.train as u64),
            grouped(made.val as u64),
            grouped(made.classes as u64),
            grouped(made.left_out as u64),
            grouped(made.bytes.div_ceil(1_000_000)),
        ));
        Ok(())
    }
}

/// The picture that --check writes.
const SHEET: &str = "check.png";

/// Classes and images of each that the picture shows.
const ROWS: usize = 12;
const COLUMNS: usize = 8;

/// Checks a prepared set and says what was found.
fn check(root: &Path, quiet: bool) -> Result<()> {
    let watch = Watcher {
        progress: Progress::counting("checking", images_of(root), "images", quiet),
        signals: Signals::install()?,
    };
    let (found, set) = prepare::check::check(root, &watch)?;
    watch.progress.finish();
    for warning in &found.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(set) = set.filter(|_| found.problems.is_empty()) {
        sheet(root, &set)?.save(&root.join(SHEET))?;
        let mut lines = found.facts;
        lines.push(format!(
            "all checksums right; a look at it: {}",
            root.join(SHEET).display()
        ));
        result(&lines.join("\n"));
        return Ok(());
    }
    for problem in &found.problems[1..] {
        tracing::error!("{problem}");
    }
    let count = found.problems.len();
    Err(data_error(format!(
        "{} ({count} problems in all)",
        found.problems[0]
    )))
}

/// Images that the manifest counts, for the progress bar.
fn images_of(root: &Path) -> u64 {
    let text = std::fs::read_to_string(root.join(MANIFEST)).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let images = |half: &str| manifest["halves"][half]["images"].as_u64().unwrap_or(0);
    images("train") + images("val")
}

/// Some images of some classes, evenly taken, and the mean image.
fn sheet(root: &Path, set: &Dataset) -> Result<Picture> {
    let (train, side) = (&*set.train, set.train.side());
    let mut of_class: Vec<Vec<usize>> = vec![Vec::new(); train.classes().len()];
    for image in 0..train.len() {
        of_class[train.label(image) as usize].push(image);
    }
    let evenly = |all: usize, most: usize| {
        let taken = all.min(most);
        (0..taken).map(move |i| i * all / taken)
    };
    let mut rows = Vec::new();
    for class in evenly(of_class.len(), ROWS) {
        let mut images = Vec::new();
        for place in evenly(of_class[class].len(), COLUMNS) {
            let mut pixels = vec![0; side * side * 3];
            train.read(of_class[class][place], &mut pixels)?;
            images.push(Picture::from_rgb(side, side, pixels)?);
        }
        let name = train.classes()[class].clone();
        rows.push(ClassRow { name, images });
    }
    let mean = set.statistics.as_ref().map(|statistics| {
        let bytes = statistics.mean.iter().map(|&x| x.round() as u8).collect();
        Picture::from_rgb(side, side, bytes)
    });
    let mean = mean.unwrap_or_else(|| Ok(Picture::new(side, side, [255; 3])))?;
    let title = format!(
        "{}: {} images of {} classes",
        root.display(),
        grouped(train.len() as u64),
        train.classes().len()
    );
    contact_sheet(&title, &mean, &rows)
}

struct Watcher {
    progress: Progress,
    signals: Signals,
}

impl Watch for Watcher {
    fn advance(&self, images: u64) {
        self.progress.advance(images);
    }

    fn stop(&self) -> Option<Error> {
        self.signals.stop()
    }
}
