//! NVIDIA GPUs, through the CUDA driver and the kernels in `kernels/`: one file per operation, of the same stem.
//!
//! A device has four streams: one computes, one uploads input, and one each sends to and receives from other devices
//! ([`exchange`]). Nothing orders them but events; cudarc's own tracking is off. Every buffer is plain device memory,
//! which peer access opens to other GPUs.

mod activation;
mod arithmetic;
mod augment;
mod buffer;
mod conv;
mod conv_sums;
mod conv_tensor;
mod cublas;
mod dropout;
mod event;
mod exchange;
mod failure;
mod geometry;
mod graph;
mod input;
mod linear;
mod local_norm;
mod loss_scale;
mod lrn;
mod lrn_pool;
mod memory;
mod module;
pub mod nvml;
mod operations;
mod pad;
mod parts;
mod peak;
pub mod peer;
mod pool;
pub mod probe;
pub mod report;
mod sgd;
mod softmax;
mod sums;
mod tensor_kernels;
mod tensor_tile;
mod words;

pub use buffer::Buffer;
pub use exchange::Mailbox;
pub use graph::Graph;
pub use input::Input;
pub use peer::{PeerReport, prove};
pub use probe::{GpuInfo, has_driver, obstacles, probe};
pub use report::{KernelReport, has_kernels};
pub use softmax::Tally;

use crate::error::{Result, device};
use crate::precision::Precision;
use cublas::Cublas;
use cudarc::driver::{CudaContext, CudaStream, result, sys};
use event::Event;
use geometry::Pointer;
use memory::{Home, Memory};
use module::{Grid, Kernel, Kernels};
use std::ffi::c_void;
use std::sync::Arc;
use tensor_kernels::TensorCores;

/// One GPU, opened for one column.
pub struct CudaDevice {
    home: Arc<Home>,
    kernels: Kernels,
    blas: Cublas,
    /// Grows to the largest need; contents last as long as one operation.
    workspace: Option<Memory>,
    /// How often it has.
    generation: u64,
    multiprocessors: usize,
    /// Compute capability.
    capability: (i32, i32),
    precision: Precision,
    /// What was found out about copies to other devices, by the GPU's number.
    peers: Vec<(usize, PeerReport)>,
}

impl CudaDevice {
    /// Opens GPU number `ordinal`, as `CUDA_VISIBLE_DEVICES` numbers them. The same GPU may be opened twice.
    pub fn open(ordinal: usize) -> Result<Self> {
        let info = probe::usable(ordinal)?;
        let failed = |e| device(format!("GPU {ordinal}, {info}: {}", failure::describe(e)));
        let context = CudaContext::new(ordinal).map_err(failed)?;
        let capability = context.compute_capability().map_err(failed)?;
        let wgmma = std::env::var(tensor_kernels::VARIABLE).ok();
        let tensor_cores = TensorCores::of(capability, wgmma.as_deref())?;
        let how = match tensor_cores {
            TensorCores::Wgmma => ", products by wgmma",
            TensorCores::Mma | TensorCores::None => "",
        };
        let name = format!("GPU {ordinal}, {info}{how}");
        let home = Home::new(context, ordinal, name).map_err(failed)?;
        let multiprocessors = home.check(
            "asking for multiprocessors",
            home.context
                .attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        )?;
        Ok(CudaDevice {
            kernels: Kernels::load(&home, tensor_cores)?,
            blas: Cublas::open(&home)?,
            workspace: None,
            generation: 0,
            multiprocessors: multiprocessors.max(1) as usize,
            capability,
            precision: Precision::F32,
            peers: Vec::new(),
            home,
        })
    }

    /// The GPU's number.
    pub fn ordinal(&self) -> usize {
        self.home.ordinal
    }

    /// Where an operation reads `elements` of `buffer`.
    fn input(&self, buffer: &Buffer, elements: usize) -> Result<Pointer> {
        buffer.checked(&self.home, elements)
    }

    /// Where an operation writes `elements` of `buffer`, once copies that still read it are done.
    fn output(&self, buffer: &mut Buffer, elements: usize) -> Result<Pointer> {
        for reader in buffer.take_readers() {
            self.wait(&self.home.streams.compute, &reader)?;
        }
        buffer.checked(&self.home, elements)
    }

    /// Makes what is issued to `stream` later wait for `event`.
    fn wait(&self, stream: &CudaStream, event: &Event) -> Result<()> {
        event.wait(&self.home, stream)
    }

    /// Lets `event` happen when what was issued to `stream` is done.
    fn record(&self, event: &Event, stream: &CudaStream) -> Result<()> {
        event.record(&self.home, stream)
    }

    /// An event for ordering, of this GPU's context.
    fn event(&self) -> Result<Arc<Event>> {
        Ok(Arc::new(Event::new(&self.home)?))
    }

    /// Waits until everything issued to the compute stream is done.
    fn finish(&self) -> Result<()> {
        self.home.finish(&self.home.streams.compute)
    }

    /// Launches a kernel on the compute stream.
    ///
    /// # Safety
    /// As [`Kernel::launch`].
    unsafe fn launch(
        &self,
        kernel: &Kernel,
        grid: Grid,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        // SAFETY: the caller's word.
        unsafe { kernel.launch(&self.home, &self.home.streams.compute, grid, 0, arguments) }
    }

    /// Copies within this GPU, on the compute stream.
    fn copy_elements(&mut self, elements: usize, from: &Buffer, to: &mut Buffer) -> Result<()> {
        let bytes = elements * self.type_of(&[from, to])?.bytes();
        let (source, target) = (self.input(from, elements)?, self.output(to, elements)?);
        self.home.bind()?;
        // SAFETY: both ranges were checked; two buffers never overlap.
        let copied = unsafe {
            result::memcpy_dtod_async(
                target.0,
                source.0,
                bytes,
                self.home.streams.compute.cu_stream(),
            )
        };
        self.home.check("copying", copied)
    }

    /// Memory for the intermediate results of one operation, which the next one may overwrite.
    fn workspace(&mut self, bytes: usize) -> Result<Pointer> {
        if let Some(memory) = &self.workspace
            && memory.bytes() >= bytes
        {
            return Ok(memory.pointer());
        }
        // The old one goes first: dropping it waits for the operations that use it.
        self.workspace = None;
        let memory = Memory::new(&self.home, bytes)?;
        let place = memory.pointer();
        self.workspace = Some(memory);
        self.generation += 1;
        Ok(place)
    }
}
