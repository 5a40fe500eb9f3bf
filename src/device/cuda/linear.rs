//! Fully connected layers: cuBLAS multiplies, `kernels/linear.cu` does the rest.

use super::buffer::Element;
use super::cublas::Matrix;
use super::geometry::{Divider, activation_code, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::device::{Dropped, Sink};
use crate::error::Result;
use crate::network::op::{Linear, Sgd};

impl CudaDevice {
    #[allow(clippy::too_many_arguments)] // the operation's
    pub(super) fn launch_linear_forward(
        &mut self,
        op: &Linear,
        images: usize,
        x: &[&Buffer],
        weights: &[&Buffer],
        bias: &Buffer,
        dropped: Option<Dropped<'_, Buffer>>,
        y: &mut Buffer,
    ) -> Result<()> {
        let (depth, outputs, elements) = (op.depth(), op.outputs, images * op.outputs);
        self.expect_f32(&[bias])?;
        self.expect_parts(op.parts, x)?;
        let weights = self.operands(op.parts, weights, depth * outputs)?;
        let (element, bias) = (y.element(), self.input(bias, outputs)?);
        let y = self.output(y, elements)?;
        if elements == 0 {
            return Ok(());
        }
        // Sums of both parts, and with the bias, before they are rounded to 16 bits.
        let sums = match element {
            Element::F32 => y,
            _ => self.workspace(elements * 4)?,
        };
        for (part, (x, w)) in x.iter().zip(weights).enumerate() {
            // Here and no earlier: the own maps are multiplied while the other column's arrive.
            let x = x.operand(&self.home, images * depth)?;
            let (x, w) = (Matrix::new(x, depth), Matrix::new(w, outputs));
            let (keep, to) = (if part == 0 { 0.0 } else { 1.0 }, (Element::F32, sums));
            // SAFETY: the buffers were checked to hold matrices of these sizes, the work space one of sums.
            unsafe {
                self.blas
                    .multiply([images, depth, outputs], 1.0, x, w, keep, to)
            }?;
        }
        let (count, code, divider) = (
            int(elements)?,
            activation_code(op.activation),
            Divider::new(outputs)?,
        );
        let (kernels, grid) = (&self.kernels, Grid::for_each(elements));
        let Some(Dropped { op, mask }) = dropped else {
            let kernel = kernels.linear_bias.of(element);
            // SAFETY: as above.
            return unsafe {
                self.launch(
                    kernel,
                    grid,
                    arguments![sums, bias, y, count, code, divider],
                )
            };
        };
        let (given, place, stream, later) = self.dropout_arguments(op, elements, &mask)?;
        let (kernel, factor) = (kernels.linear_bias_dropout.of(element), op.training_scale());
        let arguments = arguments![
            sums, bias, y, count, code, divider, given, factor, place, stream, later
        ];
        // SAFETY: as above; a given mask was checked to hold as many elements.
        unsafe { self.launch(kernel, grid, arguments) }
    }

    pub(super) fn launch_linear_backward_data(
        &mut self,
        op: &Linear,
        images: usize,
        dy: &Buffer,
        weights: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        let (depth, outputs) = (op.depth(), op.outputs);
        let dy = Matrix::new(dy.operand(&self.home, images * outputs)?, outputs);
        let weights = Matrix::new(weights.operand(&self.home, depth * outputs)?, outputs);
        let dx = (dx.element(), self.output(dx, images * depth)?);
        if images == 0 {
            return Ok(());
        }
        // SAFETY: the buffers were checked to hold matrices of these sizes.
        unsafe {
            self.blas.multiply(
                [images, outputs, depth],
                1.0,
                dy,
                weights.transposed(),
                0.0,
                dx,
            )
        }
    }

    pub(super) fn launch_linear_backward_weights(
        &mut self,
        op: &Linear,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        sink: Sink<'_, Buffer>,
    ) -> Result<()> {
        let (depth, outputs) = (op.depth(), op.outputs);
        let x = Matrix::new(x.operand(&self.home, images * depth)?, depth).transposed();
        let dy = Matrix::new(dy.operand(&self.home, images * outputs)?, outputs);
        let sizes = [depth, images, outputs];
        match sink {
            Sink::Gradient { into, accumulate } => {
                let into = (into.element(), self.output(into, depth * outputs)?);
                let keep = if accumulate { 1.0 } else { 0.0 };
                // SAFETY: the buffers were checked to hold matrices of these sizes.
                unsafe { self.blas.multiply(sizes, 1.0, x, dy, keep, into) }
            }
            Sink::Update {
                weights,
                momentum,
                sgd,
            } => {
                self.expect_f32(&[weights, momentum])?;
                let place = (Element::F32, self.output(momentum, depth * outputs)?);
                // The product goes straight into v = momentum·v − rate·gradient; the rest of the rule follows.
                // SAFETY: as above.
                unsafe {
                    self.blas
                        .multiply(sizes, -sgd.rate, x, dy, sgd.momentum, place)
                }?;
                self.launch_linear_update(depth * outputs, weights, momentum, sgd)
            }
        }
    }

    fn launch_linear_update(
        &mut self,
        elements: usize,
        weights: &mut Buffer,
        momentum: &mut Buffer,
        sgd: Sgd,
    ) -> Result<()> {
        let (w, v) = (
            self.output(weights, elements)?,
            self.output(momentum, elements)?,
        );
        let (count, decay_rate) = (int(elements)?, sgd.decay * sgd.rate);
        let (element, copy) = weights.copy();
        // SAFETY: both buffers were checked to hold `elements`, and the copy holds as many as the weights.
        unsafe {
            self.launch(
                self.kernels.linear_update.of(element),
                Grid::for_quads(elements),
                arguments![w, v, copy, count, decay_rate],
            )
        }
    }
}
