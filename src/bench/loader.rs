//! The way of the images alone: read, decode, crop, upload, augment.

use super::Pace;
use crate::config::Config;
use crate::data::{Dataset, Loader, LoaderOptions, Stage, Statistics};
use crate::device::Device;
use crate::error::{Result, data};
use crate::measure::median;
use serde::Serialize;
use std::time::{Duration, Instant};

/// What was measured.
#[derive(Clone, Debug)]
pub struct LoaderTime {
    /// Seconds of a batch, in order.
    pub laps: Vec<f64>,
    pub stages: Vec<StageTime>,
    pub workers: usize,
    pub device_name: String,
}

/// A stage that images go through. Workers do disk, decode and crop one after another; the device
/// does the rest meanwhile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageTime {
    pub stage: &'static str,
    /// Of one image, on one thread or on the device.
    pub microseconds: f64,
    /// Images a second of that one thread, if it did nothing else; none of a stage that takes no
    /// time, as decoding raw shards.
    pub images_per_second: Option<f64>,
}

impl StageTime {
    fn new(stage: &'static str, seconds: f64) -> Self {
        StageTime {
            stage,
            microseconds: seconds * 1e6,
            images_per_second: (seconds > 0.0).then(|| 1.0 / seconds),
        }
    }
}

impl LoaderTime {
    /// Median seconds of a batch.
    pub fn median(&self) -> f64 {
        median(&self.laps)
    }

    /// The stages of the workers, and those of the device.
    pub fn parts(&self) -> (&[StageTime], &[StageTime]) {
        self.stages.split_at(Stage::ALL.len())
    }

    /// The stage that bounds the rate: the longest of the workers where all of them together are
    /// slower than the device, else the longer one of the device.
    pub fn bound(&self) -> Option<&StageTime> {
        let (by_workers, by_device) = self.parts();
        let sum = |stages: &[StageTime]| stages.iter().map(|s| s.microseconds).sum::<f64>();
        let slower = match sum(by_workers) / self.workers as f64 > sum(by_device) {
            true => by_workers,
            false => by_device,
        };
        let longest = |a: &&StageTime, b: &&StageTime| a.microseconds.total_cmp(&b.microseconds);
        slower.iter().max_by(longest)
    }
}

/// Times batches of a training set on their way to `device`, with nothing trained. Time does not
/// depend on the statistics, so none are computed.
pub fn loader<D: Device>(
    config: &Config,
    set: &Dataset,
    device: &mut D,
    pace: Pace,
) -> Result<LoaderTime> {
    let options = LoaderOptions {
        batch: config.train.batch,
        seed: config.train.seed,
        workers: config.workers(),
        queue: config.data.queue,
        first_step: 0,
        augment: config.augmentation(),
        shuffle_window: config.data.shuffle_window,
        share: Default::default(),
    };
    let statistics = Statistics::zero(set.train.side());
    let allocator = device.host_allocator();
    let mut loader = Loader::train(set.train.clone(), &options, &statistics, &allocator)?;
    let mut target = Target::new(device, &statistics, config)?;
    // The queue is full at first; those batches cost nothing and do not count.
    for _ in 0..options.queue + options.workers {
        target.take(device, &mut loader)?;
    }
    target.forget();
    let before = Stage::ALL.map(|stage| loader.spent(stage));
    let start = Instant::now();
    let more = |laps: usize| match pace {
        Pace::Steps(steps) => laps < steps.max(1),
        Pace::Within(time) => laps < 3 || start.elapsed() < time.min(Duration::from_secs(10)),
    };
    while more(target.laps.len()) {
        target.take(device, &mut loader)?;
    }
    let images = (target.laps.len() * options.batch) as f64;
    let mut stages = Vec::new();
    for (stage, before) in Stage::ALL.into_iter().zip(before) {
        // Workers are as far ahead at the end as they were at the start.
        let spent = loader.spent(stage).saturating_sub(before).as_secs_f64();
        stages.push(StageTime::new(stage.name(), spent / images));
    }
    let of_image = |laps: &[f64]| median(laps) / options.batch as f64;
    stages.push(StageTime::new("upload", of_image(&target.uploads)));
    stages.push(StageTime::new("augment", of_image(&target.augmentations)));
    Ok(LoaderTime {
        laps: target.laps,
        stages,
        workers: options.workers,
        device_name: device.name(),
    })
}

/// Where batches go: buffers on the device, and the seconds that each batch took.
struct Target<D: Device> {
    side: usize,
    input: D::Input,
    mean: D::Buffer,
    x: D::Buffer,
    laps: Vec<f64>,
    uploads: Vec<f64>,
    augmentations: Vec<f64>,
}

impl<D: Device> Target<D> {
    fn new(device: &mut D, statistics: &Statistics, config: &Config) -> Result<Self> {
        let (batch, crop, side) = (config.train.batch, config.network.image, statistics.side);
        let mut mean = device.allocate(side * side * 3)?;
        device.upload(&statistics.mean, &mut mean)?;
        Ok(Target {
            side,
            input: device.allocate_input(batch, crop)?,
            mean,
            x: device.allocate(batch * crop * crop * 3)?,
            laps: vec![],
            uploads: vec![],
            augmentations: vec![],
        })
    }

    /// Takes the next batch to the device.
    fn take(&mut self, device: &mut D, loader: &mut Loader) -> Result<()> {
        let start = Instant::now();
        let batch = loader
            .next_batch()?
            .ok_or_else(|| data("the loader ended"))?;
        let arrived = Instant::now();
        device.upload_input(&batch, &mut self.input)?;
        device.input_arrived(&self.input)?;
        let uploaded = Instant::now();
        device.augment(batch.len(), &self.input, self.side, &self.mean, &mut self.x)?;
        device.synchronize()?;
        self.augmentations.push(uploaded.elapsed().as_secs_f64());
        self.uploads.push((uploaded - arrived).as_secs_f64());
        loader.recycle(batch);
        self.laps.push(start.elapsed().as_secs_f64());
        Ok(())
    }

    fn forget(&mut self) {
        self.laps.clear();
        self.uploads.clear();
        self.augmentations.clear();
    }
}
