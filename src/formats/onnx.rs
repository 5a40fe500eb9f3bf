//! ONNX export: the one-piece network with real LRN, grouped Conv and Softmax nodes.
//!
//! Input `image`, `[N, 3, side, side]`: RGB on the 0–255 scale, the mean image subtracted. Output
//! `probabilities`, `[N, classes]`. ONNX divides LRN's α by the window's size, so α is written
//! times that size: the paper's 1e-4 as 5e-4.

use super::graph::{Node as Layer, Op, nodes};
use super::onnx_proto::{
    Attribute, Dimension, Entry, Graph, Model, Node, OperatorSet, Tensor, TensorShape, TensorType,
    Type, ValueInfo,
};
use crate::config::Config;
use crate::error::Result;
use crate::network::op::{Activation, Lrn, Window};
use crate::network::params::{Param, Tensors};
use crate::network::plan::Plan;
use prost::Message;

/// The operator set that the file is written for.
pub const OPSET: i64 = 13;
/// The file format that goes with it.
const IR_VERSION: i64 = 7;
const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// The file's bytes; configuration and names of the classes are in its metadata.
///
/// # Errors
/// `Usage` where the network has no ONNX form; `Checkpoint` where a tensor does not fit.
pub fn onnx(config: &Config, parameters: &Tensors, classes: &[String]) -> Result<Vec<u8>> {
    let plan = config.plan()?;
    let mut writer = Writer::new(&plan, parameters);
    for layer in nodes(&plan)? {
        writer.layer(&layer)?;
    }
    writer.node("softmax", "Softmax", vec![int("axis", 1)], vec![]);
    let output = std::mem::take(&mut writer.current);
    if let Some(last) = writer.graph.node.last_mut() {
        last.output = vec!["probabilities".into()];
    }
    debug_assert_eq!(output, "softmax");
    let side = plan.image as i64;
    writer.graph.input = vec![value("image", &[3, side, side])];
    writer.graph.output = vec![value("probabilities", &[plan.classes as i64])];
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "alexnet-mp".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: "Input: RGB, 0 to 255, the mean image subtracted. Output: class probabilities."
            .into(),
        graph: Some(writer.graph),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: OPSET,
        }],
        metadata_props: vec![
            entry("config", config.to_toml()),
            entry("classes", serde_json::json!(classes).to_string()),
        ],
    };
    Ok(model.encode_to_vec())
}

/// Builds the graph node by node, each reading the output of the one before.
struct Writer<'a> {
    plan: &'a Plan,
    parameters: &'a Tensors,
    graph: Graph,
    current: String,
    /// Maps of the current value, and whether it has rows and columns.
    maps: usize,
    flat: bool,
}

impl<'a> Writer<'a> {
    fn new(plan: &'a Plan, parameters: &'a Tensors) -> Self {
        Writer {
            plan,
            parameters,
            graph: Graph {
                name: "alexnet".into(),
                ..Graph::default()
            },
            current: "image".into(),
            maps: 3,
            flat: false,
        }
    }

    fn layer(&mut self, layer: &Layer) -> Result<()> {
        let name = layer.layer.as_str();
        match &layer.op {
            Op::Conv {
                param,
                groups,
                window,
                overhang,
            } => self.conv(*param, *groups, *window, *overhang),
            Op::Linear { param } => self.linear(*param),
            Op::Activation(kind) => {
                let op = match kind {
                    Activation::Relu => "Relu",
                    Activation::Tanh => "Tanh",
                };
                self.node(&format!("{name}.{}", op.to_lowercase()), op, vec![], vec![]);
                Ok(())
            }
            Op::Lrn { rule, groups } => {
                self.lrn(name, rule, *groups);
                Ok(())
            }
            Op::LocalNorm {
                size,
                k,
                alpha,
                beta,
            } => {
                self.local_norm(name, *size, *k, *alpha, *beta);
                Ok(())
            }
            Op::Pool { size, stride } => {
                let attributes = vec![
                    ints("kernel_shape", &[*size; 2]),
                    ints("strides", &[*stride; 2]),
                    int("ceil_mode", 1),
                ];
                self.node(&format!("{name}.pool"), "MaxPool", attributes, vec![]);
                Ok(())
            }
            Op::Scale(factor) => {
                let constant = self.constant(&format!("{name}.dropout.factor"), *factor);
                let name = format!("{name}.dropout");
                self.node(&name, "Mul", vec![], vec![constant]);
                Ok(())
            }
        }
    }

    /// Adds a node that reads the current value and `more`; its output, named like it, is the
    /// current value then.
    fn node(&mut self, name: &str, op: &str, attribute: Vec<Attribute>, more: Vec<String>) {
        let first = std::mem::replace(&mut self.current, name.into());
        self.graph.node.push(Node {
            input: std::iter::once(first).chain(more).collect(),
            output: vec![name.into()],
            name: name.into(),
            op_type: op.into(),
            attribute,
        });
    }

    fn weights(&mut self, param: &Param) -> Result<Vec<String>> {
        let weight = self
            .parameters
            .expect(&param.weight_name(), &param.weight_shape())?;
        let bias = self
            .parameters
            .expect(&param.bias_name(), &[param.all_outputs()])?;
        for tensor in [weight, bias] {
            self.graph
                .initializer
                .push(floats(&tensor.name, &tensor.shape, &tensor.values));
        }
        Ok(vec![weight.name.clone(), bias.name.clone()])
    }

    fn constant(&mut self, name: &str, value: f32) -> String {
        self.graph.initializer.push(floats(name, &[], &[value]));
        name.into()
    }

    /// A constant vector.
    fn integers(&mut self, name: &str, values: &[usize]) -> String {
        self.graph.initializer.push(Tensor {
            dims: vec![values.len() as i64],
            data_type: INT64,
            name: name.into(),
            raw_data: values
                .iter()
                .flat_map(|&v| (v as i64).to_le_bytes())
                .collect(),
        });
        name.into()
    }

    fn conv(&mut self, param: usize, groups: usize, window: Window, overhang: usize) -> Result<()> {
        let param = &self.plan.params[param];
        let inputs = self.weights(param)?;
        let (pad, end) = (window.pad, window.pad + overhang);
        let attributes = vec![
            ints("kernel_shape", &[window.size; 2]),
            ints("strides", &[window.stride; 2]),
            ints("pads", &[pad, pad, end, end]),
            int("group", groups as i64),
        ];
        self.node(&param.name, "Conv", attributes, inputs);
        self.maps = param.all_outputs();
        Ok(())
    }

    fn linear(&mut self, param: usize) -> Result<()> {
        let param = &self.plan.params[param];
        if !self.flat {
            self.node("flatten", "Flatten", vec![int("axis", 1)], vec![]);
            self.flat = true;
        }
        let inputs = self.weights(param)?;
        self.node(&param.name, "Gemm", vec![int("transB", 1)], inputs);
        self.maps = param.all_outputs();
        Ok(())
    }

    fn lrn(&mut self, layer: &str, rule: &Lrn, groups: usize) {
        let attributes = || {
            vec![
                int("size", rule.size as i64),
                float("alpha", rule.alpha * rule.size as f32),
                float("beta", rule.beta),
                float("bias", rule.k),
            ]
        };
        let name = format!("{layer}.lrn");
        if groups == 1 {
            self.node(&name, "LRN", attributes(), vec![]);
            return;
        }
        let sizes = vec![self.maps / groups; groups];
        let sizes = self.integers(&format!("{name}.sizes"), &sizes);
        let halves: Vec<String> = (0..groups).map(|g| format!("{layer}.column{g}")).collect();
        self.node(
            &format!("{layer}.split"),
            "Split",
            vec![int("axis", 1)],
            vec![sizes],
        );
        if let Some(split) = self.graph.node.last_mut() {
            split.output.clone_from(&halves);
        }
        let mut normed = Vec::new();
        for half in halves {
            let name = format!("{half}.lrn");
            self.current = half;
            self.node(&name, "LRN", attributes(), vec![]);
            normed.push(name);
        }
        self.current = normed.remove(0);
        self.node(&name, "Concat", vec![int("axis", 1)], normed);
    }

    /// `x / (k + α·size²·mean(x²))^β`, the mean over the square with zeros around the map. They
    /// are a node of their own, as OpenCV leaves the padding out of an `AveragePool`'s mean.
    fn local_norm(&mut self, layer: &str, size: usize, k: f32, alpha: f32, beta: f32) {
        let x = self.current.clone();
        let at = |step: &str| format!("{layer}.local_norm.{step}");
        let (before, after) = (size / 2, (size - 1) / 2);
        self.node(&at("square"), "Mul", vec![], vec![x.clone()]);
        let pads = [0, 0, before, before, 0, 0, after, after];
        let pads = self.integers(&at("pads"), &pads);
        self.node(&at("padded"), "Pad", vec![], vec![pads]);
        let window = vec![ints("kernel_shape", &[size; 2]), ints("strides", &[1; 2])];
        self.node(&at("mean"), "AveragePool", window, vec![]);
        let factor = self.constant(&at("alpha"), alpha * (size * size) as f32);
        self.node(&at("scaled"), "Mul", vec![], vec![factor]);
        let k = self.constant(&at("k"), k);
        self.node(&at("sum"), "Add", vec![], vec![k]);
        let beta = self.constant(&at("beta"), beta);
        self.node(&at("power"), "Pow", vec![], vec![beta]);
        let power = std::mem::replace(&mut self.current, x);
        self.node(&format!("{layer}.local_norm"), "Div", vec![], vec![power]);
    }
}

fn entry(key: &str, value: String) -> Entry {
    let key = key.into();
    Entry { key, value }
}

fn int(name: &str, value: i64) -> Attribute {
    Attribute {
        name: name.into(),
        i: Some(value),
        kind: 2,
        ..Attribute::default()
    }
}

fn float(name: &str, value: f32) -> Attribute {
    Attribute {
        name: name.into(),
        f: Some(value),
        kind: 1,
        ..Attribute::default()
    }
}

fn ints(name: &str, values: &[usize]) -> Attribute {
    Attribute {
        name: name.into(),
        ints: values.iter().map(|&v| v as i64).collect(),
        kind: 7,
        ..Attribute::default()
    }
}

fn floats(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor {
        dims: shape.iter().map(|&d| d as i64).collect(),
        data_type: FLOAT,
        name: name.into(),
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

/// A float value of any number of images.
fn value(name: &str, shape: &[i64]) -> ValueInfo {
    let images = Dimension {
        dim_param: Some("N".into()),
        ..Dimension::default()
    };
    let fixed = shape.iter().map(|&d| Dimension {
        dim_value: Some(d),
        ..Dimension::default()
    });
    ValueInfo {
        name: name.into(),
        kind: Some(Type {
            tensor_type: Some(TensorType {
                elem_type: FLOAT,
                shape: Some(TensorShape {
                    dim: std::iter::once(images).chain(fixed).collect(),
                }),
            }),
        }),
    }
}
