//! Device memory: out of bounds, after its end of life, before its first value.

use crate::{BLOCK, Gpu, error_of, grid, session};
use cudarc::driver::sys::CUresult::*;
use cudarc::driver::{DevicePtr, PushKernelArg, result};
use vcuda::Options;

/// What one thread past the end of an array leads to.
fn reach_past_the_end(kernel: &str, past: i32) {
    // 1000 floats end at 16 bytes, so that the next one lies on the guard page.
    let n = 1000;
    let Some(session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let (x, mut out) = (gpu.upload(&vec![1.0; n]), gpu.upload(&vec![0.0; n]));
    let result = gpu.run(kernel, 4, &mut out, &x, &[n as i32, past]);
    if past == 0 {
        assert_eq!(error_of(result), None);
        assert_eq!(gpu.stream.clone_dtoh(&out).unwrap(), vec![2.0; n]);
        return;
    }
    assert_eq!(error_of(result), Some(CUDA_ERROR_ILLEGAL_ADDRESS));
    let fault = session.last_fault().unwrap();
    assert!(
        fault.contains(kernel) && fault.contains("block (3,0,0) thread (232,0,0)"),
        "{fault}"
    );
    // As on a GPU, the context is lost from here on.
    assert_eq!(
        error_of(gpu.stream.synchronize()),
        Some(CUDA_ERROR_ILLEGAL_ADDRESS)
    );
}

#[test]
fn a_read_out_of_bounds_names_the_thread() {
    reach_past_the_end("vcuda_read", 0);
    reach_past_the_end("vcuda_read", 1);
}

#[test]
fn a_write_out_of_bounds_names_the_thread() {
    reach_past_the_end("vcuda_write", 0);
    reach_past_the_end("vcuda_write", 1);
}

#[test]
fn a_use_after_free_faults() {
    let Some(session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let (x, out) = (gpu.upload(&[1.0; BLOCK]), gpu.upload(&[1.0; BLOCK]));
    let kernel = gpu.kernel("vcuda_read");
    let freed = x.device_ptr(&gpu.stream).0;
    drop(x);
    // SAFETY: the pointer is dangling on purpose.
    unsafe {
        gpu.stream
            .launch_builder(&kernel)
            .arg(&out)
            .arg(&freed)
            .arg(&(BLOCK as i32))
            .arg(&0i32)
            .launch(grid(1, BLOCK as u32))
    }
    .unwrap();
    assert_eq!(
        error_of(gpu.stream.synchronize()),
        Some(CUDA_ERROR_ILLEGAL_ADDRESS)
    );
    assert!(session.last_fault().unwrap().contains("vcuda_read"));
}

#[test]
fn new_device_memory_is_nan() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    // SAFETY: reading it uninitialised is the point.
    let fresh = unsafe { gpu.stream.alloc::<f32>(1000) }.unwrap();
    assert!(
        gpu.stream
            .clone_dtoh(&fresh)
            .unwrap()
            .iter()
            .all(|value| value.is_nan())
    );
}

#[test]
fn a_copy_out_of_bounds_is_refused() {
    let Some(session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let x = gpu.upload(&[1.0; BLOCK]);
    let start = x.device_ptr(&gpu.stream).0;
    // SAFETY: the driver checks the range before it copies.
    let copied =
        unsafe { result::memset_d8_async(start, 0, BLOCK * 4 + 1, gpu.stream.cu_stream()) };
    assert_eq!(error_of(copied), Some(CUDA_ERROR_INVALID_VALUE));
    assert!(
        session
            .last_fault()
            .unwrap()
            .contains("not inside one allocation")
    );
}
