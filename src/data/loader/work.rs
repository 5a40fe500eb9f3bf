//! What the loader's workers do: fill the batch of one step.

use super::{LoaderOptions, Share};
use crate::batch::Batch;
use crate::data::augment::{Augmenter, Placed};
use crate::data::order::Order;
use crate::data::{Source, Stage, Statistics, Times, image_bytes, pixels};
use crate::error::{Result, data, usage};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A numbered set of batches, each a pure function of its number.
pub trait Work: Send + Sync {
    /// How many there are, if there is an end.
    fn steps(&self) -> Option<u64>;

    /// Fills an empty batch; leaves it unfinished once `stop` is set.
    fn fill(
        &self,
        step: u64,
        batch: &mut Batch,
        scratch: &mut Vec<u8>,
        stop: &AtomicBool,
    ) -> Result<()>;
}

fn not_empty(source: &dyn Source) -> Result<()> {
    if source.is_empty() {
        return Err(data("the data set holds no images"));
    }
    Ok(())
}

/// Appends one crop of a stored image to a batch.
fn push(batch: &mut Batch, placed: &Placed, stored: &[u8], side: usize, label: u32) {
    let (crop, bytes) = (batch.crop, batch.crop_bytes());
    let target = &mut batch.pixels.bytes_mut()[batch.labels.len() * bytes..][..bytes];
    placed.copy(stored, side, crop, target);
    batch.draws.push(placed.draw);
    batch.labels.push(label);
}

/// Training batches: shuffled, augmented, without end.
pub struct Train {
    source: Arc<dyn Source>,
    order: Order,
    augmenter: Augmenter,
    batch: usize,
    share: Share,
    times: Arc<Times>,
}

impl Train {
    pub fn new(
        source: Arc<dyn Source>,
        options: &LoaderOptions,
        statistics: &Statistics,
        times: Arc<Times>,
    ) -> Result<Self> {
        not_empty(&*source)?;
        if statistics.side != source.side() {
            return Err(data(format!(
                "the mean image has side {}, the stored images {}: prepare the set anew",
                statistics.side,
                source.side()
            )));
        }
        let Share { index, count } = options.share;
        if index >= count {
            return Err(usage(format!(
                "loader: expected a replica below {count}, found {index}"
            )));
        }
        Ok(Train {
            order: match options.shuffle_window {
                0 => Order::new(options.seed, source.len()),
                n => Order::windowed(options.seed, source.pieces(), n, source.len()),
            },
            share: options.share,
            times,
            augmenter: Augmenter::new(&options.augment, statistics, options.seed)?,
            batch: options.batch,
            source,
        })
    }

    /// The next good image from `image` on, around the end of the set; copied into the batch.
    fn push_good(
        &self,
        image: usize,
        placed: &Placed,
        batch: &mut Batch,
        scratch: &mut [u8],
    ) -> Result<()> {
        let source = &*self.source;
        let mut last = String::new();
        for image in (image..source.len()).chain(0..image) {
            let started = Instant::now();
            let stored = pixels(source, image, scratch)?;
            if source.times().is_none() {
                // It computes its images.
                self.times.add(Stage::Decode, started.elapsed());
            }
            if let Some(stored) = stored {
                self.times.count(Stage::Crop, || {
                    push(batch, placed, stored, source.side(), source.label(image));
                });
                return Ok(());
            }
            last = source.name(image);
        }
        Err(data(format!(
            "no usable image among the {} of the training set; the last tried is {last}",
            source.len()
        )))
    }
}

impl Train {
    /// Announces what is read next: this batch's images, or where windows are mixed, the next
    /// window's when a batch is the first of its window.
    fn announce(&self, first: u64) {
        let (epoch, position) = self.order.place(first);
        let order = self.order.epoch(epoch);
        let Some(window) = self.order.window() else {
            let end = (position + self.batch).min(order.len());
            return self.source.will_need(&order[position..end]);
        };
        if position % window < self.batch {
            let next = (position / window + 1) * window;
            let of_this = if position == 0 {
                0..next
            } else {
                next..next + window
            };
            let end = of_this.end.min(order.len());
            self.source.will_need(&order[of_this.start.min(end)..end]);
        }
    }
}

impl Work for Train {
    fn steps(&self) -> Option<u64> {
        None
    }

    fn fill(
        &self,
        step: u64,
        batch: &mut Batch,
        scratch: &mut Vec<u8>,
        stop: &AtomicBool,
    ) -> Result<()> {
        scratch.resize(image_bytes(&*self.source), 0);
        let first = (step * self.share.count + self.share.index) * self.batch as u64;
        self.announce(first);
        let (mut epoch, _) = self.order.place(first);
        let mut order = self.order.epoch(epoch);
        for slot in 0..self.batch as u64 {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let (now, position) = self.order.place(first + slot);
            if now != epoch {
                epoch = now;
                order = self.order.epoch(epoch);
            }
            let placed = self.augmenter.draw(epoch, position as u64);
            self.push_good(order[position] as usize, &placed, batch, scratch)?;
        }
        Ok(())
    }
}

/// Test batches: every image once, in order, in one or more views.
pub struct Evaluation {
    source: Arc<dyn Source>,
    views: Vec<Placed>,
    images: usize,
}

impl Evaluation {
    pub fn new(source: Arc<dyn Source>, views: Vec<Placed>, batch: usize) -> Result<Self> {
        not_empty(&*source)?;
        if batch < views.len() {
            return Err(usage(format!(
                "expected a batch of at least {} crops, one image's views, found {batch}",
                views.len()
            )));
        }
        Ok(Evaluation {
            images: batch / views.len(),
            source,
            views,
        })
    }
}

impl Work for Evaluation {
    fn steps(&self) -> Option<u64> {
        Some(self.source.len().div_ceil(self.images) as u64)
    }

    fn fill(
        &self,
        step: u64,
        batch: &mut Batch,
        scratch: &mut Vec<u8>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let source = &*self.source;
        scratch.resize(image_bytes(source), 0);
        let first = step as usize * self.images;
        for image in first..(first + self.images).min(source.len()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if let Some(stored) = pixels(source, image, scratch)? {
                for view in &self.views {
                    push(batch, view, stored, source.side(), source.label(image));
                }
            }
        }
        Ok(())
    }
}
