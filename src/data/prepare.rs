//! Making a prepared set of any other: images scaled once, packed into shards, with statistics.
//!
//! The images of a half are cut into shards by their number alone; a worker makes a whole shard.
//! So the files are the same bits whatever the number of workers, and a shard that is finished
//! stays finished when the rest is interrupted.

pub mod check;
pub mod job;
mod merge;

use crate::data::order::permutation;
use crate::data::shards::{self, ShardWriter, Store};
use crate::data::{Dataset, ReadOutcome, Skipped, Source, image_bytes};
use crate::error::{Error, Result, data, usage};
use job::{Half, Job};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

pub use job::{StoredOrder, Summary};

/// How a set is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareOptions {
    pub store: Store,
    /// Of stored JPEGs, 1 to 100.
    pub quality: u8,
    pub order: StoredOrder,
    /// Threads, at least 1.
    pub workers: usize,
}

/// What is told while a set is prepared.
pub trait Watch: Sync {
    /// So many images are done, good or not.
    fn advance(&self, images: u64);

    /// The error to stop with, if somebody asked for it.
    fn stop(&self) -> Option<Error>;
}

/// Prepares `set` in the folder `root`, or goes on with it where it was interrupted.
///
/// Errors: `Usage` where the folder holds anything else; `Data` where too many images are bad or
/// the disk takes no more; what [`Watch::stop`] says.
pub fn prepare(
    set: &Dataset,
    root: &Path,
    options: &PrepareOptions,
    watch: &dyn Watch,
) -> Result<Summary> {
    let job = Job::new(set, options)?;
    let _lock = job.claim(root)?;
    let shards: Vec<Shard> = job
        .halves()
        .flat_map(|(half, plan)| (0..plan.shards()).map(move |number| Shard { half, plan, number }))
        .collect();
    let maker = Maker {
        set,
        root,
        options,
        watch,
        orders: job
            .halves()
            .map(|(half, plan)| (half, order(options.order, half, plan.images)))
            .collect(),
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        error: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 0..options.workers.max(1) {
            scope.spawn(|| maker.run(&shards));
        }
    });
    if let Some(error) = maker
        .error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        return Err(Skipped::with_list(error, set, root, job::write_whole));
    }
    merge::finish(set, root, &job)
}

/// One shard to be made.
struct Shard<'a> {
    half: &'static str,
    plan: &'a Half,
    number: usize,
}

/// The order in which the images of a half are stored.
fn order(order: StoredOrder, half: &str, images: usize) -> Vec<u32> {
    match order {
        // Validation is read in its own order.
        StoredOrder::Random if half == shards::TRAIN => permutation(0, 0, images),
        _ => (0..images as u32).collect(),
    }
}

/// What the workers share.
struct Maker<'a> {
    set: &'a Dataset,
    root: &'a Path,
    options: &'a PrepareOptions,
    watch: &'a dyn Watch,
    orders: Vec<(&'static str, Vec<u32>)>,
    next: AtomicUsize,
    failed: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Maker<'_> {
    /// Makes shard after shard until there are no more, or something fails.
    fn run(&self, shards: &[Shard]) {
        while let Some(shard) = shards.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.make(shard)));
            let made = made.unwrap_or_else(|_| Err(data("internal error: a worker panicked")));
            if let Err(error) = made {
                self.failed.store(true, Ordering::Relaxed);
                let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(error);
                return;
            }
        }
    }

    fn source(&self, half: &str) -> Result<&dyn Source> {
        job::source(self.set, half)
    }

    fn make(&self, shard: &Shard) -> Result<()> {
        let source = self.source(shard.half)?;
        let images = self.images(shard);
        let path = shards::shard_path(self.root, shard.half, shard.number);
        if let Some(tail) = merge::finished(&path, self.options.store, source.side()) {
            for left in &tail.left_out {
                source
                    .skipped()
                    .note(source, left.image as usize, &left.reason)?;
            }
            self.watch.advance(images.len() as u64);
            return Ok(());
        }
        let sums = shard.half == shards::TRAIN;
        let mut writer = ShardWriter::create(&path, self.options.store, source.side(), sums)?;
        let mut pixels = vec![0; image_bytes(source)];
        let mut jpeg = Vec::new();
        for &image in images {
            if self.failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            if let Some(stop) = self.watch.stop() {
                return Err(stop);
            }
            self.store(source, image, &mut writer, &mut pixels, &mut jpeg)?;
            self.watch.advance(1);
        }
        writer.finish()
    }

    /// The images of a shard, by their numbers in the source.
    fn images(&self, shard: &Shard) -> &[u32] {
        let order = self.orders.iter().find(|(half, _)| *half == shard.half);
        let order = order.map_or(&[][..], |(_, order)| order);
        let start = shard.number * shard.plan.shard_images;
        &order[start..(start + shard.plan.shard_images).min(order.len())]
    }

    fn store(
        &self,
        source: &dyn Source,
        image: u32,
        writer: &mut ShardWriter,
        pixels: &mut [u8],
        jpeg: &mut Vec<u8>,
    ) -> Result<()> {
        let number = image as usize;
        match source.read(number, pixels)? {
            ReadOutcome::Bad(reason) => {
                source.skipped().note(source, number, &reason)?;
                writer.leave_out(image, source.name(number), reason);
                Ok(())
            }
            ReadOutcome::Image => {
                source.skipped().note_good();
                let stored = match self.options.store {
                    Store::Raw => &*pixels,
                    Store::Jpeg => {
                        encode(pixels, source.side(), self.options.quality, jpeg)?;
                        jpeg
                    }
                };
                let name = source.name(number);
                let file_name = name.split_once('/').map_or(&name[..], |(_, file)| file);
                writer.push(image, source.label(number), file_name, pixels, stored)
            }
        }
    }
}

/// A JPEG with both colours halved in both directions, as photographs have it.
fn encode(pixels: &[u8], side: usize, quality: u8, into: &mut Vec<u8>) -> Result<()> {
    into.clear();
    let side = u16::try_from(side)
        .map_err(|_| usage(format!("JPEG shards: side {side} is over {}", u16::MAX)))?;
    let mut encoder = Encoder::new(into, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder
        .encode(pixels, side, side, ColorType::Rgb)
        .map_err(|e| {
            data(format!(
                "internal error: an image cannot be compressed: {e}"
            ))
        })
}
