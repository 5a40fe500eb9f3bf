//! Memory of a GPU, and pinned memory of the host.

use super::geometry::Pointer;
use crate::batch::{HostAllocator, HostMemory};
use crate::error::{Error, Result, device};
use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaContext, CudaEvent, result, sys};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What everything that belongs to one opened GPU refers to.
pub struct Home {
    pub context: Arc<CudaContext>,
    pub ordinal: usize,
    /// "GPU 0, NVIDIA H200".
    pub name: String,
    allocated: AtomicUsize,
}

impl Home {
    pub fn new(context: Arc<CudaContext>, ordinal: usize, name: String) -> Arc<Self> {
        Arc::new(Home {
            context,
            ordinal,
            name,
            allocated: AtomicUsize::new(0),
        })
    }

    /// Bytes allocated on the GPU through this.
    pub fn allocated(&self) -> usize {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Makes the GPU's context the calling thread's.
    pub fn bind(&self) -> Result<()> {
        self.check("choosing the GPU", self.context.bind_to_thread())
    }

    /// The result, or an error that names this GPU, what was tried and what the driver said.
    pub fn check<T>(&self, what: &str, result: Result<T, DriverError>) -> Result<T> {
        result.map_err(|error| self.error(what, error))
    }

    /// The error that [`check`](Home::check) gives.
    pub fn error(&self, what: &str, error: DriverError) -> Error {
        use sys::cudaError_enum as Code;
        let remedy = match error.0 {
            Code::CUDA_ERROR_ILLEGAL_ADDRESS
            | Code::CUDA_ERROR_LAUNCH_FAILED
            | Code::CUDA_ERROR_MISALIGNED_ADDRESS => {
                "; a kernel failed: run `alexnet-mp verify`, and report what it says"
            }
            Code::CUDA_ERROR_ECC_UNCORRECTABLE | Code::CUDA_ERROR_HARDWARE_STACK_ERROR => {
                "; the GPU's hardware failed: see `nvidia-smi -q`"
            }
            Code::CUDA_ERROR_LAUNCH_TIMEOUT => "; the GPU also drives a display: use another GPU",
            _ => "",
        };
        device(format!(
            "{}: {what}: {}{remedy}",
            self.name,
            describe(error)
        ))
    }
}

/// What the driver calls an error: "CUDA_ERROR_INVALID_VALUE (invalid argument)".
pub fn describe(error: DriverError) -> String {
    let text =
        |s: Result<&std::ffi::CStr, DriverError>| s.map(|s| s.to_string_lossy().into_owned()).ok();
    match (text(error.error_name()), text(error.error_string())) {
        (Some(name), Some(meaning)) if name != meaning => format!("{name} ({meaning})"),
        (Some(name), _) => name,
        _ => format!("{:?}", error.0),
    }
}

/// Bytes on a GPU, allocated so that peer access opens them (memory of a pool is not opened by it).
pub struct Memory {
    address: u64,
    bytes: usize,
    pub home: Arc<Home>,
}

impl Memory {
    /// Zero-filled; at least one byte.
    pub fn new(home: &Arc<Home>, bytes: usize) -> Result<Self> {
        let bytes = bytes.max(1);
        home.bind()?;
        // SAFETY: a context is current.
        let address = match unsafe { result::malloc_sync(bytes) } {
            Ok(address) => address,
            Err(DriverError(sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY)) => {
                return Err(out_of_memory(home, bytes));
            }
            Err(error) => return home.check("allocating memory", Err(error)),
        };
        home.allocated.fetch_add(bytes, Ordering::Relaxed);
        let memory = Memory {
            address,
            bytes,
            home: home.clone(),
        };
        // SAFETY: the range was allocated just now; nothing else uses it.
        home.check("clearing memory", unsafe {
            result::memset_d8_sync(address, 0, bytes)
        })?;
        home.check("clearing memory", result::ctx::synchronize())?;
        Ok(memory)
    }

    pub fn pointer(&self) -> Pointer {
        Pointer(self.address)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.home.allocated.fetch_sub(self.bytes, Ordering::Relaxed);
        // A context that has failed takes its memory with it: there is nobody to tell.
        if self.home.context.bind_to_thread().is_ok() {
            // SAFETY: allocated by `new`, freed here alone; the driver waits for the context's work first.
            let _ = unsafe {
                result::ctx::synchronize().and_then(|()| result::free_sync(self.address))
            };
        }
    }
}

fn out_of_memory(home: &Home, bytes: usize) -> Error {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    let room = match result::mem_get_info() {
        Ok((free, total)) => format!("{} MiB free of {} MiB", free >> 20, total >> 20),
        Err(error) => describe(error),
    };
    device(format!(
        "{}: out of memory: {} MiB more needed, {room}, {} MiB in use by this program; take a smaller --batch, or a \
         second GPU (--gpus 0,1)",
        home.name,
        mib(bytes),
        mib(home.allocated()),
    ))
}

/// f32 elements on a GPU.
pub struct Buffer {
    pub memory: Memory,
    elements: usize,
    /// Copies to other devices that may still be reading: the next write waits for them.
    readers: RefCell<Vec<Arc<CudaEvent>>>,
}

impl Buffer {
    pub fn new(home: &Arc<Home>, elements: usize) -> Result<Self> {
        Ok(Buffer {
            memory: Memory::new(home, elements * 4)?,
            elements,
            readers: RefCell::default(),
        })
    }

    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Notes that a copy reads this buffer until `done`.
    pub fn read_until(&self, done: &Arc<CudaEvent>) {
        let mut readers = self.readers.borrow_mut();
        if !readers.iter().any(|reader| Arc::ptr_eq(reader, done)) {
            readers.push(done.clone());
        }
    }

    /// Hands out the copies that may still be reading, and forgets them.
    pub fn take_readers(&mut self) -> std::vec::Drain<'_, Arc<CudaEvent>> {
        self.readers.get_mut().drain(..)
    }

    /// Where the elements are, after a look at whether `elements` of them are there on this GPU.
    pub fn checked(&self, home: &Home, elements: usize) -> Result<Pointer> {
        if elements > self.elements {
            return Err(device(format!(
                "{}: an operation on {elements} elements was given a buffer of {}",
                home.name, self.elements
            )));
        }
        if self.memory.home.context.cu_ctx() != home.context.cu_ctx() {
            return Err(device(format!(
                "{}: an operation was given memory of {}",
                home.name, self.memory.home.name
            )));
        }
        Ok(self.memory.pointer())
    }
}

/// Host memory that GPUs copy from and to without staging; every context may use it.
pub struct Pinned {
    address: *mut u8,
    bytes: usize,
    home: Arc<Home>,
}

// SAFETY: `Pinned` owns the memory like a `Vec<u8>`; the driver may free it from any thread.
unsafe impl Send for Pinned {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// Zero-filled.
    pub fn new(home: &Arc<Home>, bytes: usize) -> Result<Self> {
        home.bind()?;
        // SAFETY: a context is current; the size is not zero.
        let allocated = unsafe { result::malloc_host(bytes.max(1), sys::CU_MEMHOSTALLOC_PORTABLE) };
        let address = home
            .check("allocating pinned host memory", allocated)?
            .cast::<u8>();
        // SAFETY: the driver gave us so many bytes.
        unsafe { address.write_bytes(0, bytes) };
        Ok(Pinned {
            address,
            bytes,
            home: home.clone(),
        })
    }

    pub fn address(&self) -> *mut u8 {
        self.address
    }
}

impl HostMemory for Pinned {
    fn bytes(&self) -> &[u8] {
        // SAFETY: initialised by `new`, and borrowed as `self` is.
        unsafe { std::slice::from_raw_parts(self.address, self.bytes) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.home.context.bind_to_thread().is_ok() {
            // SAFETY: allocated by `new`, freed here alone.
            let _ = unsafe { result::free_host(self.address.cast()) };
        }
    }
}

/// Pinned memory where it can be had, ordinary memory with a warning where not.
pub fn pinned_allocator(home: &Arc<Home>) -> HostAllocator {
    let home = home.clone();
    Arc::new(move |bytes| match Pinned::new(&home, bytes) {
        Ok(pinned) => Box::new(pinned) as Box<dyn HostMemory>,
        Err(error) => {
            tracing::warn!("{error}; uploads go through ordinary memory, more slowly");
            Box::new(vec![0u8; bytes])
        }
    })
}
