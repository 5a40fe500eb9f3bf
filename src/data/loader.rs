//! Batches made in the background, delivered in order.
//!
//! Workers take an empty batch from the recycling channel, then the number of the next step, fill
//! the batch and send it on; whoever holds a number holds memory too, so the step that is waited
//! for always goes ahead. The batches in existence bound the memory: workers + queue.

mod work;

use crate::batch::{Batch, HostAllocator};
use crate::data::{AugmentOptions, Source, Stage, Statistics, Times, augment};
use crate::error::{Error, Result, data, usage};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
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
    /// `None` once stopped.
    empty: Option<Sender<Batch>>,
    full: Option<Receiver<(u64, Result<Batch>)>>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    early: BTreeMap<u64, Result<Batch>>,
    next: u64,
    steps: Option<u64>,
    in_use: usize,
    batches: usize,
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
        let batches = workers + queue;
        let (empty, take_empty) = bounded(batches);
        let (give_full, full) = bounded(batches);
        for _ in 0..batches {
            let _ = empty.send(Batch::with_capacity(batch, crop, allocate));
        }
        let mut loader = Loader {
            empty: Some(empty),
            full: Some(full),
            stop: Arc::new(AtomicBool::new(false)),
            workers: Vec::with_capacity(workers),
            early: BTreeMap::new(),
            next: first_step,
            steps: work.steps(),
            in_use: 0,
            batches,
            waited: Duration::ZERO,
            times: Arc::default(),
            source: None,
        };
        let ticket = Arc::new(AtomicU64::new(first_step));
        for number in 0..workers {
            let worker = Worker {
                work: work.clone(),
                ticket: ticket.clone(),
                stop: loader.stop.clone(),
                empty: take_empty.clone(),
                full: give_full.clone(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || worker.run())
                .map_err(|e| data(format!("loader: cannot start a worker thread: {e}")))?;
            loader.workers.push(thread);
        }
        Ok(loader)
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
        while self.steps.is_none_or(|steps| self.next < steps) {
            let batch = self.in_order()?;
            self.next += 1;
            self.in_use += 1;
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
            // All its images were bad.
            self.recycle(batch);
        }
        Ok(None)
    }

    fn in_order(&mut self) -> Result<Batch> {
        loop {
            if let Some(batch) = self.early.remove(&self.next) {
                // The failed worker has ended and its step will not come again.
                return batch.inspect_err(|_| self.end());
            }
            if self.in_use == self.batches {
                return Err(data(format!(
                    "internal error: all {} batches of the loader are in use, none was recycled",
                    self.batches
                )));
            }
            let received = self.full.as_ref().and_then(|full| full.recv().ok());
            let (step, batch) =
                received.ok_or_else(|| data("internal error: the loader's workers have ended"))?;
            self.early.insert(step, batch);
        }
    }

    /// Gives a batch back, to be filled again.
    pub fn recycle(&mut self, mut batch: Batch) {
        batch.clear();
        self.in_use = self.in_use.saturating_sub(1);
        if let Some(empty) = &self.empty {
            // Fails only where the workers have ended, which the next batch reports.
            let _ = empty.try_send(batch);
        }
    }

    /// Stops the workers; each finishes the image it is reading.
    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.empty = None;
        self.full = None;
        self.early.clear();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
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
        self.next
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.end();
    }
}

struct Worker {
    work: Arc<dyn Work>,
    ticket: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    empty: Receiver<Batch>,
    full: Sender<(u64, Result<Batch>)>,
}

impl Worker {
    fn run(self) {
        let mut scratch = Vec::new();
        while let Ok(mut batch) = self.empty.recv() {
            let step = self.ticket.fetch_add(1, Ordering::Relaxed);
            if self.work.steps().is_some_and(|steps| step >= steps) {
                return;
            }
            let filled = catch_unwind(AssertUnwindSafe(|| {
                self.work.fill(step, &mut batch, &mut scratch, &self.stop)
            }))
            .unwrap_or_else(|panic| Err(panicked(step, &*panic)));
            let failed = filled.is_err();
            let sent = self.full.send((step, filled.map(|()| batch)));
            if failed || sent.is_err() || self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

fn panicked(step: u64, panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    data(format!(
        "internal error: a loader worker failed at step {step}: {text}"
    ))
}
