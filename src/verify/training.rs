//! A short training run whose loss must fall.

use super::Options;
use super::report::{Check, Recorder};
use crate::batch::{Batch, Draw, HostAllocator};
use crate::config::Config;
use crate::data::{Source, builtin::Builtin};
use crate::device::Device;
use crate::engine::{Dropping, Engine, StepContext};
use crate::error::{Result, device as device_error};
use crate::network::params::Tensors;
use crate::optimizer::{Plateau, rates};
use crate::random::Purpose;
use std::time::Instant;

/// What the loss must fall below, as a share of the first.
const SHARE: f64 = 0.7;

/// A network that learns a few images by heart within some ten steps: the presets stay near
/// ln(classes) for hundreds, and at their rates jump about on so few images.
const EAGER: [&str; 8] = [
    "train.learning_rate=0.003",
    "network.dropout.rate=0.0",
    "layers.conv2.bias=0.0",
    "layers.conv4.bias=0.0",
    "layers.conv5.bias=0.0",
    "layers.fc6.bias=0.0",
    "layers.fc7.bias=0.0",
    "layers.fc8.sigma=0.05",
];

/// Trains a small network on one batch of the built-in images, again and again.
pub(super) fn verify<D: Device>(
    devices: Vec<D>,
    options: &Options,
    recorder: &mut Recorder<'_>,
) -> Result<()> {
    let (images, steps) = if options.quick { (4, 30) } else { (16, 80) };
    let start = Instant::now();
    let names: Vec<String> = devices.iter().map(Device::name).collect();
    let losses = train(devices, images, steps, options)
        .map_err(|error| device_error(format!("verify: training: {error}")))?;
    // The lowest: with momentum the loss may bounce off the ground.
    let (first, lowest) = (losses[0], losses.iter().copied().fold(losses[0], f64::min));
    let finite = losses.iter().all(|loss| loss.is_finite());
    let seconds = start.elapsed().as_secs_f64();
    recorder.add(Check {
        section: "training",
        name: "a short training run".into(),
        device: names.join(" and "),
        shape: format!("{steps} steps of {images} images"),
        passed: finite && lowest < SHARE * first,
        milliseconds: Some(seconds * 1e3 / f64::from(steps)),
        detail: Some(format!(
            "expected the loss to fall below {:.3}, found {first:.3} → {lowest:.3}",
            SHARE * first
        )),
        ..Check::default()
    });
    Ok(())
}

fn train<D: Device>(
    devices: Vec<D>,
    images: usize,
    steps: u32,
    options: &Options,
) -> Result<Vec<f64>> {
    let mut overrides: Vec<String> = EAGER.map(String::from).to_vec();
    overrides.push(format!("train.batch={images}"));
    overrides.push(format!("train.precision={}", options.precision));
    if options.quick {
        overrides.push("network.width=0.125".into());
    }
    let config = Config::load("quickstart", &overrides)?;
    let plan = config.plan()?;
    let params = plan.params.clone();
    let side = config.data.side;
    let mut engine = Engine::new(plan, devices, side, config.train.seed, false)?;
    engine.set_parameters(&Tensors::initial(&params, config.train.seed))?;
    engine.set_mean(&vec![128.0; side * side * 3])?;
    engine.load(batch(&config, &engine.host_allocator())?)?;
    let rates = rates(&config.train, &params, 0.0, &Plateau::default());
    let mut losses = Vec::new();
    for _ in 0..steps {
        engine.train_step(&StepContext {
            dropping: Dropping::Off,
            first_image: 0,
            whole_batch: images,
            accumulate: false,
            update: Some(&rates),
        })?;
        losses.push(engine.take_score()?.loss / images as f64);
    }
    Ok(losses)
}

/// The middles of the first built-in images.
fn batch(config: &Config, allocate: &HostAllocator) -> Result<Batch> {
    let (side, crop, images) = (config.data.side, config.network.image, config.train.batch);
    let source = Builtin::new(config.train.seed, Purpose::BuiltinTrain, side, images)?;
    let mut batch = Batch::with_capacity(images, crop, allocate);
    let (mut pixels, margin) = (vec![0; side * side * 3], (side - crop) / 2);
    for image in 0..images {
        source.read(image, &mut pixels)?;
        for row in 0..crop {
            let from = ((margin + row) * side + margin) * 3;
            let to = (image * crop + row) * crop * 3;
            batch.pixels.bytes_mut()[to..to + crop * 3]
                .copy_from_slice(&pixels[from..from + crop * 3]);
        }
        batch.draws.push(Draw::plain(margin as u16, margin as u16));
        batch.labels.push(source.label(image));
    }
    Ok(batch)
}
