//! The libraries are found, and describe their devices.

use crate::{Gpu, session};
use cudarc::cublas::{CudaBlas, sys as blas};
use cudarc::driver::CudaContext;
use cudarc::driver::sys::{self, CUresult::*};
use cudarc::nvrtc::Ptx;
use std::process::Command;
use vcuda::Options;

#[test]
fn the_devices_describe_themselves() {
    let Some(_session) = session(Options {
        memory: Some(3 << 30),
        ..Options::default()
    }) else {
        return;
    };
    // SAFETY: this looks for the library and nothing else.
    assert!(unsafe { sys::is_culib_present() });
    assert_eq!(CudaContext::device_count().unwrap(), 2);
    let contexts = [CudaContext::new(0).unwrap(), CudaContext::new(1).unwrap()];
    assert_eq!(contexts[1].name().unwrap(), "Virtual CUDA device 1");
    assert_eq!(contexts[0].compute_capability().unwrap(), (9, 0));
    assert_eq!(contexts[0].total_mem().unwrap(), 3 << 30);
    assert_ne!(
        contexts[0].uuid().unwrap().bytes,
        contexts[1].uuid().unwrap().bytes
    );
    let multiprocessors = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
    assert_eq!(contexts[0].attribute(multiprocessors).unwrap(), 132);
    let kernel = Gpu::new(0).kernel("vcuda_axpy");
    assert_eq!(kernel.max_threads_per_block().unwrap(), 256);
    assert_eq!(
        kernel
            .occupancy_max_active_blocks_per_multiprocessor(256, 0, None)
            .unwrap(),
        4
    );
}

#[test]
fn functions_are_found_by_name() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let _gpu = Gpu::new(0);
    let mut found = std::ptr::null_mut();
    let mut status = sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SUCCESS;
    // SAFETY: the pointers are to locals.
    unsafe { sys::cuGetProcAddress_v2(c"cuMemAlloc".as_ptr(), &mut found, 12080, 0, &mut status) }
        .result()
        .unwrap();
    assert!(!found.is_null());
    let kernel = CudaContext::new(0)
        .unwrap()
        .load_module(Ptx::from_binary(vec![0; 16]))
        .unwrap();
    assert_eq!(
        kernel.load_function("no_such_kernel").unwrap_err().0,
        CUDA_ERROR_NOT_FOUND
    );
}

/// Started by the test below in a process of its own.
#[test]
fn child_sees_devices_without_loading_anything() {
    if std::env::var_os("VCUDA_CHILD").is_none() {
        return;
    }
    // SAFETY: this looks for the libraries and nothing else.
    assert!(unsafe { sys::is_culib_present() && blas::is_culib_present() });
    println!("devices: {}", CudaContext::device_count().unwrap());
    CudaBlas::new(CudaContext::new(1).unwrap().default_stream()).unwrap();
}

#[test]
fn a_preloaded_driver_needs_no_help() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "loading::child_sees_devices_without_loading_anything",
            "--nocapture",
        ])
        .env("VCUDA_CHILD", "1")
        .env("LD_PRELOAD", [vcuda::LIBRARY, vcuda::CUBLAS].join(":"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("devices: 2"),
        "{output:?}"
    );
}
