//! The network's input from 8-bit crops; `kernels/augment.cu`.

use super::geometry::{Divider, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice, Input};
use crate::error::Result;

impl CudaDevice {
    pub(super) fn launch_augment(
        &mut self,
        images: usize,
        input: &Input,
        side: usize,
        mean: &Buffer,
        x: &mut Buffer,
    ) -> Result<()> {
        let pixels = images * input.crop() * input.crop();
        int(pixels * 3)?;
        self.expect_f32(&[mean])?;
        let element = x.element();
        let (mean, x) = (
            self.input(mean, side * side * 3)?,
            self.output(x, pixels * 3)?,
        );
        let (count, side, crop) = (int(images)?, int(side)?, Divider::new(input.crop())?);
        let from = self.input_places(input, images)?;
        // SAFETY: the input holds so many crops and draws, the buffers were checked, the kernel keeps within `side`.
        unsafe {
            self.launch(
                self.kernels.augment.of(element),
                Grid::for_each(pixels),
                arguments![from.pixels, from.draws, mean, x, count, side, crop],
            )
        }?;
        self.done_with(input)
    }
}
