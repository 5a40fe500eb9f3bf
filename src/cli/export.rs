//! `alexnet-mp export`.

use super::model::{CLASSES_KEY, CONFIG_KEY, Model, ModelFlags};
use crate::checkpoint::{replace, write_with};
use crate::error::{Result, checkpoint, usage};
use crate::formats::{OPSET, caffe, onnx};
use crate::network::params::Tensors;
use crate::report::messages::result;
use std::path::{Path, PathBuf};

/// Files that other programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Whole tensors, named conv1.weight … fc8.bias
    Safetensors,
    /// Input `image` (RGB, mean subtracted), output `probabilities`
    Onnx,
    /// A prototxt and a caffemodel; input `data` (BGR, mean subtracted), output `prob`
    Caffe,
}

/// Write the weights for other programs: safetensors, ONNX, Caffe
///
/// The network takes crops on the 0–255 scale from which the mean image is subtracted; the mean
/// image itself is in the run's stats.safetensors.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp export runs/first --to onnx --out alexnet.onnx
  alexnet-mp export runs/first --to caffe --out alexnet      alexnet.prototxt, alexnet.caffemodel
  alexnet-mp export runs/first --to safetensors --out weights.safetensors")]
pub struct Export {
    /// Weight file or run folder
    #[arg(value_name = "FILE|RUN")]
    weights: PathBuf,
    /// Kind of file
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Format,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    model: ModelFlags,
}

impl Export {
    pub fn run(self) -> Result<()> {
        let model = Model::open(&self.weights, &self.model)?;
        if same_file(&model.path, &self.out) {
            return Err(usage(format!(
                "--out {}: is the file that is read",
                self.out.display()
            )));
        }
        let plan = model.config.plan()?;
        let parameters = in_order(&model.parameters, &plan.params)?;
        match self.to {
            Format::Safetensors => {
                write_weights(&self.out, &parameters, &model.config, &model.classes)?;
                result(&format!(
                    "{} tensors written to {}",
                    parameters.0.len(),
                    self.out.display()
                ));
            }
            Format::Onnx => {
                write(
                    &self.out,
                    &onnx(&model.config, &parameters, &model.classes)?,
                )?;
                result(&format!(
                    "ONNX, operator set {OPSET}, written to {}",
                    self.out.display()
                ));
            }
            Format::Caffe => {
                let files = caffe(&model.config, &parameters, &model.classes)?;
                let text = self.out.with_extension("prototxt");
                let weights = self.out.with_extension("caffemodel");
                write(&text, files.prototxt.as_bytes())?;
                write(&weights, &files.caffemodel)?;
                result(&format!(
                    "Caffe network written to {} and {}",
                    text.display(),
                    weights.display()
                ));
            }
        }
        Ok(())
    }
}

/// Weights with the configuration and classes they belong to.
pub fn write_weights(
    path: &Path,
    parameters: &Tensors,
    config: &crate::config::Config,
    classes: &[String],
) -> Result<()> {
    let classes = serde_json::json!(classes).to_string();
    let metadata = [
        (CONFIG_KEY.to_string(), config.to_toml()),
        (CLASSES_KEY.to_string(), classes),
    ];
    write_with(path, parameters, metadata)
}

/// The tensors in the order of the layers.
fn in_order(tensors: &Tensors, params: &[crate::network::params::Param]) -> Result<Tensors> {
    let mut ordered = Vec::new();
    for param in params {
        let weight = tensors.expect(&param.weight_name(), &param.weight_shape())?;
        let bias = tensors.expect(&param.bias_name(), &[param.all_outputs()])?;
        ordered.extend([weight.clone(), bias.clone()]);
    }
    Ok(Tensors(ordered))
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes).map_err(|e| checkpoint(format!("cannot write {}: {e}", path.display())))
}
