//! Copies, streams, events and host functions.

use crate::{Gpu, STREAMS, session, whole_numbers};
use cudarc::driver::{DevicePtr, DevicePtrMut, result, sys};
use std::sync::Mutex;
use vcuda::{Options, Streams};

#[test]
fn copies_go_round_in_every_order_of_streams() {
    for streams in STREAMS {
        let Some(session) = session(Options {
            streams: Some(streams),
            ..Options::default()
        }) else {
            return;
        };
        let gpu = Gpu::new(0);
        let values = whole_numbers(1003, 1);
        let x = gpu.stream.clone_htod(&values).unwrap();
        let y = gpu.stream.clone_dtod(&x).unwrap();
        // SAFETY: filled by the copy before it is read.
        let mut pinned = unsafe { gpu.stream.context().alloc_pinned::<f32>(values.len()) }.unwrap();
        gpu.stream.memcpy_dtoh(&y, &mut pinned).unwrap();
        gpu.stream.synchronize().unwrap();
        assert_eq!(pinned.as_slice().unwrap(), values);
        let bytes = values.len() as u64 * 4;
        let counters = session.counters();
        assert_eq!(counters.host_to_device_bytes, bytes);
        assert_eq!(counters.device_to_device_bytes, bytes);
        assert_eq!(counters.device_to_host_bytes, bytes);
        assert_eq!(counters.live_allocations, 2);
    }
}

#[test]
fn rows_are_copied_between_pitches() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let x = gpu.stream.clone_htod(&whole_numbers(6 * 4, 0)).unwrap();
    let mut y = gpu.stream.alloc_zeros::<f32>(3 * 4).unwrap();
    let copy = sys::CUDA_MEMCPY2D {
        srcXInBytes: 8,
        srcY: 0,
        srcHost: std::ptr::null(),
        srcArray: std::ptr::null_mut(),
        dstXInBytes: 0,
        dstY: 0,
        dstHost: std::ptr::null_mut(),
        dstArray: std::ptr::null_mut(),
        srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        srcDevice: x.device_ptr(&gpu.stream).0,
        srcPitch: 6 * 4,
        dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
        dstDevice: y.device_ptr_mut(&gpu.stream).0,
        dstPitch: 3 * 4,
        WidthInBytes: 3 * 4,
        Height: 4,
    };
    // SAFETY: both sides lie within their arrays.
    unsafe { sys::cuMemcpy2DAsync_v2(&copy, gpu.stream.cu_stream()) }
        .result()
        .unwrap();
    let values = whole_numbers(6 * 4, 0);
    let expected: Vec<f32> = values
        .chunks(6)
        .flat_map(|row| row[2..5].to_vec())
        .collect();
    assert_eq!(gpu.stream.clone_dtoh(&y).unwrap(), expected);
}

#[test]
fn events_order_streams_and_tell_time() {
    for streams in STREAMS {
        let Some(_session) = session(Options {
            streams: Some(streams),
            ..Options::default()
        }) else {
            return;
        };
        let gpu = Gpu::new(0);
        let other = gpu.stream.context().new_stream().unwrap();
        let x = gpu.stream.clone_htod(&vec![1.0; 5000]).unwrap();
        let mut y = gpu.stream.alloc_zeros::<f32>(5000).unwrap();
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let start = gpu.stream.record_event(timed).unwrap();
        for _ in 0..5 {
            gpu.axpy(&gpu.stream, &mut y, 1.0, &x);
            other.wait(&gpu.stream.record_event(None).unwrap()).unwrap();
            gpu.axpy(&other, &mut y, 2.0, &x);
            gpu.stream.wait(&other.record_event(None).unwrap()).unwrap();
        }
        let end = gpu.stream.record_event(timed).unwrap();
        assert!(start.elapsed_ms(&end).unwrap() > 0.0);
        assert_eq!(gpu.stream.clone_dtoh(&y).unwrap(), vec![15.0; 5000]);
    }
}

#[test]
fn the_null_stream_waits_for_blocking_streams_and_they_for_it() {
    let Some(_session) = session(Options {
        streams: Some(Streams::Lazy),
        ..Options::default()
    }) else {
        return;
    };
    let gpu = Gpu::new(0);
    let null = gpu.stream.context().default_stream();
    let x = null.clone_htod(&[1.0f32; 256]).unwrap();
    let y = null.clone_htod(&[0.0f32; 256]).unwrap();
    let kernel = gpu.kernel("vcuda_axpy");
    gpu.stream.context().bind_to_thread().unwrap();
    // SAFETY: the arguments are the kernel's, and the stream is destroyed after its last use.
    unsafe {
        let blocking = result::stream::create(result::stream::StreamKind::Default).unwrap();
        let (mut to, mut from, mut a, mut n) =
            (y.device_ptr(&null).0, x.device_ptr(&null).0, 2.0f32, 256i32);
        let mut arguments = [
            (&raw mut to).cast(),
            (&raw mut from).cast(),
            (&raw mut a).cast(),
            (&raw mut n).cast(),
        ];
        result::launch_kernel(
            kernel.cu_function(),
            (1, 1, 1),
            (256, 1, 1),
            0,
            blocking,
            &mut arguments,
        )
        .unwrap();
        assert_eq!(null.clone_dtoh(&y).unwrap(), [2.0; 256]);
        result::stream::destroy(blocking).unwrap();
    }
}

#[test]
fn host_functions_run_in_stream_order() {
    for streams in STREAMS {
        let Some(_session) = session(Options {
            streams: Some(streams),
            ..Options::default()
        }) else {
            return;
        };
        let gpu = Gpu::new(0);
        unsafe extern "C" fn note(order: *mut std::ffi::c_void) {
            // SAFETY: the test hands in its own list.
            unsafe { &*order.cast::<Mutex<Vec<u32>>>() }
                .lock()
                .unwrap()
                .push(1);
        }
        let order = Mutex::new(Vec::<u32>::new());
        gpu.stream.context().bind_to_thread().unwrap();
        // SAFETY: the list outlives the stream's work.
        unsafe {
            result::stream::launch_host_function(
                gpu.stream.cu_stream(),
                note,
                (&raw const order) as _,
            )
        }
        .unwrap();
        gpu.stream.synchronize().unwrap();
        assert_eq!(*order.lock().unwrap(), [1]);
    }
}
