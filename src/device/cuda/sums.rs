//! Sums over rows and over partial results, in a fixed order; `kernels/sums.cu`.

use super::geometry::{Pointer, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::error::Result;

/// Columns of a block, as in the kernel.
const COLUMNS: usize = 32;
/// Rows of a part, at least: below this a second stage costs more than it brings.
const ROWS: usize = 256;

impl CudaDevice {
    /// Gradient of a bias: sums of the columns of `dy`, `rows` × `outputs`.
    pub(super) fn launch_bias_backward(
        &mut self,
        rows: usize,
        outputs: usize,
        dy: &Buffer,
        accumulate: bool,
        gradient: &mut Buffer,
    ) -> Result<()> {
        int(rows * outputs)?;
        self.expect_f32(&[gradient])?;
        let element = dy.element();
        let (dy, gradient) = (
            self.input(dy, rows * outputs)?,
            self.output(gradient, outputs)?,
        );
        let columns = outputs.div_ceil(COLUMNS);
        // Enough blocks for eight on each multiprocessor.
        let most = (8 * self.multiprocessors).div_ceil(columns.max(1));
        let parts = rows.div_ceil(ROWS).clamp(1, most.max(1));
        let rows_per_part = rows.div_ceil(parts).max(1);
        let parts = rows.div_ceil(rows_per_part).max(1);
        let to = if parts == 1 {
            gradient
        } else {
            self.workspace(parts * outputs * 4)?
        };
        let directly = i32::from(accumulate && parts == 1);
        let (rows, width, share) = (int(rows)?, int(outputs)?, int(rows_per_part)?);
        let grid = Grid {
            blocks: [columns, parts, 1],
            threads: 256,
        };
        // SAFETY: `dy` holds the matrix, `to` a row of `outputs` for each part.
        unsafe {
            self.launch(
                self.kernels.column_sums.of(element),
                grid,
                arguments![dy, to, rows, width, share, directly],
            )
        }?;
        if parts > 1 {
            // SAFETY: the work space holds the parts just written, the gradient `outputs`.
            unsafe {
                self.launch_sum_parts(
                    to,
                    [gradient, Pointer::NULL],
                    parts,
                    [outputs, 0],
                    accumulate,
                )
            }?;
        }
        Ok(())
    }

    /// The sum of `parts` slabs, of so many `elements` for the one and for the other of `to`, added to what is there if
    /// `accumulate`. Where there are any for the other, those for the one are a multiple of four.
    ///
    /// # Safety
    /// `slabs` holds `parts` times all elements as floats, `to` hold theirs, all on this GPU, apart from each other.
    pub(super) unsafe fn launch_sum_parts(
        &self,
        slabs: Pointer,
        [to, rest]: [Pointer; 2],
        parts: usize,
        elements: [usize; 2],
        accumulate: bool,
    ) -> Result<()> {
        debug_assert!(elements[1] == 0 || elements[0].is_multiple_of(4));
        let (split, elements) = (int(elements[0])?, elements[0] + elements[1]);
        let (count, length, accumulate) = (int(parts)?, int(elements)?, i32::from(accumulate));
        // SAFETY: the caller's word.
        unsafe {
            self.launch(
                &self.kernels.sum_parts,
                Grid::for_quads(elements),
                arguments![slabs, to, rest, split, count, length, accumulate],
            )
        }
    }
}
