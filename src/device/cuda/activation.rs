//! Activations apart from the layers that fuse them; `kernels/activation.cu`.

use super::geometry::{activation_code, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::error::Result;
use crate::network::op::Activation;

impl CudaDevice {
    pub(super) fn launch_activation_forward(
        &mut self,
        activation: Activation,
        elements: usize,
        y: &mut Buffer,
    ) -> Result<()> {
        let element = y.element();
        let (y, count, code) = (
            self.output(y, elements)?,
            int(elements)?,
            activation_code(Some(activation)),
        );
        // SAFETY: the buffer was checked to hold `elements`.
        unsafe {
            self.launch(
                self.kernels.activation_forward.of(element),
                Grid::for_quads(elements),
                arguments![y, count, code],
            )
        }
    }

    pub(super) fn launch_activation_backward(
        &mut self,
        activation: Activation,
        elements: usize,
        y: &Buffer,
        dy: &mut Buffer,
    ) -> Result<()> {
        let element = self.type_of(&[y, dy])?;
        let (y, dy) = (self.input(y, elements)?, self.output(dy, elements)?);
        let (count, code) = (int(elements)?, activation_code(Some(activation)));
        // SAFETY: both buffers were checked to hold `elements`.
        unsafe {
            self.launch(
                self.kernels.activation_backward.of(element),
                Grid::for_quads(elements),
                arguments![y, dy, count, code],
            )
        }
    }
}
