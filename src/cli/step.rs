//! `alexnet-mp step`: exact training steps on given data, for comparison with other frameworks.

mod inputs;

use super::device_choice::{DeviceFlags, Job};
use super::open::ConfigFlags;
use crate::checkpoint::{self, in_file};
use crate::config::{Config, HIGHEST_LEARNING_RATE};
use crate::device::Device;
use crate::engine::{Dropping, Engine, StepContext};
use crate::error::{Result, numeric, usage};
use crate::network::params::{Tensor, Tensors};
use crate::optimizer::{Plateau, rates};
use crate::report::messages::result;
use inputs::{Inputs, read_momentum};
use std::path::{Path, PathBuf};

/// Run exact training steps on a given batch and write every tensor out
///
/// For comparison with another framework: weights, images, labels and dropout masks in; logits,
/// losses, gradients, parameters and momentum out.
#[derive(clap::Args)]
#[command(after_help = "Example:
  alexnet-mp step --config paper --set network.width=0.25 --set network.image=64 \\
    --set network.classes=10 --weights w.safetensors --images x.npy --labels y.npy \\
    --masks m.safetensors --steps 3 --lr 1e-4 --out out.safetensors")]
pub struct Step {
    /// safetensors file of all weights and biases
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// f32 [N,3,S,S], or [K,N,3,S,S] for K batches, cropped and mean-subtracted
    #[arg(long, value_name = "NPY")]
    images: PathBuf,
    /// int64 [N] or [K,N]
    #[arg(long, value_name = "NPY")]
    labels: PathBuf,
    /// safetensors with mask6, mask7: f32 0/1, [N,units] or [K,N,units]; none: test-time network
    #[arg(long, value_name = "FILE")]
    masks: Option<PathBuf>,
    /// safetensors of the initial momentum, named like the weights [default: zero]
    #[arg(long, value_name = "FILE")]
    momentum: Option<PathBuf>,
    /// Updates to make [default: one for each of the K batches]
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Learning rate, constant [default: train.learning_rate]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// Where the results go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    devices: DeviceFlags,
}

impl Step {
    pub fn run(self) -> Result<()> {
        if self.steps == Some(0) {
            return Err(usage("--steps 0: at least one step is needed"));
        }
        // Written so that a NaN is refused too.
        if let Some(rate) = (self.lr).filter(|rate| !(0.0..=HIGHEST_LEARNING_RATE).contains(rate)) {
            return Err(usage(format!(
                "--lr {rate}: expected 0 to {HIGHEST_LEARNING_RATE}"
            )));
        }
        let mut config = self.config.load("paper", &[])?;
        let inputs = self.inputs(&config)?;
        let steps = self.count(&inputs)?;
        config.train.batch = inputs.batch;
        if let Some(rate) = self.lr {
            config.train.learning_rate = rate;
        }
        let mut weights = checkpoint::read(&checkpoint::weights_path(&self.weights))?.tensors;
        // A run's checkpoint holds the momentum beside the weights.
        weights.0.retain(|t| !t.name.starts_with("momentum."));
        weights
            .check_only(&config.plan()?.params)
            .map_err(|e| in_file(&self.weights, e))?;
        let momentum = self
            .momentum
            .as_deref()
            .map(|path| read_momentum(path, &config))
            .transpose()?;
        let devices = self.devices.clone();
        let out = self.out.clone();
        let tensors = devices.run(
            config.network.columns,
            StepJob {
                config,
                inputs,
                weights,
                momentum,
                steps,
            },
        )?;
        checkpoint::write_tensors(&out, &tensors)?;
        result(&format!(
            "{} tensors of {steps} step(s) written to {}",
            tensors.0.len(),
            out.display()
        ));
        check_finite(&tensors, &out)
    }
}

/// Refuses numbers that are not finite, after they were written: whoever compares wants to see them.
fn check_finite(tensors: &Tensors, out: &Path) -> Result<()> {
    let bad = |t: &&Tensor| t.values.iter().any(|v| !v.is_finite());
    let loss = tensors.get("loss").filter(bad);
    let what = match (loss, tensors.0.iter().find(bad)) {
        (Some(loss), _) => {
            let step = loss.values.iter().position(|v| !v.is_finite()).unwrap_or(0);
            format!("the loss of step {} is {}", step + 1, loss.values[step])
        }
        (None, Some(tensor)) => format!("{} is not finite", tensor.name),
        (None, None) => return Ok(()),
    };
    Err(numeric(format!(
        "{what}; expected finite numbers; what was computed is in {}",
        out.display()
    )))
}

struct StepJob {
    config: Config,
    inputs: Inputs,
    weights: Tensors,
    momentum: Option<Tensors>,
    steps: usize,
}

impl Job for StepJob {
    type Output = Tensors;

    fn run<D: Device>(self, devices: Vec<D>) -> Result<Tensors> {
        let StepJob {
            config,
            inputs,
            weights,
            momentum,
            steps,
        } = self;
        let plan = config.plan()?;
        let rates = rates(&config.train, &plan.params, 0.0, &Plateau::default());
        let (logits, classes) = (plan.logits, plan.classes);
        let mut engine = Engine::new(plan, devices, config.data.side, config.train.seed, true)?;
        engine.set_parameters(&weights)?;
        if let Some(momentum) = &momentum {
            engine.set_momentum(momentum)?;
        }
        let mut out = Vec::new();
        let mut losses = Vec::new();
        for step in 0..steps {
            load(&mut engine, &inputs, step)?;
            let dropping = if inputs.masks.is_some() {
                Dropping::Given
            } else {
                Dropping::Off
            };
            let context = StepContext {
                dropping,
                first_image: 0,
                whole_batch: inputs.batch,
                accumulate: false,
                update: Some(&rates),
            };
            engine.train_step(&context)?;
            losses.push((engine.take_score()?.loss / inputs.batch as f64) as f32);
            if step == 0 {
                out.push(Tensor {
                    name: "logits".into(),
                    shape: vec![inputs.batch, classes],
                    values: engine.activations(logits)?,
                });
                out.extend(prefixed("grad", engine.gradients()?));
            }
        }
        out.push(Tensor {
            name: "loss".into(),
            shape: vec![steps],
            values: losses,
        });
        out.extend(prefixed("param", engine.parameters()?));
        out.extend(prefixed("momentum", engine.momentum()?));
        Ok(Tensors(out))
    }
}

/// Makes what step number `step` uses the engine's input.
fn load<D: Device>(engine: &mut Engine<D>, inputs: &Inputs, step: usize) -> Result<()> {
    engine.load_images(inputs.images.at(step), inputs.labels.at(step))?;
    match &inputs.masks {
        Some(masks) => engine.set_masks(
            &masks
                .iter()
                .map(|m| m.at(step).to_vec())
                .collect::<Vec<_>>(),
        ),
        None => Ok(()),
    }
}

fn prefixed(prefix: &str, tensors: Tensors) -> impl Iterator<Item = Tensor> {
    tensors.0.into_iter().map(move |t| Tensor {
        name: format!("{prefix}.{}", t.name),
        ..t
    })
}
