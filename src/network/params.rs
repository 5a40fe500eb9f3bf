//! Parameters: the whole tensors that leave the program, and each column's share of them.
//!
//! Whole tensors have the shapes of the grouped form (groups = 2) that Caffe's BVLC AlexNet and
//! grouped PyTorch modules use: `[outputs, inputs, kernel, kernel]` or `[outputs, inputs]`, rows
//! of column 0 first. A column's share is one matrix per part of its input (its own column's part
//! first), in the layout of [`super::op`].

use super::layer::Layer;
use super::op::Shape;
use crate::error::{Result, checkpoint};
use crate::random::{Key, Purpose};
use rayon::prelude::*;

/// Weights and bias of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// The layer's name: tensors are `NAME.weight` and `NAME.bias`.
    pub name: String,
    /// Kernel side of a convolution; 0 in a fully connected layer.
    pub kernel: usize,
    /// Columns that hold a share.
    pub columns: usize,
    /// Parts of a share: the columns whose maps the layer reads.
    pub parts: usize,
    /// One part of the input of one image.
    pub input: Shape,
    /// One column's output of one image.
    pub output: Shape,
    /// Standard deviation of the initial weights and the initial bias.
    pub sigma: f64,
    pub bias: f32,
    /// The layer's factors of learning rate and decay, see [`Layer`].
    pub layer: Layer,
}

impl Param {
    pub(super) fn new(
        name: &str,
        layer: &Layer,
        columns: usize,
        parts: usize,
        input: Shape,
        output: Shape,
    ) -> Self {
        Param {
            name: name.into(),
            kernel: layer.kernel,
            columns,
            parts,
            input,
            output,
            sigma: layer.sigma,
            bias: layer.bias,
            layer: layer.clone(),
        }
    }

    /// Outputs of one column.
    pub fn outputs(&self) -> usize {
        self.output.maps
    }

    /// Outputs of all columns: rows of the whole tensor.
    pub fn all_outputs(&self) -> usize {
        self.columns * self.outputs()
    }

    /// Rows of one part's matrix.
    pub fn depth(&self) -> usize {
        if self.kernel > 0 {
            self.kernel * self.kernel * self.input.maps
        } else {
            self.input.len()
        }
    }

    /// Inputs of one output.
    pub fn fan_in(&self) -> usize {
        self.parts * self.depth()
    }

    /// Weights and biases of all columns.
    pub fn elements(&self) -> usize {
        self.all_outputs() * (self.fan_in() + 1)
    }

    /// Multiply-adds of one image, forward, all columns.
    pub fn multiply_adds(&self) -> usize {
        self.fan_in() * self.all_outputs() * self.output.pixels()
    }

    /// Shape of the whole weight tensor.
    pub fn weight_shape(&self) -> Vec<usize> {
        if self.kernel > 0 {
            vec![
                self.all_outputs(),
                self.parts * self.input.maps,
                self.kernel,
                self.kernel,
            ]
        } else {
            vec![self.all_outputs(), self.fan_in()]
        }
    }

    /// "conv1.weight" and "conv1.bias".
    pub fn weight_name(&self) -> String {
        format!("{}.weight", self.name)
    }

    pub fn bias_name(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// Place in a whole tensor's row of the input of `part`, matrix row `row`, for `column`.
    fn whole_index(&self, column: usize, part: usize, row: usize) -> usize {
        let source = if self.parts > 1 {
            (column + part) % self.parts
        } else {
            0
        };
        let (pixel, map) = (row / self.input.maps, row % self.input.maps);
        let pixels = if self.kernel > 0 {
            self.kernel * self.kernel
        } else {
            self.input.pixels()
        };
        (source * self.input.maps + map) * pixels + pixel
    }

    /// A column's matrix of one part, `[depth, outputs]`, out of the whole weight tensor.
    pub fn matrix(&self, column: usize, part: usize, whole: &[f32]) -> Vec<f32> {
        let (outputs, fan_in) = (self.outputs(), self.fan_in());
        let rows = &whole[column * outputs * fan_in..][..outputs * fan_in];
        let mut matrix = vec![0.0; self.depth() * outputs];
        matrix
            .par_chunks_mut(outputs)
            .enumerate()
            .for_each(|(row, target)| {
                let index = self.whole_index(column, part, row);
                for (output, value) in target.iter_mut().enumerate() {
                    *value = rows[output * fan_in + index];
                }
            });
        matrix
    }

    /// Puts a column's matrix of one part in its place in the whole weight tensor.
    pub fn put_matrix(&self, column: usize, part: usize, matrix: &[f32], whole: &mut [f32]) {
        let (outputs, fan_in, depth) = (self.outputs(), self.fan_in(), self.depth());
        let rows = &mut whole[column * outputs * fan_in..][..outputs * fan_in];
        rows.par_chunks_mut(fan_in)
            .enumerate()
            .for_each(|(output, target)| {
                for row in 0..depth {
                    target[self.whole_index(column, part, row)] = matrix[row * outputs + output];
                }
            });
    }

    /// Initial weights N(0, σ²), drawn whole, so that they do not depend on the split.
    pub fn initial_weights(&self, index: usize, seed: u64) -> Vec<f32> {
        let key = Key::new(seed, Purpose::Weights);
        let mut whole = vec![0.0; self.all_outputs() * self.fan_in()];
        whole
            .par_chunks_mut(self.fan_in())
            .enumerate()
            .for_each(|(row, values)| {
                let mut stream = key.stream(index as u32, row as u64);
                for value in values {
                    *value = (f64::from(stream.normal()) * self.sigma) as f32;
                }
            });
        whole
    }
}

/// A named whole tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// A set of whole tensors, in the order of the layers: `conv1.weight`, `conv1.bias`, ….
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tensors(pub Vec<Tensor>);

impl Tensors {
    /// The initial parameters of a plan.
    pub fn initial(params: &[Param], seed: u64) -> Self {
        Self::for_each(params, |index, param, is_bias| {
            if is_bias {
                vec![param.bias; param.all_outputs()]
            } else {
                param.initial_weights(index, seed)
            }
        })
    }

    /// Zeros of the shapes of a plan's parameters: the initial momentum.
    pub fn zeros(params: &[Param]) -> Self {
        Self::for_each(params, |_, param, is_bias| {
            vec![0.0; param.all_outputs() * if is_bias { 1 } else { param.fan_in() }]
        })
    }

    fn for_each(params: &[Param], mut values: impl FnMut(usize, &Param, bool) -> Vec<f32>) -> Self {
        let mut tensors = Vec::with_capacity(2 * params.len());
        for (index, param) in params.iter().enumerate() {
            tensors.push(Tensor {
                name: param.weight_name(),
                shape: param.weight_shape(),
                values: values(index, param, false),
            });
            tensors.push(Tensor {
                name: param.bias_name(),
                shape: vec![param.all_outputs()],
                values: values(index, param, true),
            });
        }
        Tensors(tensors)
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|tensor| tensor.name == name)
    }

    /// The tensor of this name, which must be of this shape.
    ///
    /// # Errors
    /// `Checkpoint`, naming the tensor, what was expected and what was found.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<&Tensor> {
        let tensor = self.get(name).ok_or_else(|| {
            checkpoint(format!(
                "tensor {name} is missing (expected shape {shape:?})"
            ))
        })?;
        if tensor.shape != shape {
            return Err(checkpoint(format!(
                "tensor {name}: expected shape {shape:?}, found {:?}",
                tensor.shape
            )));
        }
        Ok(tensor)
    }

    /// Whether no value is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        let finite = |t: &Tensor| t.values.iter().all(|v| v.is_finite());
        self.0.par_iter().all(finite)
    }

    /// Whether every tensor of the plan is there with its shape, and no other.
    pub fn check_only(&self, params: &[Param]) -> Result<()> {
        self.check(params)?;
        let known = |t: &Tensor| {
            let layer = t
                .name
                .strip_suffix(".weight")
                .or(t.name.strip_suffix(".bias"));
            params.iter().any(|p| Some(p.name.as_str()) == layer)
        };
        match self.0.iter().find(|t| !known(t)) {
            None => Ok(()),
            Some(t) => Err(checkpoint(format!(
                "tensor {} of shape {:?} is not one of the network's: expected only the weights and biases of {}",
                t.name,
                t.shape,
                params
                    .iter()
                    .map(|p| p.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ))),
        }
    }

    /// Whether every tensor of the plan is there with its shape.
    pub fn check(&self, params: &[Param]) -> Result<()> {
        for param in params {
            self.expect(&param.weight_name(), &param.weight_shape())?;
            self.expect(&param.bias_name(), &[param.all_outputs()])?;
        }
        Ok(())
    }
}
