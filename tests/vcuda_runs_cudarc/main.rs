//! `cudarc`, unmodified, on the virtual CUDA driver.
//!
//! The kernels stand in `tests/vcuda/kernels/right.cu`. They exist on the virtual driver only, so
//! on a machine with a real GPU these tests do nothing.
#![cfg(feature = "cuda")]

mod copies_and_streams;
mod graphs;
mod kernels;
mod limits;
mod loading;
mod peers;

#[path = "../vcuda_support/mod.rs"]
mod support;

use cudarc::driver::{CudaSlice, CudaStream, PushKernelArg};
use std::sync::Arc;
use support::{Gpu, grid, session};
use vcuda::Streams;

impl Gpu {
    /// y += a·x on a stream.
    pub fn axpy(
        &self,
        stream: &Arc<CudaStream>,
        y: &mut CudaSlice<f32>,
        a: f32,
        x: &CudaSlice<f32>,
    ) {
        let (kernel, n) = (self.kernel("vcuda_axpy"), x.len() as i32);
        // SAFETY: the arguments are the kernel's.
        unsafe {
            stream
                .launch_builder(&kernel)
                .arg(y)
                .arg(x)
                .arg(&a)
                .arg(&n)
                .launch(grid((n as u32).div_ceil(256), 256))
        }
        .unwrap();
    }
}

/// The orders of streams that tests go through.
pub const STREAMS: [Streams; 4] = [
    Streams::Eager,
    Streams::Lazy,
    Streams::Random(1),
    Streams::Random(2),
];

/// Small integers, so that sums are exact whatever their order.
pub fn whole_numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 7 + seed * 13) % 11) as f32 - 5.0)
        .collect()
}
