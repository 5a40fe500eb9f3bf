//! `alexnet-mp step`: exact training steps on given data, for comparison with other frameworks.

use super::device_choice::{DeviceFlags, Job};
use super::open::ConfigFlags;
use crate::checkpoint::{self, in_file};
use crate::config::Config;
use crate::device::Device;
use crate::engine::{Dropping, Engine, StepContext};
use crate::error::{Result, data, usage};
use crate::formats::npy;
use crate::network::params::{Tensor, Tensors};
use crate::optimizer::{Plateau, rates};
use crate::report::messages::result;
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
    /// Updates to make
    #[arg(long, default_value_t = 1)]
    steps: usize,
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

/// One array of `[N, …]`, or several of `[K, N, …]` that the steps use in turn.
struct Stack<T> {
    values: Vec<T>,
    count: usize,
}

impl<T> Stack<T> {
    /// What step number `step` uses.
    fn at(&self, step: usize) -> &[T] {
        let one = self.values.len() / self.count;
        &self.values[step % self.count * one..][..one]
    }
}

/// The input files.
struct Inputs {
    images: Stack<f32>,
    labels: Stack<u32>,
    masks: Option<Vec<Stack<f32>>>,
    /// Images of one step.
    batch: usize,
}

impl Step {
    pub fn run(self) -> Result<()> {
        if self.steps == 0 {
            return Err(usage("--steps 0: at least one step is needed"));
        }
        let mut config = self.config.load("paper", &[])?;
        let inputs = self.inputs(&config)?;
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
                steps: self.steps,
            },
        )?;
        checkpoint::write_tensors(&out, &tensors)?;
        result(&format!(
            "{} tensors of {} step(s) written to {}",
            tensors.0.len(),
            self.steps,
            out.display()
        ));
        Ok(())
    }

    fn inputs(&self, config: &Config) -> Result<Inputs> {
        let side = config.network.image as u64;
        let (shape, images) = read_npy::<f32>(&self.images)?;
        let (count, batch) = match shape[..] {
            [n, 3, h, w] if h == side && w == side => (1, n as usize),
            [k, n, 3, h, w] if h == side && w == side => (k as usize, n as usize),
            _ => {
                return Err(data(format!(
                    "{}: expected shape [N,3,{side},{side}] or [K,N,3,{side},{side}], found {shape:?}",
                    self.images.display()
                )));
            }
        };
        if count * batch == 0 {
            return Err(data(format!(
                "{}: holds no image (shape {shape:?})",
                self.images.display()
            )));
        }
        let (label_shape, labels) = read_npy::<i64>(&self.labels)?;
        if label_shape.last() != Some(&(batch as u64)) || label_shape.len() > 2 || labels.is_empty()
        {
            return Err(data(format!(
                "{}: expected shape [{batch}] or [K,{batch}], found {label_shape:?}",
                self.labels.display()
            )));
        }
        let classes = config.network.classes;
        if let Some(bad) = labels.iter().find(|&&l| l < 0 || l as usize >= classes) {
            return Err(data(format!(
                "{}: label {bad} is not among the {classes} classes 0..{classes}",
                self.labels.display()
            )));
        }
        let labels = Stack {
            count: labels.len() / batch,
            values: labels.iter().map(|&l| l as u32).collect(),
        };
        let masks = self
            .masks
            .as_deref()
            .map(|path| read_masks(path, config, batch))
            .transpose()?;
        Ok(Inputs {
            images: Stack {
                values: images,
                count,
            },
            labels,
            masks,
            batch,
        })
    }
}

fn read_npy<T: npyz::Deserialize>(path: &Path) -> Result<(Vec<u64>, Vec<T>)> {
    let at = |what: String| data(format!("{}: {what}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| at(format!("cannot be read: {e}")))?;
    npy::parse(&bytes).map_err(at)
}

fn read_masks(path: &Path, config: &Config, batch: usize) -> Result<Vec<Stack<f32>>> {
    let file = checkpoint::read(path)?.tensors;
    let read = |(name, layer): (&str, &str)| {
        let units = config.network.scaled(config.layers[layer].maps);
        let tensor = file
            .get(name)
            .ok_or_else(|| data(format!("{}: tensor {name} is missing", path.display())))?;
        let count = match tensor.shape[..] {
            [n, u] if n == batch && u == units => 1,
            [k, n, u] if k > 0 && n == batch && u == units => k,
            _ => {
                return Err(data(format!(
                    "{}: {name}: expected [{batch},{units}] or [K,{batch},{units}], found {:?}",
                    path.display(),
                    tensor.shape
                )));
            }
        };
        if tensor.values.iter().any(|&v| v != 0.0 && v != 1.0) {
            return Err(data(format!(
                "{}: {name}: expected zeros and ones",
                path.display()
            )));
        }
        Ok(Stack {
            values: tensor.values.clone(),
            count,
        })
    };
    [("mask6", "fc6"), ("mask7", "fc7")]
        .into_iter()
        .map(read)
        .collect()
}

fn read_momentum(path: &Path, config: &Config) -> Result<Tensors> {
    let mut tensors = checkpoint::read(&checkpoint::weights_path(path))?.tensors;
    // Our own files have the prefix beside the weights; a file of momentum alone need not.
    if tensors.0.iter().any(|t| t.name.starts_with("momentum.")) {
        tensors.0.retain_mut(|t| {
            let own = t.name.strip_prefix("momentum.").map(str::to_string);
            own.map(|name| t.name = name).is_some()
        });
    }
    tensors
        .check(&config.plan()?.params)
        .map_err(|e| in_file(path, e))?;
    Ok(tensors)
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
