//! What a driver refuses, and what goes wrong on request.

use crate::{Gpu, session};
use cudarc::driver::sys::{CUfunction_attribute_enum, CUresult::*};
use cudarc::driver::{CudaContext, CudaSlice, DriverError, result};
use cudarc::nvrtc::Ptx;
use vcuda::Options;

#[test]
fn memory_runs_out_and_comes_back() {
    let Some(session) = session(Options {
        memory: Some(1 << 20),
        ..Options::default()
    }) else {
        return;
    };
    let gpu = Gpu::new(0);
    let half = gpu.stream.alloc_zeros::<u8>(600 << 10).unwrap();
    let refused: Result<CudaSlice<u8>, DriverError> = gpu.stream.alloc_zeros::<u8>(600 << 10);
    assert_eq!(refused.unwrap_err().0, CUDA_ERROR_OUT_OF_MEMORY);
    assert_eq!(
        gpu.stream.context().mem_get_info().unwrap(),
        (424 << 10, 1 << 20)
    );
    drop(half);
    gpu.stream.synchronize().unwrap();
    gpu.stream.alloc_zeros::<u8>(600 << 10).unwrap();
    assert_eq!(session.counters().peak_bytes, 600 << 10);
}

#[test]
fn addresses_are_used_again_when_all_have_been_used() {
    let Some(session) = session(Options {
        addresses: Some(10 << 20),
        ..Options::default()
    }) else {
        return;
    };
    let gpu = Gpu::new(0);
    gpu.stream.context().bind_to_thread().unwrap();
    let sizes = [300 << 10, 1 << 20, 20 << 10];
    for _ in 0..100 {
        // SAFETY: allocated and freed, in another order.
        unsafe {
            let [first, second, third] = sizes.map(|bytes| result::malloc_sync(bytes).unwrap());
            result::free_sync(second).unwrap();
            result::free_sync(third).unwrap();
            result::free_sync(first).unwrap();
        }
    }
    let counters = session.counters();
    assert_eq!(
        (counters.allocations, counters.live_bytes, counters.faults),
        (300, 0, 0)
    );
}

#[test]
fn an_index_without_a_device_is_refused() {
    let Some(_session) = session(Options {
        devices: Some(1),
        ..Options::default()
    }) else {
        return;
    };
    assert_eq!(CudaContext::device_count().unwrap(), 1);
    assert_eq!(
        CudaContext::new(1).unwrap_err().0,
        CUDA_ERROR_INVALID_DEVICE
    );
}

#[test]
fn an_old_driver_and_an_old_device_load_no_module() {
    for (driver_version, capability, error) in [
        (11040, 90, CUDA_ERROR_UNSUPPORTED_PTX_VERSION),
        (13000, 61, CUDA_ERROR_NO_BINARY_FOR_GPU),
    ] {
        let options = Options {
            driver_version: Some(driver_version),
            capability: Some(capability),
            ..Options::default()
        };
        let Some(_session) = session(options) else {
            return;
        };
        let context = CudaContext::new(0).unwrap();
        let loaded = context.load_module(Ptx::from_binary(vec![0; 16]));
        assert_eq!(loaded.err().map(|e| e.0), Some(error));
    }
}

#[test]
fn the_nth_launch_fails_and_takes_the_context_with_it() {
    let Some(session) = session(Options {
        fail_at: Some(2),
        ..Options::default()
    }) else {
        return;
    };
    let gpu = Gpu::new(0);
    let x = gpu.stream.clone_htod(&[1.0f32; 10]).unwrap();
    let mut y = gpu.stream.alloc_zeros::<f32>(10).unwrap();
    gpu.axpy(&gpu.stream, &mut y, 1.0, &x);
    gpu.stream.synchronize().unwrap();
    gpu.axpy(&gpu.stream, &mut y, 1.0, &x);
    assert_eq!(
        gpu.stream.synchronize().unwrap_err().0,
        CUDA_ERROR_LAUNCH_FAILED
    );
    assert_eq!(
        gpu.stream.alloc_zeros::<f32>(1).unwrap_err().0,
        CUDA_ERROR_LAUNCH_FAILED
    );
    assert!(session.last_fault().unwrap().contains("vcuda_axpy"));
}

#[test]
fn a_hanging_launch_ends_when_the_option_is_lifted() {
    let Some(_session) = session(Options {
        hang_at: Some(1),
        ..Options::default()
    }) else {
        return;
    };
    let gpu = Gpu::new(0);
    let x = gpu.stream.clone_htod(&[1.0f32; 10]).unwrap();
    let mut y = gpu.stream.alloc_zeros::<f32>(10).unwrap();
    gpu.axpy(&gpu.stream, &mut y, 1.0, &x);
    let event = gpu.stream.record_event(None).unwrap();
    assert!(!event.try_is_complete().unwrap());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| gpu.stream.synchronize());
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waiting.is_finished());
        vcuda::set(&Options {
            hang_at: Some(0),
            ..Options::default()
        });
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(gpu.stream.clone_dtoh(&y).unwrap(), [1.0; 10]);
}

#[test]
fn as_many_blocks_fit_a_multiprocessor_as_threads_and_allowed_shared_memory_permit() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let kernel = Gpu::new(0).kernel("vcuda_axpy");
    let fit = |threads, shared| {
        kernel
            .occupancy_max_active_blocks_per_multiprocessor(threads, shared, None)
            .unwrap()
    };
    // 64 registers a thread; the kernel is for no more than 256 threads.
    assert_eq!(
        [32, 128, 256, 512].map(|threads| fit(threads, 0)),
        [32, 8, 4, 0]
    );
    assert_eq!([30, 60].map(|kib| fit(128, kib << 10)), [7, 0]);
    let most = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    kernel.set_attribute(most, 227 << 10).unwrap();
    assert_eq!(
        [30, 60, 113, 227].map(|kib| fit(128, kib << 10)),
        [7, 3, 2, 1]
    );
}
