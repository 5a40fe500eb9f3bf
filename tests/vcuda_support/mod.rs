//! What the tests of the virtual CUDA driver share.

use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, LaunchConfig};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;
use vcuda::{Options, Session};

/// A virtual device with the kernels of `tests/vcuda/kernels`.
pub struct Gpu {
    pub stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
}

impl Gpu {
    pub fn new(ordinal: usize) -> Self {
        let context = CudaContext::new(ordinal).unwrap();
        // SAFETY: the tests order their streams themselves.
        unsafe { context.disable_event_tracking() };
        let module = context.load_module(Ptx::from_binary(vec![0; 16])).unwrap();
        Self {
            stream: context.new_stream().unwrap(),
            module,
        }
    }

    pub fn kernel(&self, name: &str) -> CudaFunction {
        self.module.load_function(name).unwrap()
    }
}

pub fn grid(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (threads, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// A session on the virtual driver; none where there is a real one, which lacks the test kernels.
pub fn session(options: Options) -> Option<Session> {
    let session = vcuda::session(&options);
    session.is_virtual().then_some(session)
}
