//! The virtual CUDA driver finds planted mistakes, and finds none in their twins.
//!
//! The kernels stand in `tests/vcuda/kernels/faulty.cu`. They exist on the virtual driver only, so
//! on a machine with a real GPU these tests do nothing. What only a sanitizer finds is tested in
//! `vcuda_sanitizers.rs`.
#![cfg(feature = "cuda")]

mod between_devices;
mod launches;
mod memory;
mod threads;
mod wgmma;

#[path = "../vcuda_support/mod.rs"]
mod support;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaSlice, DriverError, LaunchConfig, PushKernelArg};
use support::{Gpu, grid, session};

/// Threads per block of most of the kernels.
pub const BLOCK: usize = 256;

impl Gpu {
    pub fn upload(&self, values: &[f32]) -> CudaSlice<f32> {
        self.stream.clone_htod(values).unwrap()
    }

    /// Launches a kernel that takes two arrays and perhaps two numbers, and waits for its end.
    pub fn run(
        &self,
        kernel: &str,
        blocks: u32,
        out: &mut CudaSlice<f32>,
        x: &CudaSlice<f32>,
        numbers: &[i32],
    ) -> Result<(), DriverError> {
        let kernel = self.kernel(kernel);
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(out).arg(x);
        for number in numbers {
            launch.arg(number);
        }
        // SAFETY: what the kernels do wrong is what the virtual driver has to bear.
        unsafe { launch.launch(grid(blocks, BLOCK as u32)) }?;
        self.stream.synchronize()
    }
}

/// Runs a kernel that takes an array and a number, and returns the array.
pub fn run_with_switch(
    gpu: &Gpu,
    kernel: &str,
    threads: u32,
    shared: u32,
    switch: i32,
) -> Result<Vec<f32>, DriverError> {
    let mut out = gpu.upload(&[0.0; 2 * BLOCK]);
    let kernel = gpu.kernel(kernel);
    // SAFETY: what the kernels do wrong is what the virtual driver has to bear.
    unsafe {
        gpu.stream
            .launch_builder(&kernel)
            .arg(&mut out)
            .arg(&switch)
            .launch(LaunchConfig {
                shared_mem_bytes: shared,
                ..grid(1, threads)
            })?;
    }
    gpu.stream.clone_dtoh(&out)
}

pub fn error_of(result: Result<(), DriverError>) -> Option<CUresult> {
    result.err().map(|error| error.0)
}
