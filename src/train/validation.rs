//! Errors and loss over a whole data set, with the network as it is.

use crate::batch::Batch;
use crate::config::{Config, MeanRule};
use crate::data::{EvaluationOptions, Loader, Source};
use crate::device::Device;
use crate::engine::Engine;
use crate::error::{Result, data};
use std::sync::Arc;

/// Means over the images of a set. Errors are shares from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    pub images: u64,
    pub top1_error: f64,
    pub top5_error: f64,
    /// Natural logarithm.
    pub loss: f64,
}

/// The centre view of every image through the test-time network. `each` sees every batch before
/// it runs and is told nothing else; an error of it ends the evaluation.
///
/// # Errors
/// `Data` where the set has no good image; those of devices and of the loader.
pub fn validate<D: Device>(
    engine: &mut Engine<D>,
    config: &Config,
    source: Arc<dyn Source>,
    mut each: impl FnMut(&Batch) -> Result<()>,
) -> Result<Evaluation> {
    let mut loader = Loader::evaluation(source, &options(config, 1), &engine.host_allocator())?;
    // A score left over from training would be added in.
    engine.take_score()?;
    let mut images = 0;
    while let Some(batch) = loader.next_batch()? {
        each(&batch)?;
        images += batch.len() as u64;
        if let Some(used) = engine.load(batch)? {
            loader.recycle(used);
        }
        engine.test_step()?;
    }
    engine.unload()?;
    let score = engine.take_score()?;
    if images == 0 {
        return Err(data("the validation set holds no readable image"));
    }
    let n = images as f64;
    Ok(Evaluation {
        images,
        top1_error: score.top1_errors as f64 / n,
        top5_error: score.top5_errors as f64 / n,
        loss: score.loss / n,
    })
}

/// How evaluation reads a set with so many views an image.
pub fn options(config: &Config, views: usize) -> EvaluationOptions {
    EvaluationOptions {
        batch: (config.train.batch / views).max(1) * views,
        workers: config.workers(),
        queue: config.data.queue,
        crop: config.network.image,
        views,
        centre_mean: config.data.mean == MeanRule::Centre,
    }
}
