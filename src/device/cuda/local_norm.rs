//! Response normalisation within each map; `kernels/local_norm.cu`.

use super::geometry::{Divider, LrnConstants, argument_types, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::error::Result;
use crate::network::op::LocalNorm;

/// `kernels/local_norm.cu`'s `NormShape`.
#[derive(Clone, Copy)]
#[repr(C)]
struct NormShape {
    height: i32,
    width: i32,
    maps: Divider,
    by_width: Divider,
    by_height: Divider,
}
argument_types!(NormShape);

impl NormShape {
    fn new(op: &LocalNorm) -> Result<Self> {
        Ok(NormShape {
            height: int(op.shape.height)?,
            width: int(op.shape.width)?,
            maps: Divider::new(op.shape.maps)?,
            by_width: Divider::new(op.shape.width)?,
            by_height: Divider::new(op.shape.height)?,
        })
    }
}

impl CudaDevice {
    pub(super) fn launch_local_norm_forward(
        &mut self,
        op: &LocalNorm,
        images: usize,
        x: &Buffer,
        y: &mut Buffer,
    ) -> Result<()> {
        let elements = images * op.shape.len();
        let element = self.type_of(&[x, y])?;
        let (x, y, count) = (
            self.input(x, elements)?,
            self.output(y, elements)?,
            int(elements)?,
        );
        let (shape, constants) = (NormShape::new(op)?, LrnConstants::of_pixels(op)?);
        // SAFETY: both buffers were checked to hold `elements`.
        unsafe {
            self.launch(
                self.kernels.local_norm_forward.of(element),
                Grid::for_each(elements),
                arguments![x, y, count, shape, constants],
            )
        }
    }

    pub(super) fn launch_local_norm_backward(
        &mut self,
        op: &LocalNorm,
        images: usize,
        x: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
    ) -> Result<()> {
        let elements = images * op.shape.len();
        let element = self.type_of(&[x, dy, dx])?;
        let (x, dy, count) = (
            self.input(x, elements)?,
            self.input(dy, elements)?,
            int(elements)?,
        );
        let dx = self.output(dx, elements)?;
        let terms = self.workspace(2 * elements * 4)?;
        let direct = terms.offset(elements * 4);
        let (shape, constants) = (NormShape::new(op)?, LrnConstants::of_pixels(op)?);
        let grid = Grid::for_each(elements);
        // SAFETY: the buffers were checked to hold `elements`, and the work space holds twice as many.
        unsafe {
            let terms_of = self.kernels.local_norm_terms.of(element);
            self.launch(
                terms_of,
                grid,
                arguments![x, dy, direct, terms, count, shape, constants],
            )?;
            let gather = self.kernels.local_norm_backward.of(element);
            self.launch(
                gather,
                grid,
                arguments![x, direct, terms, dx, count, shape, constants],
            )
        }
    }
}
