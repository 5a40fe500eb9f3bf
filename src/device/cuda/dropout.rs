//! Dropout; `kernels/dropout.cu`.

use super::geometry::{Divider, Pointer, argument_types, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::device::{Activated, Mask};
use crate::error::Result;
use crate::network::op::Dropout;

/// `kernels/dropout.cuh`'s `DropoutPlace`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct DropoutPlace {
    units: Divider,
    first_unit: u32,
    all_units: u32,
    first_image: u32,
}

/// `kernels/dropout.cuh`'s `DropoutStream`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct DropoutStream {
    key: [u32; 2],
    step: u64,
    lane: u32,
    threshold: u32,
}
argument_types!(DropoutPlace, DropoutStream);

impl CudaDevice {
    pub(super) fn launch_dropout_forward(
        &mut self,
        op: &Dropout,
        images: usize,
        mask: &Mask<'_, Buffer>,
        y: &mut Buffer,
    ) -> Result<()> {
        let elements = images * op.units;
        let (given, place, stream, later) = self.dropout_arguments(op, elements, mask)?;
        let element = y.element();
        let (y, count, factor) = (
            self.output(y, elements)?,
            int(elements)?,
            op.training_scale(),
        );
        // SAFETY: the buffers were checked to hold `elements`.
        unsafe {
            self.launch(
                self.kernels.dropout_forward.of(element),
                Grid::for_each(elements),
                arguments![y, given, count, factor, place, stream, later],
            )
        }
    }

    pub(super) fn launch_dropout_backward(
        &mut self,
        op: &Dropout,
        images: usize,
        mask: &Mask<'_, Buffer>,
        before: Option<Activated<'_, Buffer>>,
        dy: &mut Buffer,
    ) -> Result<()> {
        let elements = images * op.units;
        let (given, place, stream, later) = self.dropout_arguments(op, elements, mask)?;
        let (y, activated) = self.activated(before, elements, dy)?;
        let element = dy.element();
        let (dy, count) = (self.output(dy, elements)?, int(elements)?);
        let factor = op.training_scale();
        // SAFETY: the buffers were checked to hold `elements`.
        unsafe {
            self.launch(
                self.kernels.dropout_backward.of(element),
                Grid::for_each(elements),
                arguments![y, activated, dy, given, count, factor, place, stream, later],
            )
        }
    }

    /// The given mask or null, where the counted one's words stand, and where the step is read from, or null.
    pub(super) fn dropout_arguments(
        &self,
        op: &Dropout,
        elements: usize,
        mask: &Mask<'_, Buffer>,
    ) -> Result<(Pointer, DropoutPlace, DropoutStream, Pointer)> {
        let mut place = DropoutPlace {
            units: Divider::new(op.units)?,
            first_unit: int(op.first_unit)? as u32,
            all_units: int(op.all_units)? as u32,
            first_image: 0,
        };
        let mut stream = DropoutStream {
            key: [0; 2],
            step: 0,
            lane: 0,
            threshold: op.threshold(),
        };
        match mask {
            Mask::Given(buffer) => {
                self.expect_f32(&[buffer])?;
                Ok((self.input(buffer, elements)?, place, stream, Pointer::NULL))
            }
            Mask::Counter {
                key,
                lane,
                step,
                first_image,
            } => {
                place.first_image = int(*first_image)? as u32;
                (stream.key, stream.step, stream.lane) = (key.0, *step, *lane);
                Ok((Pointer::NULL, place, stream, Pointer::NULL))
            }
            Mask::Later {
                key,
                lane,
                step,
                first_image,
            } => {
                place.first_image = int(*first_image)? as u32;
                (stream.key, stream.lane) = (key.0, *lane);
                Ok((Pointer::NULL, place, stream, self.input(step, 2)?))
            }
        }
    }
}
