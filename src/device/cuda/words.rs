//! Words that change from step to step; `kernels/words.cu`.

use super::geometry::{argument_types, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::error::Result;

/// Words of one launch, as in the kernel.
const WORDS: usize = 64;

#[derive(Clone, Copy)]
#[repr(C)]
struct Words([u32; WORDS]);
argument_types!(Words);

impl CudaDevice {
    pub(super) fn launch_set_words(&mut self, words: &[u32], to: &mut Buffer) -> Result<()> {
        self.expect_f32(&[to])?;
        let to = self.output(to, words.len())?;
        let grid = Grid {
            blocks: [1, 1, 1],
            threads: WORDS as u32,
        };
        for (number, part) in words.chunks(WORDS).enumerate() {
            let mut values = Words([0; WORDS]);
            values.0[..part.len()].copy_from_slice(part);
            let (to, count) = (to.offset(4 * WORDS * number), int(part.len())?);
            // SAFETY: the buffer was checked to hold all words.
            unsafe { self.launch(&self.kernels.set_words, grid, arguments![to, count, values]) }?;
        }
        Ok(())
    }
}
