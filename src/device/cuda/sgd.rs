//! The update; `kernels/sgd.cu`.

use super::buffer::Element;
use super::geometry::{Pointer, argument_types, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::device::{Rule, Update};
use crate::error::Result;

/// Arrays of a launch, at most, and elements of a block, as in the kernel.
const ARRAYS: usize = 32;
const BLOCK: usize = 2 * 1024;

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct SgdConstants {
    rate: f32,
    momentum: f32,
    decay: f32,
}

/// Floats of the constants in a table.
const CONSTANTS: usize = 3;

/// `kernels/sgd.cu`'s `SgdArray`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct SgdArray {
    weights: Pointer,
    momentum: Pointer,
    gradient: Pointer,
    copy: Pointer,
    later: Pointer,
    op: SgdConstants,
    elements: i32,
    first_block: i32,
}

/// `kernels/sgd.cu`'s `SgdTable`.
#[derive(Clone, Copy)]
#[repr(C)]
struct SgdTable {
    arrays: [SgdArray; ARRAYS],
    count: i32,
}
argument_types!(SgdTable);

impl CudaDevice {
    pub(super) fn launch_sgd(
        &mut self,
        updates: &mut [Update<'_, Buffer>],
        loss_scale: Option<&Buffer>,
    ) -> Result<()> {
        let scaling = self.loss_scale(loss_scale)?;
        for updates in updates.chunks_mut(ARRAYS) {
            let mut table = SgdTable {
                arrays: [SgdArray::default(); ARRAYS],
                count: int(updates.len())?,
            };
            let (mut blocks, mut copied) = (0, Element::F32);
            for (array, update) in table.arrays.iter_mut().zip(updates) {
                let (element, of_update) = self.sgd_array(update, blocks)?;
                *array = of_update;
                blocks += update.elements.div_ceil(BLOCK);
                // All copies are of one type: the precision's.
                if element != Element::F32 {
                    copied = element;
                }
            }
            let grid = Grid {
                blocks: [blocks, 1, 1],
                threads: 256,
            };
            // SAFETY: every array was checked to hold its elements, its copy to hold as many, and a table of constants
            // its place.
            unsafe {
                self.launch(
                    self.kernels.sgd.of(copied),
                    grid,
                    arguments![table, scaling],
                )
            }?;
        }
        Ok(())
    }

    /// One array as the kernel takes it, and the type of its copy, f32 where it has none.
    fn sgd_array(
        &self,
        update: &mut Update<'_, Buffer>,
        first_block: usize,
    ) -> Result<(Element, SgdArray)> {
        let elements = update.elements;
        self.expect_f32(&[update.weights, update.momentum, update.gradient])?;
        let (op, later) = match &update.rule {
            Rule::Now(op) => {
                let op = SgdConstants {
                    rate: op.rate,
                    momentum: op.momentum,
                    decay: op.decay,
                };
                (op, Pointer::NULL)
            }
            Rule::Later { table, place } => {
                let first = self.input(table, CONSTANTS * (place + 1))?;
                let later = first.offset(4 * CONSTANTS * place);
                (SgdConstants::default(), later)
            }
        };
        let weights = self.output(update.weights, elements)?;
        let (element, copy) = update.weights.copy();
        let array = SgdArray {
            weights,
            momentum: self.output(update.momentum, elements)?,
            gradient: self.input(update.gradient, elements)?,
            copy,
            later,
            op,
            elements: int(elements)?,
            first_block: int(first_block)?,
        };
        Ok((element, array))
    }
}
