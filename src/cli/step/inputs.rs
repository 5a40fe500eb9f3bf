//! The files that `step` reads.

use super::Step;
use crate::checkpoint::{self, in_file};
use crate::config::Config;
use crate::error::{Result, data};
use crate::formats::npy;
use crate::network::params::Tensors;
use std::path::Path;

/// One array of `[N, …]` that every step uses, or several of `[K, N, …]` that the steps use in turn.
pub struct Stack<T> {
    values: Vec<T>,
    count: usize,
}

impl<T> Stack<T> {
    /// What step number `step` uses.
    pub fn at(&self, step: usize) -> &[T] {
        let one = self.values.len() / self.count;
        &self.values[step % self.count * one..][..one]
    }
}

/// The input files.
pub struct Inputs {
    pub images: Stack<f32>,
    pub labels: Stack<u32>,
    pub masks: Option<Vec<Stack<f32>>>,
    /// Images of one step.
    pub batch: usize,
}

impl Step {
    /// Reads the files.
    ///
    /// # Errors
    /// `Data`, naming the file, what was expected and what was found.
    pub(super) fn inputs(&self, config: &Config) -> Result<Inputs> {
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
        if let Some(i) = images.iter().position(|v| !v.is_finite()) {
            return Err(data(format!(
                "{}: element {i} is {}; expected finite numbers",
                self.images.display(),
                images[i]
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

    /// How many steps to make: those asked for, else one for each batch of the inputs.
    ///
    /// # Errors
    /// `Data` where files hold several batches each, and not equally many.
    pub(super) fn count(&self, inputs: &Inputs) -> Result<usize> {
        let mut counts = vec![
            (&self.images, "", inputs.images.count),
            (&self.labels, "", inputs.labels.count),
        ];
        if let (Some(path), Some(masks)) = (&self.masks, &inputs.masks) {
            counts.push((path, ": mask6", masks[0].count));
            counts.push((path, ": mask7", masks[1].count));
        }
        let most = counts.iter().map(|c| c.2).max().unwrap_or(1);
        match counts.iter().find(|c| c.2 != 1 && c.2 != most) {
            None => Ok(self.steps.unwrap_or(most)),
            Some((path, what, count)) => Err(data(format!(
                "{}{what}: holds {count} batches: expected 1 for all steps, or {most} as another file does",
                path.display()
            ))),
        }
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

pub fn read_momentum(path: &Path, config: &Config) -> Result<Tensors> {
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
