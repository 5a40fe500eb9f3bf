//! Two devices: whose memory may be touched, and when.

use crate::{BLOCK, Gpu, error_of, grid, session};
use cudarc::driver::sys::CUresult::*;
use cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, PushKernelArg, result};
use vcuda::{Options, Streams};

#[test]
fn a_pointer_to_another_device_faults_without_peer_access() {
    for peer_access in [false, true] {
        let Some(session) = session(Options::default()) else {
            return;
        };
        let (here, there) = (Gpu::new(0), Gpu::new(1));
        let mut out = here.upload(&[0.0; BLOCK]);
        // SAFETY: plain allocations; pool memory is not opened by cuCtxEnablePeerAccess.
        let x = unsafe {
            there.stream.context().bind_to_thread().unwrap();
            let pointer = result::malloc_sync(BLOCK * 4).unwrap();
            result::memcpy_htod_sync(pointer, &[3.0f32; BLOCK]).unwrap();
            there.stream.upgrade_device_ptr::<f32>(pointer, BLOCK)
        };
        if peer_access {
            here.stream.context().bind_to_thread().unwrap();
            // SAFETY: both contexts live to the end of the test.
            unsafe {
                cudarc::driver::sys::cuCtxEnablePeerAccess(there.stream.context().cu_ctx(), 0)
            }
            .result()
            .unwrap();
        }
        let result = here.run("vcuda_read", 1, &mut out, &x, &[BLOCK as i32, 0]);
        if peer_access {
            assert_eq!(error_of(result), None);
            assert_eq!(here.stream.clone_dtoh(&out).unwrap(), [6.0; BLOCK]);
        } else {
            assert_eq!(error_of(result), Some(CUDA_ERROR_ILLEGAL_ADDRESS));
            assert!(
                session
                    .last_fault()
                    .unwrap()
                    .contains("device 0, vcuda_read")
            );
        }
    }
}

#[test]
fn pool_memory_needs_access_to_the_pool() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let (here, there) = (Gpu::new(0), Gpu::new(1));
    here.stream.context().bind_to_thread().unwrap();
    // SAFETY: both contexts live to the end of the test.
    unsafe { cudarc::driver::sys::cuCtxEnablePeerAccess(there.stream.context().cu_ctx(), 0) }
        .result()
        .unwrap();
    let x = there.upload(&[3.0; BLOCK]);
    there.stream.synchronize().unwrap();
    let mut out = here.upload(&[0.0; BLOCK]);
    let result = here.run("vcuda_read", 1, &mut out, &x, &[BLOCK as i32, 0]);
    assert_eq!(error_of(result), Some(CUDA_ERROR_ILLEGAL_ADDRESS));
}

/// Queues a copy on the target's stream. (`CudaStream::memcpy_dtod` would add a wait of its own.)
fn copy_to_peer(source: &Gpu, from: &CudaSlice<f32>, target: &Gpu, to: &mut CudaSlice<f32>) {
    let (source_context, target_context) = (source.stream.context(), target.stream.context());
    target_context.bind_to_thread().unwrap();
    let (from_pointer, to_pointer) = (
        from.device_ptr(&source.stream).0,
        to.device_ptr_mut(&target.stream).0,
    );
    // SAFETY: both arrays hold so many floats and outlive the stream's work.
    unsafe {
        let (to_ctx, from_ctx) = (target_context.cu_ctx(), source_context.cu_ctx());
        let stream = target.stream.cu_stream();
        result::memcpy_peer_async(
            to_ctx,
            to_pointer,
            from_ctx,
            from_pointer,
            from.num_bytes(),
            stream,
        )
        .unwrap();
    }
}

/// Device 1 copies what device 0 computes, with or without waiting for it; returns what arrived.
fn cross_devices(streams: Streams, with_wait: bool) -> Option<Vec<f32>> {
    let _session = session(Options {
        streams: Some(streams),
        ..Options::default()
    })?;
    let (source, target) = (Gpu::new(0), Gpu::new(1));
    let x = source.upload(&[1.0; BLOCK]);
    let produced = source.upload(&[0.0; BLOCK]);
    let mut received = target.upload(&[0.0; BLOCK]);
    source.stream.synchronize().unwrap();
    target.stream.synchronize().unwrap();

    let kernel = source.kernel("vcuda_write");
    // SAFETY: the arguments are the kernel's.
    unsafe {
        let mut launch = source.stream.launch_builder(&kernel);
        launch
            .arg(&produced)
            .arg(&x)
            .arg(&(BLOCK as i32))
            .arg(&0i32)
            .launch(grid(1, BLOCK as u32))
            .unwrap();
    }
    let event = source.stream.record_event(None).unwrap();
    if with_wait {
        target.stream.wait(&event).unwrap();
    }
    copy_to_peer(&source, &produced, &target, &mut received);
    target.stream.clone_dtoh(&received).ok()
}

#[test]
fn a_missing_event_wait_between_devices_shows() {
    for streams in [Streams::Eager, Streams::Lazy, Streams::Random(3)] {
        let Some(received) = cross_devices(streams, true) else {
            return;
        };
        assert_eq!(received, [2.0; BLOCK], "{streams:?}");
    }
    assert_ne!(cross_devices(Streams::Lazy, false).unwrap(), [2.0; BLOCK]);
    let shown =
        (1..10).any(|seed| cross_devices(Streams::Random(seed), false).unwrap() != [2.0; BLOCK]);
    assert!(shown, "none of nine random orders shows the missing wait");
}
