//! The CPU device: f32, images outermost and maps innermost as everywhere, threads that own no
//! part of the result (see [`team`]), kernels for AVX-512, AVX2 or any processor (see [`simd`]).
//!
//! Weight matrices, those of convolutions too, their momentum and their gradients are kept as
//! panels (see [`matrix`]): they come and go through `upload_matrix` and `download_matrix`.

// An operation and its operands are more than seven arguments here and there.
#![allow(clippy::too_many_arguments)]

mod activation;
mod augment;
mod buffer;
mod conv;
mod direct;
mod dropout;
mod exchange;
mod gemm;
mod linear;
mod local_norm;
mod lrn;
mod lrn_pool;
mod lrn_row;
mod matrix;
mod operations;
mod peak;
mod pool;
mod sgd;
mod simd;
mod softmax;
mod team;
mod transform;
mod winograd;

pub use augment::Input;
pub use buffer::Buffer;
pub use simd::Isa;

use crate::error::{Result, device};
use team::Team;

/// Some threads of this machine.
pub struct CpuDevice {
    team: Team,
    conv: conv::Plans,
    /// Bytes of buffers and inputs allocated.
    bytes: usize,
}

impl CpuDevice {
    /// A device of `threads` threads; with one, the calling thread does the work.
    pub fn open(threads: usize) -> Result<CpuDevice> {
        CpuDevice::open_with(threads, Isa::detect())
    }

    /// As [`open`](CpuDevice::open), with kernels for the instruction set `isa`.
    pub fn open_with(threads: usize, isa: Isa) -> Result<CpuDevice> {
        if !isa.available() {
            return Err(device(format!("CPU: this processor has no {isa:?}")));
        }
        Ok(CpuDevice {
            team: Team::new(threads, isa)?,
            conv: conv::Plans::default(),
            bytes: 0,
        })
    }
}
