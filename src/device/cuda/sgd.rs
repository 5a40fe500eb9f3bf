//! The update; `kernels/sgd.cu`.

use super::geometry::{Pointer, argument_types, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::device::Rule;
use crate::error::Result;
use crate::network::op::Sgd;

#[derive(Clone, Copy)]
#[repr(C)]
struct SgdConstants {
    rate: f32,
    momentum: f32,
    decay: f32,
}
argument_types!(SgdConstants);

/// Floats of the constants in a table.
const CONSTANTS: usize = 3;

impl CudaDevice {
    pub(super) fn launch_sgd(
        &mut self,
        rule: &Rule<'_, Buffer>,
        elements: usize,
        weights: &mut Buffer,
        momentum: &mut Buffer,
        gradient: &Buffer,
        loss_scale: Option<&Buffer>,
    ) -> Result<()> {
        self.expect_f32(&[weights, momentum, gradient])?;
        let (w, v) = (
            self.output(weights, elements)?,
            self.output(momentum, elements)?,
        );
        let (g, count) = (self.input(gradient, elements)?, int(elements)?);
        let (element, copy) = weights.copy();
        let scaling = self.loss_scale(loss_scale)?;
        let (op, later) = match rule {
            Rule::Now(op) => (**op, Pointer::NULL),
            Rule::Later { table, place } => {
                let first = self.input(table, CONSTANTS * (place + 1))?;
                (Sgd::default(), first.offset(4 * CONSTANTS * place))
            }
        };
        let constants = SgdConstants {
            rate: op.rate,
            momentum: op.momentum,
            decay: op.decay,
        };
        // SAFETY: all three buffers were checked to hold `elements`, the copy holds as many, and the table its place.
        unsafe {
            self.launch(
                self.kernels.sgd.of(element),
                Grid::for_quads(elements),
                arguments![w, v, g, copy, count, constants, later, scaling],
            )
        }
    }
}
