//! Runs a set of images through the test-time network and keeps what is asked for.

use super::device_choice::{DeviceFlags, Job};
use super::model::Model;
use crate::config::Config;
use crate::data::{Loader, Source, Statistics};
use crate::device::Device;
use crate::engine::Engine;
use crate::error::{Result, data};
use crate::network::plan::SlotId;
use crate::report::progress::Progress;
use crate::train::validation::options;
use std::sync::Arc;

/// What is kept of every image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The softmax.
    Probabilities,
    /// The values of a slot of the plan, columns joined.
    Slot(SlotId),
}

/// One pass of a model over a set of images.
pub struct Inference<'a> {
    pub model: &'a Model,
    pub statistics: Arc<Statistics>,
    pub source: Arc<dyn Source>,
    /// Crops of an image, 1 or 10; what is kept is their mean.
    pub views: usize,
    pub wanted: Vec<Wanted>,
    /// Before the progress bar.
    pub title: &'a str,
    pub quiet: bool,
}

/// What came out, in the order of the images; bad images are left out.
pub struct Rows {
    /// Which images of the source the rows belong to.
    pub images: Vec<usize>,
    pub labels: Vec<u32>,
    /// One matrix `[images, …]` for each thing wanted.
    pub values: Vec<Vec<f32>>,
}

impl Inference<'_> {
    /// Does the pass on the devices that the flags choose.
    ///
    /// # Errors
    /// `Data` where no image is readable; those of devices and of the loader.
    pub fn on(self, devices: &DeviceFlags) -> Result<Rows> {
        let source = self.source.clone();
        let (labels, values) = devices.run(self.model.config.network.columns, self)?;
        let bad = source.skipped();
        let images: Vec<usize> = (0..source.len())
            .filter(|&i| bad.reason(i).is_none())
            .collect();
        if labels.is_empty() {
            return Err(data(format!(
                "no readable image among the {} of the set",
                source.len()
            )));
        }
        Ok(Rows {
            images,
            labels,
            values,
        })
    }
}

impl Job for Inference<'_> {
    type Output = (Vec<u32>, Vec<Vec<f32>>);

    fn run<D: Device>(self, devices: Vec<D>) -> Result<Self::Output> {
        let config = batched(&self.model.config, self.views, self.source.len());
        let plan = config.plan()?;
        let mut engine = Engine::new(plan, devices, config.data.side, 0, false)?;
        engine.set_parameters(&self.model.parameters)?;
        engine.set_mean(&self.statistics.mean)?;
        let progress =
            Progress::counting(self.title, self.source.len() as u64, "images", self.quiet);
        let evaluation = options(&config, self.views);
        let allocate = engine.host_allocator();
        let mut loader = Loader::evaluation(self.source.clone(), &evaluation, &allocate)?;
        let mut labels = Vec::new();
        let mut values = vec![Vec::new(); self.wanted.len()];
        while let Some(batch) = loader.next_batch()? {
            labels.extend(batch.labels.iter().step_by(self.views));
            let images = batch.len() / self.views;
            if let Some(used) = engine.load(batch)? {
                loader.recycle(used);
            }
            engine.test_step()?;
            for (wanted, values) in self.wanted.iter().zip(&mut values) {
                let found = match *wanted {
                    Wanted::Probabilities => engine.probabilities()?,
                    Wanted::Slot(slot) => engine.activations(slot)?,
                };
                mean_of_views(&found, images, self.views, values);
            }
            progress.advance(images as u64);
        }
        engine.unload()?;
        progress.finish();
        Ok((labels, values))
    }
}

/// The configuration with a batch that is a multiple of the views, and no larger than the set.
fn batched(config: &Config, views: usize, images: usize) -> Config {
    let mut config = config.clone();
    let most = (config.train.batch / views).max(1);
    config.train.batch = most.min(images.max(1)) * views;
    config
}

/// Appends to `rows` the mean over the views of each image.
fn mean_of_views(found: &[f32], images: usize, views: usize, rows: &mut Vec<f32>) {
    if views == 1 {
        rows.extend_from_slice(found);
        return;
    }
    let length = found.len() / (images * views);
    for image in found.chunks_exact(length * views) {
        rows.extend((0..length).map(|i| {
            let sum: f64 = (0..views).map(|v| f64::from(image[v * length + i])).sum();
            (sum / views as f64) as f32
        }));
    }
}
