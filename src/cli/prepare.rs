//! `alexnet-mp prepare`.

use crate::data::prepare::{self, PrepareOptions, StoredOrder, Watch};
use crate::data::shards::Store;
use crate::data::{self, Layout, OpenOptions};
use crate::error::{Error, Result, usage};
use crate::report::format::grouped;
use crate::report::messages::result;
use crate::report::progress::Progress;
use crate::train::Signals;
use std::path::PathBuf;

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
  alexnet-mp train --data prepared/")]
pub struct Prepare {
    /// What to prepare
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Folder for the prepared set, new or interrupted
    #[arg(value_name = "DST")]
    target: PathBuf,
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
    /// Quality of stored JPEGs
    #[arg(long, value_name = "N", default_value_t = 95,
          value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Order of the training images in the shards; sorted reads a slow disk faster now, and mixes
    /// worse with data.shuffle_window later
    #[arg(long, value_enum, default_value_t = OrderName::Random)]
    order: OrderName,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    workers: Option<u16>,
}

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
    fn layout(&self) -> Result<Layout> {
        match self.format {
            Some(Format::Folder) => Ok(Layout::Folder),
            Some(Format::Ilsvrc) => Ok(Layout::Ilsvrc),
            None => match Layout::of(&self.source) {
                Layout::Prepared => Err(usage(format!(
                    "{}: already made by `prepare`; name the folder with the images",
                    self.source.display()
                ))),
                found => Ok(found),
            },
        }
    }

    pub fn run(self, quiet: bool) -> Result<()> {
        let signals = Signals::install()?;
        let open = OpenOptions {
            side: self.side.into(),
            cache_mib: 0,
            reads: Default::default(),
        };
        let set = data::open_as(self.layout()?, &self.source, &open)?;
        let images = set.train.len() + set.val.as_ref().map_or(0, |val| val.len());
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let options = PrepareOptions {
            store: match self.store {
                StoreName::Raw => Store::Raw,
                StoreName::Jpeg => Store::Jpeg,
            },
            quality: self.quality,
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
        let made = prepare::prepare(&set, &self.target, &options, &watch)?;
        watch.progress.finish();
        let target = self.target.display();
        result(&format!(
            "{target}: {} training and {} validation images of {} classes, {} skipped, {} MB\n\
             next: alexnet-mp train --data {target}",
            grouped(made.train as u64),
            grouped(made.val as u64),
            grouped(made.classes as u64),
            grouped(made.left_out as u64),
            grouped(made.bytes.div_ceil(1_000_000)),
        ));
        Ok(())
    }
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
