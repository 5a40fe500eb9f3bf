//! Weights and mean images of Caffe: `bvlc_alexnet.caffemodel` and networks of its shape.

use super::caffe::{reduced, swapped};
use super::caffe_proto::{Blob, Net};
use super::graph::{Op, nodes};
use crate::data::Statistics;
use crate::error::{Result, checkpoint, data};
use crate::network::params::{Param, Tensor, Tensors};
use crate::network::plan::Plan;
use prost::Message;

/// The layers of a caffemodel that hold weights.
pub struct CaffeWeights {
    layers: Vec<(String, Vec<Blob>)>,
    /// The configuration as TOML, in files that [`super::caffe()`] wrote.
    pub config: Option<String>,
    /// Names of the classes, likewise.
    pub classes: Vec<String>,
}

/// Reads a caffemodel of either form.
///
/// # Errors
/// `Checkpoint`, with what is wrong.
pub fn from_caffe(bytes: &[u8]) -> Result<CaffeWeights> {
    let net = Net::decode(bytes)
        .map_err(|e| checkpoint(format!("not a caffemodel, or a truncated one ({e})")))?;
    let new = net.layer.into_iter().map(|l| (l.name, l.blobs));
    let old = net.layers.into_iter().map(|l| (l.name, l.blobs));
    let layers: Vec<_> = new.chain(old).filter(|(_, b)| !b.is_empty()).collect();
    if layers.is_empty() {
        return Err(checkpoint("not a caffemodel: no layer in it holds weights"));
    }
    Ok(CaffeWeights {
        layers,
        config: Some(net.config).filter(|text| !text.is_empty()),
        classes: net.classes,
    })
}

impl CaffeWeights {
    /// Outputs of a layer, from its bias.
    pub fn outputs(&self, layer: &str) -> Option<usize> {
        let (_, blobs) = self.layers.iter().find(|(name, _)| name == layer)?;
        Some(blobs.get(1)?.data.len())
    }

    /// The whole tensors of a network, conv1 reading red first. A kernel enlarged by zeros at the
    /// top and left, as it is written for padding on one side, is taken without them.
    ///
    /// # Errors
    /// `Checkpoint`, naming a layer that is missing, extra, twice there, or of another shape.
    pub fn tensors(&self, plan: &Plan) -> Result<Tensors> {
        let params = &plan.params;
        self.check_layers(params)?;
        let overhangs = overhangs(plan)?;
        let mut tensors = Vec::new();
        for (index, param) in params.iter().enumerate() {
            let blobs = self.blobs(param)?;
            let mut weight = weight(param, &blobs[0], overhangs[index])?;
            if index == 0 {
                weight.values = swapped(&weight.values, &weight.shape);
            }
            tensors.push(weight);
            let bias = vec![param.all_outputs()];
            tensors.push(tensor(param.bias_name(), bias, &blobs[1])?);
        }
        Ok(Tensors(tensors))
    }

    fn check_layers(&self, params: &[Param]) -> Result<()> {
        for (name, _) in &self.layers {
            if !params.iter().any(|p| p.name == *name) {
                return Err(checkpoint(format!(
                    "layer {name} is none of this network's {}",
                    params.len()
                )));
            }
            if self.layers.iter().filter(|(n, _)| n == name).count() > 1 {
                return Err(checkpoint(format!("layer {name} is in the file twice")));
            }
        }
        Ok(())
    }

    fn blobs(&self, param: &Param) -> Result<&[Blob]> {
        let found = self.layers.iter().find(|(name, _)| *name == param.name);
        let (name, blobs) =
            found.ok_or_else(|| checkpoint(format!("layer {} is missing", param.name)))?;
        if blobs.len() != 2 {
            return Err(checkpoint(format!(
                "layer {name}: expected 2 blobs (weights, bias), found {}",
                blobs.len()
            )));
        }
        Ok(blobs)
    }
}

/// By how much the kernels of each parameter are enlarged in a file.
fn overhangs(plan: &Plan) -> Result<Vec<usize>> {
    let mut found = vec![0; plan.params.len()];
    for node in nodes(plan)? {
        if let Op::Conv {
            param, overhang, ..
        } = node.op
        {
            found[param] = overhang;
        }
    }
    Ok(found)
}

/// The weights of a layer, of the network's own kernel or of one enlarged by `overhang`.
fn weight(param: &Param, blob: &Blob, overhang: usize) -> Result<Tensor> {
    let (name, shape) = (param.weight_name(), param.weight_shape());
    let mut enlarged = shape.clone();
    enlarged[2..].iter_mut().for_each(|side| *side += overhang);
    if overhang == 0 || blob.shape() != stated(&enlarged) {
        return tensor(name, shape, blob);
    }
    let file = tensor(name, enlarged, blob)?;
    let values = reduced(&file.values, param.kernel, overhang).ok_or_else(|| {
        checkpoint(format!(
            "tensor {}: expected shape {shape:?}, or {:?} with zeros in the first {overhang} rows and columns",
            file.name, file.shape
        ))
    })?;
    Ok(Tensor {
        shape,
        values,
        ..file
    })
}

/// A shape as [`Blob::shape`] gives it.
fn stated(shape: &[usize]) -> Vec<i64> {
    let shape = shape.iter().map(|&d| d as i64);
    shape.skip_while(|&d| d == 1).collect()
}

fn tensor(name: String, shape: Vec<usize>, blob: &Blob) -> Result<Tensor> {
    if blob.shape() != stated(&shape) {
        return Err(checkpoint(format!(
            "tensor {name}: expected shape {shape:?}, found {:?}",
            blob.shape()
        )));
    }
    let elements = shape.iter().product::<usize>();
    if blob.data.len() != elements {
        return Err(checkpoint(format!(
            "tensor {name}: expected {elements} values, found {}",
            blob.data.len()
        )));
    }
    if let Some(i) = blob.data.iter().position(|v| !v.is_finite()) {
        return Err(checkpoint(format!(
            "tensor {name}: element {i} is {}; expected finite numbers",
            blob.data[i]
        )));
    }
    Ok(Tensor {
        name,
        shape,
        values: blob.data.clone(),
    })
}

/// A mean image of Caffe (`imagenet_mean.binaryproto`) as statistics without colour variation.
///
/// # Errors
/// `Data`, with what is wrong.
pub fn caffe_mean(bytes: &[u8]) -> Result<Statistics> {
    let blob = Blob::decode(bytes).map_err(|e| data(format!("not a mean image of Caffe ({e})")))?;
    let shape = blob.shape();
    let [3, height, width] = shape[..] else {
        return Err(data(format!(
            "not a mean image of Caffe: expected shape [3, side, side], found {shape:?}"
        )));
    };
    let elements = usize::try_from(height.saturating_mul(width).saturating_mul(3));
    if height != width || elements != Ok(blob.data.len()) {
        return Err(data(format!(
            "not a mean image of Caffe: shape {shape:?} with {} values",
            blob.data.len()
        )));
    }
    if blob.data.iter().any(|v| !v.is_finite()) {
        return Err(data("the mean image holds NaN or infinity"));
    }
    let side = height as usize;
    let plane = side * side;
    Ok(Statistics {
        mean: (0..3 * plane)
            .map(|i| blob.data[(2 - i % 3) * plane + i / 3])
            .collect(),
        ..Statistics::zero(side)
    })
}
