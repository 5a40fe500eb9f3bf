//! The way of the images alone: read, decode, crop, upload, augment.

use super::Pace;
use crate::config::Config;
use crate::data::{Dataset, Loader, LoaderOptions, Statistics};
use crate::device::Device;
use crate::error::{Result, data};
use crate::measure::median;
use std::time::{Duration, Instant};

/// What was measured.
#[derive(Clone, Debug)]
pub struct LoaderTime {
    /// Seconds of a batch, in order.
    pub laps: Vec<f64>,
    /// Median seconds of a batch that went to its upload and augmentation on the device.
    pub device: f64,
    pub workers: usize,
    pub device_name: String,
}

impl LoaderTime {
    /// Median seconds of a batch.
    pub fn median(&self) -> f64 {
        median(&self.laps)
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
    let (batch, crop, side) = (config.train.batch, config.network.image, set.train.side());
    let options = LoaderOptions {
        batch,
        seed: config.train.seed,
        workers: config.workers(),
        queue: config.data.queue,
        first_step: 0,
        augment: config.augmentation(),
        shuffle_window: config.data.shuffle_window,
        share: Default::default(),
    };
    let statistics = Statistics::zero(side);
    let allocator = device.host_allocator();
    let mut loader = Loader::train(set.train.clone(), &options, &statistics, &allocator)?;
    let mut input = device.allocate_input(batch, crop)?;
    let mut mean = device.allocate(side * side * 3)?;
    device.upload(&statistics.mean, &mut mean)?;
    let mut x = device.allocate(batch * crop * crop * 3)?;
    let mut on_device = Vec::new();
    let mut one = || -> Result<f64> {
        let start = Instant::now();
        let images = loader
            .next_batch()?
            .ok_or_else(|| data("the loader ended"))?;
        let arrived = Instant::now();
        device.upload_input(&images, &mut input)?;
        device.input_arrived(&input)?;
        device.augment(images.len(), &input, side, &mean, &mut x)?;
        device.synchronize()?;
        on_device.push(arrived.elapsed().as_secs_f64());
        loader.recycle(images);
        Ok(start.elapsed().as_secs_f64())
    };
    // The queue is full at first; those batches cost nothing and do not count.
    for _ in 0..options.queue + options.workers {
        one()?;
    }
    let (start, mut laps) = (Instant::now(), Vec::new());
    let more = |laps: &[f64]| match pace {
        Pace::Steps(steps) => laps.len() < steps.max(1),
        Pace::Within(time) => laps.len() < 3 || start.elapsed() < time.min(Duration::from_secs(10)),
    };
    while more(&laps) {
        laps.push(one()?);
    }
    Ok(LoaderTime {
        laps,
        device: median(&on_device),
        workers: options.workers,
        device_name: device.name(),
    })
}
