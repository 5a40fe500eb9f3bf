//! The update; `kernels/sgd.cu`.

use super::geometry::{argument_types, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
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

impl CudaDevice {
    pub(super) fn launch_sgd(
        &mut self,
        op: &Sgd,
        elements: usize,
        weights: &mut Buffer,
        momentum: &mut Buffer,
        gradient: &Buffer,
    ) -> Result<()> {
        let (w, v) = (
            self.output(weights, elements)?,
            self.output(momentum, elements)?,
        );
        let (g, count) = (self.input(gradient, elements)?, int(elements)?);
        let constants = SgdConstants {
            rate: op.rate,
            momentum: op.momentum,
            decay: op.decay,
        };
        // SAFETY: all three buffers were checked to hold `elements`.
        unsafe {
            self.launch(
                &self.kernels.sgd,
                Grid::for_quads(elements),
                arguments![w, v, g, count, constants],
            )
        }
    }
}
