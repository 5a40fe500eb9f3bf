//! Scaling and adding of buffers; `kernels/arithmetic.cu`.

use super::geometry::int;
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::error::Result;

impl CudaDevice {
    pub(super) fn launch_scale(
        &mut self,
        elements: usize,
        factor: f32,
        y: &mut Buffer,
    ) -> Result<()> {
        let element = y.element();
        let (y, count) = (self.output(y, elements)?, int(elements)?);
        // SAFETY: the buffer was checked to hold `elements`.
        unsafe {
            self.launch(
                self.kernels.scale.of(element),
                Grid::for_quads(elements),
                arguments![y, count, factor],
            )
        }
    }

    pub(super) fn launch_add(
        &mut self,
        elements: usize,
        from: &Buffer,
        into: &mut Buffer,
    ) -> Result<()> {
        let element = self.type_of(&[from, into])?;
        let (from, into, count) = (
            self.input(from, elements)?,
            self.output(into, elements)?,
            int(elements)?,
        );
        // SAFETY: both buffers were checked to hold `elements`.
        unsafe {
            self.launch(
                self.kernels.add.of(element),
                Grid::for_quads(elements),
                arguments![from, into, count],
            )
        }
    }
}
