//! Caffe export: a prototxt and a caffemodel that Caffe and OpenCV 4's reader both compute alike.
//!
//! Two things are written another way round, each exactly:
//! - OpenCV ignores `lrn_param.k` and takes 1. `a / (k + α·S)^β = k^−β · a / (1 + α/k·S)^β`, so k
//!   is written as 1, α as α/k, and k^−β as a layer of its own. α is written times the window's
//!   size, by which Caffe divides it.
//! - Caffe pads both sides alike. Where a kernel reads r zeros beyond the right and bottom edges,
//!   it is written r larger with zeros in its first rows and columns, and padded by r more.
//!
//! Factors, dropout's at test time among them, are `Power` layers and never multiplied into
//! weights: rounding would change bits that [`super::from_caffe`] could not give back.
//!
//! Input `data`, `[N, 3, side, side]`: blue, green, red on the 0–255 scale, the mean image
//! subtracted; output `prob`.

use super::caffe_proto::{Blob, Layer, Net};
use super::graph::{Node, Op, nodes};
use crate::config::Config;
use crate::error::{Result, usage};
use crate::network::op::{Activation, Lrn, Window};
use crate::network::params::{Param, Tensors};
use crate::network::plan::Plan;
use prost::Message;
use std::fmt::Write;

/// The two files of a Caffe network.
pub struct CaffeFiles {
    pub prototxt: String,
    pub caffemodel: Vec<u8>,
}

/// Writes a network; its configuration and the names of its classes go with it, in fields that
/// other readers skip.
///
/// # Errors
/// `Usage` where it has no Caffe form; `Checkpoint` where a tensor does not fit.
pub fn caffe(config: &Config, parameters: &Tensors, classes: &[String]) -> Result<CaffeFiles> {
    let plan = config.plan()?;
    let mut writer = Writer::new(&plan, parameters);
    writer.net.config = config.to_toml();
    writer.net.classes = classes.to_vec();
    for node in nodes(&plan)? {
        writer.node(&node)?;
    }
    writer.layer("prob", "Softmax", "");
    Ok(CaffeFiles {
        prototxt: writer.text,
        caffemodel: writer.net.encode_to_vec(),
    })
}

struct Writer<'a> {
    plan: &'a Plan,
    parameters: &'a Tensors,
    text: String,
    net: Net,
    /// The blob that the next layer reads, and its maps.
    current: String,
    maps: usize,
}

impl<'a> Writer<'a> {
    fn new(plan: &'a Plan, parameters: &'a Tensors) -> Self {
        let side = plan.image;
        let text = format!(
            "# Written by alexnet-mp. Input: blue, green, red, 0 to 255, the mean image subtracted.\n\
             name: \"AlexNet\"\n\
             layer {{\n  name: \"data\"\n  type: \"Input\"\n  top: \"data\"\n  \
             input_param {{ shape: {{ dim: 1 dim: 3 dim: {side} dim: {side} }} }}\n}}\n"
        );
        Writer {
            plan,
            parameters,
            text,
            net: Net {
                name: "AlexNet".into(),
                ..Net::default()
            },
            current: "data".into(),
            maps: 3,
        }
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let name = node.layer.as_str();
        match &node.op {
            Op::Conv {
                param,
                groups,
                window,
                overhang,
            } => return self.conv(*param, *groups, *window, *overhang),
            Op::Linear { param } => return self.linear(*param),
            Op::Activation(Activation::Relu) => {
                self.layer(&format!("{name}_relu"), "ReLU", "");
            }
            Op::Activation(Activation::Tanh) => {
                self.layer(&format!("{name}_tanh"), "TanH", "");
            }
            Op::Lrn { rule, groups } => self.lrn(name, rule, *groups),
            Op::LocalNorm {
                size,
                k,
                alpha,
                beta,
            } => {
                let squares = (size * size) as f64;
                let text = norm(*size, (*k, *alpha, *beta), squares, "WITHIN_CHANNEL");
                self.layer(&format!("{name}_local_norm"), "LRN", &text);
                self.scale(
                    &format!("{name}_local_norm"),
                    f64::from(*k).powf(-f64::from(*beta)),
                );
            }
            Op::Pool { size, stride } => {
                let text = format!(
                    "  pooling_param {{ pool: MAX kernel_size: {size} stride: {stride} }}\n"
                );
                self.layer(&format!("{name}_pool"), "Pooling", &text);
            }
            Op::Scale(factor) => self.scale(&format!("{name}_dropout"), f64::from(*factor)),
        }
        Ok(())
    }

    /// Adds a layer that reads the current blob; its output is the current blob then.
    fn layer(&mut self, name: &str, kind: &str, parameters: &str) {
        let bottom = std::mem::replace(&mut self.current, name.into());
        self.write(name, kind, &[&bottom], &[name], parameters);
    }

    fn write(&mut self, name: &str, kind: &str, bottom: &[&str], top: &[&str], parameters: &str) {
        let list = |key: &str, names: &[&str]| {
            let lines = names.iter().map(|n| format!("  {key}: \"{n}\"\n"));
            lines.collect::<String>()
        };
        let (bottom, top) = (list("bottom", bottom), list("top", top));
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "layer {{\n  name: \"{name}\"\n  type: \"{kind}\"\n{bottom}{top}{parameters}}}"
        );
    }

    /// Multiplies the current blob by a factor.
    fn scale(&mut self, name: &str, factor: f64) {
        if factor != 1.0 {
            let text = format!("  power_param {{ power: 1 scale: {factor} shift: 0 }}\n");
            self.layer(&format!("{name}_scale"), "Power", &text);
        }
    }

    fn lrn(&mut self, layer: &str, rule: &Lrn, groups: usize) {
        let constants = (rule.k, rule.alpha, rule.beta);
        let text = norm(rule.size, constants, rule.size as f64, "ACROSS_CHANNELS");
        let name = format!("{layer}_norm");
        if groups == 1 {
            self.layer(&name, "LRN", &text);
        } else {
            let halves: Vec<String> = (0..groups).map(|g| format!("{layer}_column{g}")).collect();
            let halves: Vec<&str> = halves.iter().map(String::as_str).collect();
            let points: String = (1..groups)
                .map(|g| format!(" slice_point: {}", self.maps / groups * g))
                .collect();
            let slice = format!("  slice_param {{ axis: 1{points} }}\n");
            let bottom = self.current.clone();
            self.write(
                &format!("{layer}_slice"),
                "Slice",
                &[&bottom],
                &halves,
                &slice,
            );
            let normed: Vec<String> = halves.iter().map(|h| format!("{h}_norm")).collect();
            for (half, normed) in halves.iter().zip(&normed) {
                self.write(normed, "LRN", &[half], &[normed], &text);
            }
            let normed: Vec<&str> = normed.iter().map(String::as_str).collect();
            let concat = "  concat_param { axis: 1 }\n";
            self.write(&name, "Concat", &normed, &[&name], concat);
            self.current.clone_from(&name);
        }
        self.scale(&name, f64::from(rule.k).powf(-f64::from(rule.beta)));
    }

    fn conv(&mut self, param: usize, groups: usize, window: Window, overhang: usize) -> Result<()> {
        let param = &self.plan.params[param];
        let (size, pad) = (window.size + overhang, window.pad + overhang);
        if pad >= size {
            return Err(usage(format!(
                "layers.{}: its padding cannot be written for Caffe",
                param.name
            )));
        }
        let weight = self.weight(param)?;
        let mut shape = param.weight_shape();
        let weight = enlarged(weight, window.size, overhang);
        shape[2..].fill(size);
        let weight = if self.current == "data" {
            swapped(&weight, &shape)
        } else {
            weight
        };
        let text = format!(
            "  convolution_param {{ num_output: {} kernel_size: {size} stride: {} pad: {pad} group: {groups} }}\n",
            param.all_outputs(),
            window.stride
        );
        self.blobs(param, "Convolution", &shape, weight)?;
        self.layer(&param.name, "Convolution", &text);
        self.maps = param.all_outputs();
        Ok(())
    }

    fn linear(&mut self, param: usize) -> Result<()> {
        let param = &self.plan.params[param];
        let weight = self.weight(param)?.to_vec();
        let outputs = param.all_outputs();
        self.blobs(param, "InnerProduct", &param.weight_shape(), weight)?;
        let text = format!("  inner_product_param {{ num_output: {outputs} }}\n");
        self.layer(&param.name, "InnerProduct", &text);
        self.maps = outputs;
        Ok(())
    }

    fn weight(&self, param: &Param) -> Result<&[f32]> {
        let shape = param.weight_shape();
        let weight = self.parameters.expect(&param.weight_name(), &shape)?;
        Ok(&weight.values)
    }

    fn blobs(
        &mut self,
        param: &Param,
        kind: &str,
        shape: &[usize],
        weight: Vec<f32>,
    ) -> Result<()> {
        let outputs = param.all_outputs();
        let bias = self.parameters.expect(&param.bias_name(), &[outputs])?;
        self.net.layer.push(Layer {
            name: param.name.clone(),
            kind: kind.into(),
            blobs: vec![
                Blob::new(shape, weight),
                Blob::new(&[outputs], bias.values.clone()),
            ],
        });
        Ok(())
    }
}

/// `lrn_param` of a norm with k written as 1; Caffe divides α by `divisor`.
fn norm(size: usize, (k, alpha, beta): (f32, f32, f32), divisor: f64, region: &str) -> String {
    let alpha = (f64::from(alpha) / f64::from(k) * divisor) as f32;
    format!(
        "  lrn_param {{ local_size: {size} alpha: {alpha} beta: {beta} k: 1 norm_region: {region} }}\n"
    )
}

/// Square kernels with `more` rows and columns of zeros before their own.
fn enlarged(weight: &[f32], size: usize, more: usize) -> Vec<f32> {
    if more == 0 {
        return weight.to_vec();
    }
    let side = size + more;
    let mut out = vec![0.0; weight.len() / (size * size) * side * side];
    for (from, into) in weight
        .chunks_exact(size * size)
        .zip(out.chunks_exact_mut(side * side))
    {
        for (row, values) in from.chunks_exact(size).enumerate() {
            into[(row + more) * side + more..][..size].copy_from_slice(values);
        }
    }
    out
}

/// Undoes [`enlarged`]: square kernels of `size` without their first `more` rows and columns;
/// none where those hold anything but zeros.
pub(super) fn reduced(weight: &[f32], size: usize, more: usize) -> Option<Vec<f32>> {
    let side = size + more;
    let mut out = Vec::with_capacity(weight.len() / (side * side) * size * size);
    for kernel in weight.chunks_exact(side * side) {
        for (i, &value) in kernel.iter().enumerate() {
            if i / side >= more && i % side >= more {
                out.push(value);
            } else if value != 0.0 {
                return None;
            }
        }
    }
    Some(out)
}

/// Weights `[outputs, 3, …]` for input whose red and blue are exchanged.
pub(super) fn swapped(weight: &[f32], shape: &[usize]) -> Vec<f32> {
    let plane: usize = shape[2..].iter().product();
    weight
        .chunks_exact(3 * plane)
        .flat_map(|kernel| [2, 1, 0].map(|c| &kernel[c * plane..][..plane]))
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enlarged_kernels_begin_with_zeros() {
        #[rustfmt::skip]
        let expected = [
            0.0, 0.0, 0.0,
            0.0, 1.0, 2.0,
            0.0, 3.0, 4.0,
        ];
        assert_eq!(enlarged(&[1.0, 2.0, 3.0, 4.0], 2, 1), expected);
        assert_eq!(
            reduced(&expected, 2, 1).unwrap(),
            [1.0, 2.0, 3.0, 4.0],
            "and are reduced again"
        );
        assert_eq!(reduced(&[1.0; 9], 2, 1), None);
    }

    #[test]
    fn swapping_twice_changes_nothing() {
        let weight: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let shape = [2, 3, 2, 2];
        let once = swapped(&weight, &shape);
        assert_eq!(once[..4], [8.0, 9.0, 10.0, 11.0]);
        assert_eq!(swapped(&once, &shape), weight);
    }
}
