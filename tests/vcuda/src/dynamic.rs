//! The dynamic loader: the only unsafe code of the crate.

use crate::Counters;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::mem::transmute_copy;

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlclose(library: *mut c_void) -> c_int;
    fn dlerror() -> *const c_char;
}

const RTLD_LAZY: c_int = 1;
const RTLD_NOLOAD: c_int = 4;
const RTLD_GLOBAL: c_int = 0x100;

/// The functions of the virtual driver that are not CUDA's (`emu/driver/options.cpp`).
pub struct Api {
    pub set_option: extern "C" fn(*const c_char, *const c_char) -> c_int,
    pub reset_options: extern "C" fn(),
    pub reset: extern "C" fn(),
    pub counters: extern "C" fn(*mut Counters),
    pub reset_counters: extern "C" fn(),
    pub queued: extern "C" fn(c_int) -> u64,
    pub last_fault: extern "C" fn(*mut c_char, usize) -> usize,
}

impl Api {
    /// Loads both libraries for good, or uses those that were preloaded.
    pub fn load(driver: &str, cublas: &str) -> Result<Self, String> {
        let library = match open("libcuda.so", RTLD_LAZY | RTLD_NOLOAD) {
            Ok(loaded) if symbol(loaded, "vcuda_reset").is_some() => loaded,
            _ => {
                // Global, because the virtual cuBLAS takes its functions from the driver.
                let loaded = open(driver, RTLD_LAZY | RTLD_GLOBAL)?;
                open(cublas, RTLD_LAZY | RTLD_GLOBAL)?;
                loaded
            }
        };
        let function =
            |name: &str| symbol(library, name).ok_or_else(|| format!("{driver} lacks {name}"));
        // SAFETY: the names and signatures are those of emu/driver/options.cpp, which is built
        // together with this crate.
        unsafe {
            Ok(Self {
                set_option: transmute_copy(&function("vcuda_set_option")?),
                reset_options: transmute_copy(&function("vcuda_reset_options")?),
                reset: transmute_copy(&function("vcuda_reset")?),
                counters: transmute_copy(&function("vcuda_counters")?),
                reset_counters: transmute_copy(&function("vcuda_reset_counters")?),
                queued: transmute_copy(&function("vcuda_queued")?),
                last_fault: transmute_copy(&function("vcuda_last_fault")?),
            })
        }
    }
}

/// Whether `libcuda.so` already means the virtual driver, as under `LD_PRELOAD`.
pub fn is_virtual_driver_loaded() -> bool {
    open("libcuda.so", RTLD_LAZY | RTLD_NOLOAD)
        .is_ok_and(|library| symbol(library, "vcuda_reset").is_some())
}

/// Whether a real driver answers and has a device. Leaves no library loaded where there is none.
pub fn has_real_gpu() -> bool {
    ["libcuda.so.1", "libcuda.so"].iter().any(|name| {
        let Ok(library) = open(name, RTLD_LAZY) else {
            return false;
        };
        let count = device_count(library).filter(|_| symbol(library, "vcuda_reset").is_none());
        if count.is_none_or(|count| count == 0) {
            // A driver without devices must not stay: its name would hide the virtual one.
            // SAFETY: the handle is from dlopen and is not used again.
            unsafe { dlclose(library) };
        }
        count.is_some_and(|count| count > 0)
    })
}

fn device_count(library: *mut c_void) -> Option<c_int> {
    let (init, get_count) = (
        symbol(library, "cuInit")?,
        symbol(library, "cuDeviceGetCount")?,
    );
    let mut count = 0;
    // SAFETY: the signatures are those of the CUDA driver API.
    unsafe {
        let init: extern "C" fn(c_uint) -> c_int = transmute_copy(&init);
        let get_count: extern "C" fn(*mut c_int) -> c_int = transmute_copy(&get_count);
        (init(0) == 0 && get_count(&mut count) == 0).then_some(count)
    }
}

fn open(path: &str, flags: c_int) -> Result<*mut c_void, String> {
    let path = CString::new(path).map_err(|error| error.to_string())?;
    // SAFETY: the path is a C string; what runs at loading is ours or the real driver's.
    let library = unsafe { dlopen(path.as_ptr(), flags) };
    if !library.is_null() {
        return Ok(library);
    }
    // SAFETY: dlerror returns null or a C string that lives until the thread's next call.
    let message = unsafe {
        let text = dlerror();
        if text.is_null() {
            "unknown error".into()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    };
    Err(format!("cannot load {path:?}: {message}"))
}

fn symbol(library: *mut c_void, name: &str) -> Option<*mut c_void> {
    let name = CString::new(name).ok()?;
    // SAFETY: the handle is from dlopen, the name is a C string.
    let address = unsafe { dlsym(library, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}
