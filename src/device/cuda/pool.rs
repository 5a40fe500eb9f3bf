//! Max pooling; `kernels/pool.cu`.

use super::geometry::{Divider, activation_code, argument_types, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::error::Result;
use crate::network::op::Pool;

/// `kernels/pool.cuh`'s `PoolShape`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PoolShape {
    height: i32,
    width: i32,
    out_height: i32,
    out_width: i32,
    maps: i32,
    size: i32,
    stride: i32,
    pad: i32,
}
argument_types!(PoolShape);

impl PoolShape {
    pub fn new(op: &Pool, images: usize) -> Result<Self> {
        int(images * op.input.len())?;
        int(images * op.output.len())?;
        Ok(PoolShape {
            height: int(op.input.height)?,
            width: int(op.input.width)?,
            out_height: int(op.output.height)?,
            out_width: int(op.output.width)?,
            maps: int(op.input.maps)?,
            size: int(op.window.size)?,
            stride: int(op.window.stride)?,
            pad: int(op.window.pad)?,
        })
    }
}

impl CudaDevice {
    pub(super) fn launch_pool_forward(
        &mut self,
        op: &Pool,
        images: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        let shape = PoolShape::new(op, images)?;
        let elements = images * op.output.len();
        let element = self.type_of(&[x, y])?;
        let (x, y, count) = (
            self.input(x, images * op.input.len())?,
            self.output(y, elements)?,
            int(elements)?,
        );
        let maps = Divider::new(op.output.maps)?;
        let (width, height) = (
            Divider::new(op.output.width)?,
            Divider::new(op.output.height)?,
        );
        // SAFETY: both buffers were checked to hold what the shape says.
        unsafe {
            self.launch(
                self.kernels.pool_forward.of(element),
                Grid::for_each(elements),
                arguments![x, y, count, shape, maps, width, height],
            )
        }
    }

    pub(super) fn launch_pool_backward(
        &mut self,
        op: &Pool,
        images: usize,
        x: &Buffer,
        y: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        let (inputs, outputs) = (images * op.input.len(), images * op.output.len());
        let element = self.type_of(&[x, y, dy, dx])?;
        let (x, y, dy) = (
            self.input(x, inputs)?,
            self.input(y, outputs)?,
            self.input(dy, outputs)?,
        );
        let dx = self.output(dx, inputs)?;
        let (shape, maps) = (PoolShape::new(op, images)?, Divider::new(op.input.maps)?);
        let (count, activated) = (int(inputs)?, activation_code(op.activated));
        let (width, height) = (
            Divider::new(op.input.width)?,
            Divider::new(op.input.height)?,
        );
        // SAFETY: every buffer was checked to hold what the shape says.
        unsafe {
            self.launch(
                self.kernels.pool_backward.of(element),
                Grid::for_each(inputs),
                arguments![x, y, dy, dx, count, shape, maps, width, height, activated],
            )
        }
    }
}
