//! Batches made in the background, delivered in order.
//!
//! `work` says what is made, `pool` how it is handed over.

mod pool;
mod work;

use crate::batch::{Batch, HostAllocator};
use crate::data::{AugmentOptions, Source, Stage, Statistics, Times, augment};
use crate::error::{Result, usage};
use pool::Pool;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use work::Work;

/// How training batches are made.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// Images of a batch.
    pub batch: usize,
    pub seed: u64,
    /// Threads that make batches, at least 1.
    pub workers: usize,
    /// Finished batches that may wait, or be in the consumer's hands, at least 1; a consumer that
    /// works on one batch while the next one is uploaded holds two.
    pub queue: usize,
    /// Number of the first batch: the steps done before.
    pub first_step: u64,
    pub augment: AugmentOptions,
    /// Images mixed at a time, in the order they are stored; 0: the whole epoch.
    pub shuffle_window: usize,
    pub share: Share,
}

/// Which of several replicas that train together reads: replica `index` of `count` gets every
/// `count`-th batch of the one order, so that all of them together read what one alone would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub index: u64,
    pub count: u64,
}

impl Default for Share {
    fn default() -> Self {
        Share { index: 0, count: 1 }
    }
}

/// How the batches of a test are made.
#[derive(Clone, Debug)]
pub struct EvaluationOptions {
    /// Crops of a batch at most, a multiple of `views` being best.
    pub batch: usize,
    pub workers: usize,
    pub queue: usize,
    /// Side of the crops, in pixels.
    pub crop: usize,
    /// Crops of an image: 1 or 10, see [`augment::views`].
    pub views: usize,
    /// As [`AugmentOptions::centre_mean`].
    pub centre_mean: bool,
}

/// Makes batches in the background and hands them out in order.
pub struct Loader {
    pool: Pool<Batch>,
    waited: Duration,
    /// Time of the workers' own work, and the source that counts its own; of training alone.
    times: Arc<Times>,
    source: Option<Arc<dyn Source>>,
}

impl Loader {
    /// Batches for training: step after step from `first_step` on, without end. The batch of a
    /// step depends on the set, the seed, the batch size and the step alone.
    ///
    /// A bad image is replaced by the next good one of the set, in stored order and from the start
    /// again after the last, with that one's label.
    ///
    /// Errors: `Data` for an empty set, `Usage` for options out of range.
    pub fn train(
        source: Arc<dyn Source>,
        options: &LoaderOptions,
        statistics: &Statistics,
        allocate: &HostAllocator,
    ) -> Result<Self> {
        let times = Arc::new(Times::default());
        let work = work::Train::new(source.clone(), options, statistics, times.clone())?;
        let crop = options.augment.crop;
        let sizes = (options.batch, options.workers, options.queue);
        let mut loader = Loader::start(Arc::new(work), sizes, crop, options.first_step, allocate)?;
        loader.times = times;
        loader.source = Some(source);
        Ok(loader)
    }

    /// Batches for a test: every image once, in order, then the end. The views of an image follow
    /// one another; a batch holds `batch / views` images, the last what remains. Bad images are
    /// left out: see [`Source::skipped`].
    ///
    /// Errors: `Data` for an empty set, `Usage` for options out of range.
    pub fn evaluation(
        source: Arc<dyn Source>,
        options: &EvaluationOptions,
        allocate: &HostAllocator,
    ) -> Result<Self> {
        let side = source.side();
        let views = augment::views(options.views, side, options.crop, options.centre_mean)?;
        let work = work::Evaluation::new(source, views, options.batch)?;
        let sizes = (options.batch, options.workers, options.queue);
        Loader::start(Arc::new(work), sizes, options.crop, 0, allocate)
    }

    fn start(
        work: Arc<dyn Work>,
        (batch, workers, queue): (usize, usize, usize),
        crop: usize,
        first_step: u64,
        allocate: &HostAllocator,
    ) -> Result<Self> {
        if batch == 0 || workers == 0 || queue == 0 {
            return Err(usage(format!(
                "loader: expected batch, workers and queue of 1 or more, found {batch}, {workers}, {queue}"
            )));
        }
        let batches = (0..workers + queue).map(|_| Batch::with_capacity(batch, crop, allocate));
        let worker = || {
            let (work, mut scratch) = (work.clone(), Vec::new());
            move |step: u64, batch: &mut Batch, stop: &AtomicBool| {
                work.fill(step, batch, &mut scratch, stop)
            }
        };
        let fills = (0..workers).map(|_| worker()).collect();
        Ok(Loader {
            pool: Pool::start(batches.collect(), fills, first_step, work.steps())?,
            waited: Duration::ZERO,
            times: Arc::default(),
            source: None,
        })
    }

    /// The next batch, waited for if need be; `None` after the last one. Give it back with
    /// [`recycle`](Loader::recycle).
    ///
    /// Errors: `Data` where the set turns out unusable or a worker failed.
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        let started = Instant::now();
        let batch = self.next_filled();
        self.waited += started.elapsed();
        batch
    }

    fn next_filled(&mut self) -> Result<Option<Batch>> {
        while let Some(batch) = self.pool.take()? {
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
            // All its images were bad.
            self.recycle(batch);
        }
        Ok(None)
    }

    /// Gives a batch back, to be filled again.
    pub fn recycle(&mut self, mut batch: Batch) {
        batch.clear();
        self.pool.give_back(batch);
    }

    /// Time spent waiting in [`next_batch`](Loader::next_batch) since the start.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Time that all workers together spent in a stage; where the source counts its own, that of
    /// all who read it since it was opened.
    pub fn spent(&self, stage: Stage) -> Duration {
        let source = self.source.as_ref().and_then(|source| source.times());
        match (stage, source) {
            (Stage::Disk | Stage::Decode, Some(times)) => times.spent(stage),
            _ => self.times.spent(stage),
        }
    }

    /// The stage that the workers spend most of their time in.
    pub fn slowest_stage(&self) -> Stage {
        let slowest = Stage::ALL
            .into_iter()
            .max_by_key(|&stage| self.spent(stage));
        slowest.unwrap_or(Stage::Decode)
    }

    /// Number of the step that the next batch belongs to.
    pub fn next_step(&self) -> u64 {
        self.pool.next()
    }
}
