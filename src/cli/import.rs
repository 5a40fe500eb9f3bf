//! `alexnet-mp import`.

use super::export::write_weights;
use super::model::{CLASSES_KEY, CONFIG_KEY};
use super::open::ConfigFlags;
use crate::checkpoint::{self, in_file};
use crate::config::Config;
use crate::error::{Result, checkpoint as weights_error, data};
use crate::formats::{caffe_mean, from_caffe, renamed};
use crate::network::params::Tensors;
use crate::report::format::grouped;
use crate::report::messages::result;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Take over weights of other programs: safetensors of PyTorch or others, Caffe's caffemodel
///
/// Tensors named otherwise than conv1.weight … fc8.bias are taken in the order of their numbers:
/// those of four dimensions as conv1 to conv5, those of two as fc6 to fc8 (features.0.weight …
/// classifier.6.bias, with or without a prefix). A caffemodel must have the layers of
/// bvlc_alexnet, conv1 … fc8; red and blue are exchanged in conv1. The configuration is that of
/// --config; else the one in the file, where `export` wrote it; else preset `caffe` for a
/// caffemodel, `paper` for others.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp import bvlc_alexnet.caffemodel --caffe-mean imagenet_mean.binaryproto --out bvlc/weights.safetensors
  alexnet-mp import model.safetensors --config paper --out weights.safetensors")]
pub struct Import {
    /// A .safetensors or .caffemodel file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The weight file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Mean image of Caffe; written as stats.safetensors beside --out
    #[arg(long, value_name = "BINARYPROTO")]
    caffe_mean: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFlags,
}

impl Import {
    pub fn run(self) -> Result<()> {
        let (config, tensors, classes) = if is_safetensors(&self.file)? {
            self.safetensors()?
        } else {
            self.caffe()?
        };
        let mean = self.caffe_mean.as_deref().map(read_mean).transpose()?;
        if let Some(folder) = self.out.parent() {
            std::fs::create_dir_all(folder).map_err(|e| {
                weights_error(format!("{}: cannot be created: {e}", folder.display()))
            })?;
        }
        write_weights(&self.out, &tensors, &config, &classes)?;
        if let Some(mean) = mean {
            mean.write(&self.out.with_file_name("stats.safetensors"), None)?;
        }
        let count: usize = tensors.0.iter().map(|t| t.values.len()).sum();
        result(&format!(
            "{} parameters in {} tensors written to {}",
            grouped(count as u64),
            tensors.0.len(),
            self.out.display()
        ));
        Ok(())
    }

    fn safetensors(&self) -> Result<(Config, Tensors, Vec<String>)> {
        let mut contents = checkpoint::read(&self.file)?;
        let own = contents.metadata.get(CONFIG_KEY);
        let classes = contents.metadata.get(CLASSES_KEY);
        let classes = classes
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        contents
            .tensors
            .0
            .retain(|t| !t.name.starts_with("momentum."));
        let config = match (own, &self.config.config) {
            (Some(text), None) => self.described(text)?,
            _ => {
                // The last matrix has a row for each class.
                let matrices = contents.tensors.0.iter().filter(|t| t.shape.len() == 2);
                let outputs = matrices.map(|t| t.shape[0]).min();
                self.load("paper", outputs)?
            }
        };
        let tensors = renamed(contents.tensors, &config.plan()?.params)
            .map_err(|e| in_file(&self.file, e))?;
        Ok((config, tensors, classes))
    }

    fn caffe(&self) -> Result<(Config, Tensors, Vec<String>)> {
        let bytes = std::fs::read(&self.file).map_err(|e| unreadable(&self.file, &e))?;
        let found = from_caffe(&bytes).map_err(|e| in_file(&self.file, e))?;
        let config = match (&found.config, &self.config.config) {
            (Some(text), None) => self.described(text)?,
            _ => self.load("caffe", found.outputs("fc8"))?,
        };
        let tensors = found
            .tensors(&config.plan()?)
            .map_err(|e| in_file(&self.file, e))?;
        Ok((config, tensors, found.classes))
    }

    /// The configuration that the file itself tells.
    fn described(&self, text: &str) -> Result<Config> {
        Config::from_toml_with(text, &self.config.overrides).map_err(|e| in_file(&self.file, e))
    }

    /// The configuration asked for, with so many classes unless their number is set.
    fn load(&self, preset: &str, classes: Option<usize>) -> Result<Config> {
        let more = match classes {
            Some(n) if n > 0 && !self.config.sets_classes() => {
                vec![format!("network.classes={n}")]
            }
            _ => vec![],
        };
        self.config.load(preset, &more)
    }
}

/// A safetensors file begins with its header's length and the header's brace.
fn is_safetensors(path: &Path) -> Result<bool> {
    if path.extension().is_some_and(|e| e == "safetensors") {
        return Ok(true);
    }
    let mut start = [0; 9];
    let mut file = std::fs::File::open(path).map_err(|e| unreadable(path, &e))?;
    Ok(file.read_exact(&mut start).is_ok() && start[8] == b'{' && start[4..8] == [0; 4])
}

fn unreadable(path: &Path, e: &std::io::Error) -> crate::error::Error {
    weights_error(format!("{}: cannot be read: {e}", path.display()))
}

fn read_mean(path: &Path) -> Result<crate::data::Statistics> {
    let bytes = std::fs::read(path).map_err(|e| data(format!("{}: {e}", path.display())))?;
    caffe_mean(&bytes).map_err(|e| data(format!("{}: {e}", path.display())))
}
