//! Images with zeros around them, for convolutions by strips; `kernels/pad.cu`.

use super::geometry::{Divider, Pointer, argument_types, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::error::Result;
use crate::network::op::{Conv, Shape};

/// `kernels/pad.cu`'s form.
#[derive(Clone, Copy)]
#[repr(C)]
struct Padding {
    images: i32,
    height: i32,
    length: i32,
    above: i32,
    before: i32,
    padded_height: Divider,
    quads: Divider,
}
argument_types!(Padding);

/// `op` on images of shape `input`: its own, or such that hold the padding of its window.
pub(super) fn padded_op(op: &Conv, input: Shape) -> Conv {
    let mut padded = *op;
    if input != op.input {
        padded.input = input;
        padded.window.pad = 0;
    }
    padded
}

impl CudaDevice {
    /// Copies a convolution's input to `to`, as images of shape `padded` with the zeros of its window around them. A row
    /// of `padded` is a multiple of four numbers.
    pub(super) fn launch_pad(
        &self,
        op: &Conv,
        images: usize,
        x: &Buffer,
        padded: Shape,
        to: Pointer,
    ) -> Result<()> {
        let (maps, pad) = (op.input.maps, op.window.pad);
        let quads = padded.width * maps / 4;
        let from = self.input(x, images * op.input.len())?;
        int(images * padded.len())?;
        let padding = Padding {
            images: int(images)?,
            height: int(op.input.height)?,
            length: int(op.input.width * maps)?,
            above: int(pad)?,
            before: int(pad * maps)?,
            padded_height: Divider::new(padded.height)?,
            quads: Divider::new(quads)?,
        };
        // SAFETY: `x` was checked, and the caller made room for the padded images.
        unsafe {
            self.launch(
                self.kernels.pad.of(x.element()),
                Grid::for_each(images * padded.height * quads),
                arguments![from, to, padding],
            )
        }
    }
}
