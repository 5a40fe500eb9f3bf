//! Dynamic loss scaling; `kernels/loss_scale.cu`.

use super::geometry::{Pointer, int};
use super::module::{Grid, arguments};
use super::{Buffer, CudaDevice};
use crate::device::loss_scale::{OVERFLOW, STATE};
use crate::error::Result;

const ONE_WARP: Grid = Grid {
    blocks: [1, 1, 1],
    threads: 32,
};

impl CudaDevice {
    /// Where a loss scale's state is, null if there is none.
    pub(super) fn loss_scale(&self, state: Option<&Buffer>) -> Result<Pointer> {
        match state {
            Some(state) => {
                self.expect_f32(&[state])?;
                self.input(state, STATE)
            }
            None => Ok(Pointer::NULL),
        }
    }

    pub(super) fn launch_loss_scale_check(
        &mut self,
        elements: usize,
        gradient: &Buffer,
        state: &mut Buffer,
    ) -> Result<()> {
        self.expect_f32(&[gradient, state])?;
        let (gradient, count) = (self.input(gradient, elements)?, int(elements)?);
        let overflow = self.output(state, STATE)?.offset(4 * OVERFLOW);
        // SAFETY: the gradient was checked to hold `elements`, the state its four numbers.
        unsafe {
            self.launch(
                &self.kernels.loss_scale_check,
                Grid::for_quads(elements),
                arguments![gradient, count, overflow],
            )
        }
    }

    pub(super) fn launch_loss_scale_merge(
        &mut self,
        other: &Buffer,
        state: &mut Buffer,
    ) -> Result<()> {
        self.expect_f32(&[other, state])?;
        let (other, state) = (self.input(other, STATE)?, self.output(state, STATE)?);
        // SAFETY: both were checked to hold a state.
        unsafe {
            self.launch(
                &self.kernels.loss_scale_merge,
                ONE_WARP,
                arguments![other, state],
            )
        }
    }

    pub(super) fn launch_loss_scale_update(&mut self, state: &mut Buffer) -> Result<()> {
        self.expect_f32(&[state])?;
        let state = self.output(state, STATE)?;
        // SAFETY: the state was checked to hold its four numbers.
        unsafe { self.launch(&self.kernels.loss_scale_update, ONE_WARP, arguments![state]) }
    }
}
