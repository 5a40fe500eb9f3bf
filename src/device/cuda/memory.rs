//! Memory of a GPU, and pinned memory of the host.

use super::failure::{describe, is_sticky, remedy};
use super::geometry::Pointer;
use crate::batch::{HostAllocator, HostMemory};
use crate::error::{Error, Result, device};
use cudarc::driver::result::DriverError;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result, sys};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the host waits for a GPU, in seconds, before it takes it for lost; the variable
/// `ALEXNET_MP_DEVICE_TIMEOUT` says otherwise.
const PATIENCE: u64 = 45;
/// As long, once a GPU of this process is lost or has failed: others may wait for it in vain, and the run must end soon.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// Whether any GPU of this process is lost, or has failed for good.
static ANY_LOST: AtomicBool = AtomicBool::new(false);

/// What everything that belongs to one opened GPU refers to.
pub struct Home {
    pub context: Arc<CudaContext>,
    pub ordinal: usize,
    /// "GPU 0, NVIDIA H200".
    pub name: String,
    pub streams: Streams,
    patience: Duration,
    allocated: AtomicUsize,
    /// Number of the capture of a graph that is under way, 0 if none.
    capture: AtomicU64,
    /// The GPU has not answered: nothing may wait for it any more, not even to free memory.
    lost: AtomicBool,
    /// The GPU has failed in a way that stays with its context.
    failed: AtomicBool,
}

/// The streams of a GPU: for operations, input, and messages out and in.
pub struct Streams {
    pub compute: Arc<CudaStream>,
    pub uploads: Arc<CudaStream>,
    pub outgoing: Arc<CudaStream>,
    pub incoming: Arc<CudaStream>,
}

impl Home {
    pub fn new(
        context: Arc<CudaContext>,
        ordinal: usize,
        name: String,
    ) -> Result<Arc<Self>, DriverError> {
        // All ordering between streams is by our own events.
        // SAFETY: no memory of cudarc's own, which relies on its tracking, is in use.
        unsafe { context.disable_event_tracking() };
        let streams = Streams {
            compute: context.new_stream()?,
            uploads: context.new_stream()?,
            outgoing: context.new_stream()?,
            incoming: context.new_stream()?,
        };
        let asked = std::env::var("ALEXNET_MP_DEVICE_TIMEOUT")
            .ok()
            .and_then(|s| s.parse().ok());
        Ok(Arc::new(Home {
            context,
            ordinal,
            name,
            streams,
            patience: Duration::from_secs(asked.unwrap_or(PATIENCE)),
            allocated: AtomicUsize::new(0),
            capture: AtomicU64::new(0),
            lost: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }))
    }

    /// Bytes allocated on the GPU through this.
    pub fn allocated(&self) -> usize {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Number of the capture of a graph that is under way, 0 if none.
    pub fn capture(&self) -> u64 {
        self.capture.load(Ordering::Relaxed)
    }

    /// Begins capture `number`, or ends it with 0.
    pub fn set_capture(&self, number: u64) {
        self.capture.store(number, Ordering::Relaxed);
    }

    /// Waits until what was issued to `stream` is done.
    pub fn finish(&self, stream: &CudaStream) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream is alive.
        self.wait(|| unsafe { sys::cuStreamQuery(stream.cu_stream()) }.result())
    }

    /// Waits until `event` has happened.
    pub fn finish_event(&self, event: &CudaEvent) -> Result<()> {
        self.bind()?;
        // SAFETY: the event is alive.
        self.wait(|| unsafe { result::event::query(event.cu_event()) })
    }

    /// Asks again and again, at first without a pause; an error in the end. The driver's own waits have none.
    fn wait(&self, is_done: impl Fn() -> Result<(), DriverError>) -> Result<()> {
        let start = Instant::now();
        loop {
            match is_done() {
                Err(DriverError(sys::cudaError_enum::CUDA_ERROR_NOT_READY)) => {}
                result => return self.check("running", result),
            }
            let waited = start.elapsed();
            let patience = if ANY_LOST.load(Ordering::Relaxed) {
                LAST_PATIENCE
            } else {
                self.patience
            };
            if self.is_lost() || waited > patience {
                self.give_up();
                return Err(device(format!(
                    "{}: no answer for {} s; see `nvidia-smi` and the kernel's log (ALEXNET_MP_DEVICE_TIMEOUT sets the \
                     seconds to wait)",
                    self.name,
                    waited.as_secs()
                )));
            }
            if waited > Duration::from_micros(200) {
                std::thread::sleep(Duration::from_micros(20));
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// From now on nothing waits for this GPU.
    pub fn give_up(&self) {
        self.lost.store(true, Ordering::Relaxed);
        ANY_LOST.store(true, Ordering::Relaxed);
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until nothing runs here that could use memory about to be freed. No if the GPU does not answer.
    pub fn is_quiet(&self) -> bool {
        let s = &self.streams;
        !self.is_lost()
            && self.context.bind_to_thread().is_ok()
            && [&s.compute, &s.uploads, &s.outgoing, &s.incoming]
                .into_iter()
                .all(|stream| {
                    // SAFETY: the stream is alive.
                    self.wait(|| unsafe { sys::cuStreamQuery(stream.cu_stream()) }.result())
                        .is_ok()
                })
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
        if is_sticky(error) {
            // Other GPUs may wait for messages that this one will not send any more.
            self.failed.store(true, Ordering::Relaxed);
            ANY_LOST.store(true, Ordering::Relaxed);
        }
        device(format!(
            "{}: {what}: {}{}",
            self.name,
            describe(error),
            remedy(error)
        ))
    }

    /// Whether the GPU can do no more: it does not answer, or every call to it fails from now on.
    pub fn has_failed(&self) -> bool {
        self.is_lost() || self.failed.load(Ordering::Relaxed)
    }
}

/// What the driver gives large allocations in whole multiples of, and from which size on.
const BLOCK: usize = 2 << 20;
const LARGE: usize = 1 << 20;

/// Bytes of a GPU's memory that an allocation of so many takes. Smaller ones share a block.
pub fn taken(bytes: usize) -> usize {
    match bytes >= LARGE {
        true => bytes.next_multiple_of(BLOCK),
        false => bytes,
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
        home.allocated.fetch_add(taken(bytes), Ordering::Relaxed);
        let memory = Memory {
            address,
            bytes,
            home: home.clone(),
        };
        // SAFETY: the range was allocated just now; nothing else uses it.
        let stream = &home.streams.compute;
        home.check("clearing memory", unsafe {
            result::memset_d8_async(address, 0, bytes, stream.cu_stream())
        })?;
        home.finish(stream)?;
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
        let bytes = taken(self.bytes);
        self.home.allocated.fetch_sub(bytes, Ordering::Relaxed);
        // A context that has failed takes its memory with it: there is nobody to tell.
        if self.home.is_quiet() {
            // SAFETY: allocated by `new`, freed here alone, and nothing runs that could use it.
            let _ = unsafe { result::free_sync(self.address) };
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
        // Whoever lent the memory to a copy has waited for it: a loader's thread must not wait for the whole GPU.
        if !self.home.is_lost() && self.home.context.bind_to_thread().is_ok() {
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

impl Drop for Home {
    fn drop(&mut self) {
        if self.is_lost() {
            // Releasing the context would wait for a GPU that does not answer; the process is about to end.
            std::mem::forget(self.context.clone());
        }
    }
}
