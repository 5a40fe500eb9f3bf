//! A virtual CUDA driver for tests: `cudarc`, unmodified, finds GPUs on a machine that has none.
//!
//! Shared libraries are built with this crate. [`LIBRARY`] answers to the name `libcuda.so` and
//! holds every kernel of the project, compiled for the host; [`CUBLAS`] answers to `libcublas.so`.
//! [`install`] loads them before `cudarc` looks for the real ones. Where a real driver is present
//! nothing is loaded, so the same tests run on a real GPU; `VCUDA_FORCE=1` loads the virtual one
//! even there.
//!
//! ```no_run
//! use vcuda::{Options, Streams};
//! let session = vcuda::session(&Options { streams: Some(Streams::Lazy), ..Options::default() });
//! // … cudarc::driver::CudaContext::new(0) …
//! assert_eq!(session.counters().host_synchronisations, 0);
//! ```

mod dynamic;
mod options;

pub use options::{AsyncCopies, Fibres, Options, Streams};

use std::ffi::CString;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Path of the virtual driver; empty where it cannot be built (it needs Linux on x86-64).
pub const LIBRARY: &str = env!("VCUDA_DRIVER");
/// Path of the virtual cuBLAS.
pub const CUBLAS: &str = env!("VCUDA_CUBLAS");
/// Path of the virtual NVML, which answers to `libnvidia-ml.so.1` where it is preloaded.
pub const NVML: &str = env!("VCUDA_NVML");
/// Path of the sanitizer's library, to come before the others in `LD_PRELOAD`; empty in an ordinary
/// build.
pub const SANITIZER_RUNTIME: &str = env!("VCUDA_RUNTIME");

/// Which driver `cudarc` finds in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// This crate's.
    Virtual,
    /// A real one: nothing was loaded, and options have no effect.
    Real,
    /// None: there is no real driver, and the virtual one could not be built.
    None,
}

/// What the virtual driver has counted since the session began or since [`reset_counters`].
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Kernels that ran, those of graphs included.
    pub launches: u64,
    pub graph_launches: u64,
    pub host_to_device_bytes: u64,
    pub device_to_host_bytes: u64,
    /// Within one device, unless asked for as a peer copy.
    pub device_to_device_bytes: u64,
    /// Between devices, and by `cuMemcpyPeer*` in any case.
    pub peer_bytes: u64,
    /// Allocations of device memory made.
    pub allocations: u64,
    pub live_allocations: u64,
    pub live_bytes: u64,
    pub peak_bytes: u64,
    /// Calls that made the host wait for a device, synchronous copies and frees among them.
    pub host_synchronisations: u64,
    /// Queries of a stream or an event that was not done: a host that waits by asking again.
    pub unready_queries: u64,
    /// Faults of kernels, copies and frees.
    pub faults: u64,
    /// Products of cuBLAS that ran.
    pub products: u64,
    /// `wgmma.mma_async` that warps issued.
    pub wgmma: u64,
}

/// The virtual driver with a test's options, for one test at a time: another session waits until
/// this one is dropped.
pub struct Session {
    driver: Driver,
    _turn: MutexGuard<'static, ()>,
}

impl Session {
    /// Whether options, counters and faults mean anything.
    pub fn is_virtual(&self) -> bool {
        self.driver == Driver::Virtual
    }

    pub fn driver(&self) -> Driver {
        self.driver
    }

    pub fn counters(&self) -> Counters {
        counters()
    }

    /// Pieces of work (kernels, copies, marks) that were given to a device and have not run; 0 on a
    /// real one.
    pub fn queued(&self, device: usize) -> u64 {
        API.get().map_or(0, |api| (api.queued)(device as i32))
    }

    /// The text of the last fault since the session began.
    pub fn last_fault(&self) -> Option<String> {
        last_fault()
    }
}

/// Begins a session: contexts, memory, errors and counters of earlier ones are gone, and `options`
/// hold.
pub fn session(options: &Options) -> Session {
    static TURN: Mutex<()> = Mutex::new(());
    // A failed test poisons the lock, but leaves nothing behind that the reset would not clear.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let driver = install(&Options::default());
    if driver == Driver::Virtual {
        (api().reset)();
        set(options);
    }
    Session {
        driver,
        _turn: turn,
    }
}

/// Runs a test's body in a process of its own, so that tests use all cores: one process has one session at a time. In
/// this process where the GPU is real, and where tests run one after another.
///
/// # Panics
/// With what the test printed where it failed.
pub fn in_own_process(body: impl FnOnce()) {
    in_own_process_with(&[], body);
}

/// [`in_own_process`] with variables of the environment; where there is no process of its own, they are to be set for this
/// one by whoever starts it.
///
/// # Panics
/// As [`in_own_process`].
pub fn in_own_process_with(variables: &[(&str, &str)], body: impl FnOnce()) {
    const INSIDE: &str = "VCUDA_IN_OWN_PROCESS";
    let thread = std::thread::current();
    // The test runner names a test's thread after it.
    let test = thread.name().filter(|name| *name != "main");
    let inside = std::env::var_os(INSIDE).is_some();
    let (Some(test), false, Driver::Virtual) = (test, inside, install_default()) else {
        return body();
    };
    let program = std::env::current_exe().expect("a test has a file");
    let output = std::process::Command::new(program)
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(INSIDE, "1")
        .envs(variables.iter().copied())
        .output()
        .expect("a test can be started");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    // A name that is no test's would run none.
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{test} in a process of its own:\n{text}");
}

/// Makes the virtual driver the one that `cudarc` will find, unless there is a real one. Call it
/// before `cudarc`.
pub fn install(options: &Options) -> Driver {
    static DRIVER: OnceLock<Driver> = OnceLock::new();
    let driver = *DRIVER.get_or_init(load);
    if driver == Driver::Virtual {
        set(options);
    }
    driver
}

/// [`install`] with the options of the environment (`VCUDA_*`).
pub fn install_default() -> Driver {
    install(&Options::default())
}

/// Sets what `options` names and leaves the rest.
pub fn set(options: &Options) {
    for (name, value) in options.pairs() {
        let (name, value) = (CString::new(name).unwrap(), CString::new(value).unwrap());
        let refused = (api().set_option)(name.as_ptr(), value.as_ptr());
        assert_eq!(
            refused, 0,
            "the virtual driver refuses {name:?} = {value:?}"
        );
    }
}

/// Back to the options of the environment.
pub fn reset_options() {
    (api().reset_options)();
}

/// The counters of the virtual driver; all zero on a real one.
pub fn counters() -> Counters {
    let mut counters = Counters::default();
    if let Some(api) = API.get() {
        (api.counters)(&mut counters);
    }
    counters
}

/// Counts from zero again; what is allocated stays counted.
pub fn reset_counters() {
    if let Some(api) = API.get() {
        (api.reset_counters)();
    }
}

/// The text of the last fault: what went wrong, in which kernel, block and thread.
pub fn last_fault() -> Option<String> {
    let mut text = vec![0u8; 2048];
    let length = (API.get()?.last_fault)(text.as_mut_ptr().cast(), text.len());
    text.truncate(length.min(2047));
    (length > 0).then(|| String::from_utf8_lossy(&text).into_owned())
}

static API: OnceLock<dynamic::Api> = OnceLock::new();

fn api() -> &'static dynamic::Api {
    API.get()
        .expect("vcuda::install comes first, and finds no real driver")
}

/// Finds out which driver there is, and loads the virtual one if there is no other.
fn load() -> Driver {
    let forced = std::env::var_os("VCUDA_FORCE").is_some_and(|value| value == "1");
    if dynamic::is_virtual_driver_loaded()
        || (!LIBRARY.is_empty() && (forced || !dynamic::has_real_gpu()))
    {
        let api = dynamic::Api::load(LIBRARY, CUBLAS).unwrap_or_else(|error| panic!("{error}"));
        let _ = API.set(api);
        return Driver::Virtual;
    }
    if dynamic::has_real_gpu() {
        Driver::Real
    } else {
        Driver::None
    }
}
