//! The virtual CUDA driver finds planted mistakes, and finds none in their twins.
//!
//! The kernels stand in `tests/vcuda/kernels/faulty.cu`. They exist on the virtual driver only, so on a machine with a
//! real GPU these tests do nothing. What only a sanitizer finds is tested in `vcuda_sanitizers.rs`.
#![cfg(feature = "cuda")]

use cudarc::driver::sys::CUresult::{self, *};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DevicePtrMut,
    DriverError, LaunchConfig, PushKernelArg, result,
};
use cudarc::nvrtc::Ptx;
use std::sync::Arc;
use vcuda::{AsyncCopies, Fibres, Options, Session, Streams};

const BLOCK: usize = 256;

/// A virtual device with the test kernels.
struct Gpu {
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
}

impl Gpu {
    fn new(ordinal: usize) -> Self {
        let context = CudaContext::new(ordinal).unwrap();
        // SAFETY: the tests order their streams themselves.
        unsafe { context.disable_event_tracking() };
        let module = context.load_module(Ptx::from_binary(vec![0; 16])).unwrap();
        Self {
            stream: context.new_stream().unwrap(),
            module,
        }
    }

    fn kernel(&self, name: &str) -> CudaFunction {
        self.module.load_function(name).unwrap()
    }

    fn upload(&self, values: &[f32]) -> CudaSlice<f32> {
        self.stream.clone_htod(values).unwrap()
    }

    /// Launches a kernel that takes two arrays and perhaps two numbers, and waits for its end.
    fn run(
        &self,
        kernel: &str,
        blocks: u32,
        out: &mut CudaSlice<f32>,
        x: &CudaSlice<f32>,
        numbers: &[i32],
    ) -> Result<(), DriverError> {
        let kernel = self.kernel(kernel);
        let mut launch = self.stream.launch_builder(&kernel);
        launch.arg(out).arg(x);
        for number in numbers {
            launch.arg(number);
        }
        // SAFETY: what the kernels do wrong is what the virtual driver has to bear.
        unsafe { launch.launch(config(blocks, BLOCK)) }?;
        self.stream.synchronize()
    }
}

fn config(blocks: u32, threads: usize) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (threads as u32, 1, 1),
        shared_mem_bytes: 0,
    }
}

fn session(options: Options) -> Option<Session> {
    let session = vcuda::session(&options);
    session.is_virtual().then_some(session)
}

fn error_of(result: Result<(), DriverError>) -> Option<CUresult> {
    result.err().map(|error| error.0)
}

/// Whether a block sum comes out right in every order of threads.
fn sums_are_right(kernel: &str) -> Vec<bool> {
    let mut right = vec![];
    for fibres in Fibres::ALL {
        let Some(_session) = session(Options {
            fibres: Some(fibres),
            ..Options::default()
        }) else {
            return vec![];
        };
        let gpu = Gpu::new(0);
        let values: Vec<f32> = (0..2 * BLOCK).map(|i| i as f32).collect();
        let (x, mut out) = (gpu.upload(&values), gpu.upload(&[0.0; 2]));
        gpu.run(kernel, 2, &mut out, &x, &[]).unwrap();
        let expected: Vec<f32> = values
            .chunks(BLOCK)
            .map(|block| block.iter().sum())
            .collect();
        right.push(gpu.stream.clone_dtoh(&out).unwrap() == expected);
    }
    right
}

#[test]
fn a_missing_barrier_gives_wrong_sums() {
    assert!(sums_are_right("vcuda_block_sum").iter().all(|right| *right));
    let right = sums_are_right("vcuda_block_sum_without_barrier");
    assert!(
        right.is_empty() || right.contains(&false),
        "no order of threads shows the missing barrier"
    );
}

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
            .launch(config(1, BLOCK))
    }
    .unwrap();
    assert_eq!(
        error_of(gpu.stream.synchronize()),
        Some(CUDA_ERROR_ILLEGAL_ADDRESS)
    );
    assert!(session.last_fault().unwrap().contains("vcuda_read"));
}

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

/// Runs a kernel that takes an array and a number, and returns the array.
fn run_with_switch(
    gpu: &Gpu,
    kernel: &str,
    threads: usize,
    shared: u32,
    switch: i32,
) -> Result<Vec<f32>, DriverError> {
    let mut out = gpu.upload(&[0.0; 2 * BLOCK]);
    let kernel = gpu.kernel(kernel);
    // SAFETY: what the kernels do wrong is what the virtual driver has to bear.
    unsafe {
        gpu.stream
            .launch_builder(&kernel)
            .arg(&mut out)
            .arg(&switch)
            .launch(LaunchConfig {
                shared_mem_bytes: shared,
                ..config(1, threads)
            })?;
    }
    gpu.stream.clone_dtoh(&out)
}

#[test]
fn a_divergent_barrier_is_diagnosed() {
    let Some(session) = session(Options::default()) else {
        return;
    };
    run_with_switch(&Gpu::new(0), "vcuda_barriers", BLOCK, 0, 0).unwrap();
    let error = run_with_switch(&Gpu::new(0), "vcuda_barriers", BLOCK, 0, 1).unwrap_err();
    assert_eq!(error.0, CUDA_ERROR_LAUNCH_FAILED);
    let fault = session.last_fault().unwrap();
    assert!(
        fault.contains("divergent __syncthreads") && fault.contains("faulty.cu:"),
        "{fault}"
    );
}

#[test]
fn a_shuffle_that_waits_for_a_lane_that_left_is_diagnosed() {
    let Some(session) = session(Options::default()) else {
        return;
    };
    let out = run_with_switch(&Gpu::new(0), "vcuda_shuffle", 32, 0, 0).unwrap();
    assert_eq!(out[..4], [1.0, 0.0, 3.0, 2.0]);
    let error = run_with_switch(&Gpu::new(0), "vcuda_shuffle", 32, 0, 1).unwrap_err();
    assert_eq!(error.0, CUDA_ERROR_LAUNCH_FAILED);
    assert!(
        session
            .last_fault()
            .unwrap()
            .contains("some lanes of its mask never arrive")
    );
}

#[test]
fn uninitialised_shared_memory_is_nan() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let shared = (BLOCK * 4) as u32;
    let cleared = run_with_switch(&gpu, "vcuda_shared_start", BLOCK, shared, 1).unwrap();
    assert_eq!(cleared, [[1.0; BLOCK], [2.0; BLOCK]].concat());
    let uncleared = run_with_switch(&gpu, "vcuda_shared_start", BLOCK, shared, 0).unwrap();
    assert!(uncleared.iter().all(|value| value.is_nan()));
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
fn data_of_a_cp_async_is_not_there_before_the_wait() {
    for copies in [AsyncCopies::Eager, AsyncCopies::Deferred] {
        let Some(_session) = session(Options {
            async_copies: Some(copies),
            ..Options::default()
        }) else {
            return;
        };
        let gpu = Gpu::new(0);
        let values: Vec<f32> = (0..BLOCK).map(|i| i as f32).collect();
        let reversed: Vec<f32> = values.iter().rev().copied().collect();
        let (x, mut out) = (gpu.upload(&values), gpu.upload(&[0.0; BLOCK]));
        gpu.run("vcuda_copy_behind", 1, &mut out, &x, &[]).unwrap();
        assert_eq!(gpu.stream.clone_dtoh(&out).unwrap(), reversed);
        gpu.run("vcuda_copy_behind_without_wait", 1, &mut out, &x, &[])
            .unwrap();
        let right = gpu.stream.clone_dtoh(&out).unwrap() == reversed;
        assert_eq!(
            right,
            copies == AsyncCopies::Eager,
            "deferred copies show the missing wait"
        );
    }
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
            .launch(config(1, BLOCK))
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

#[test]
fn a_launch_beyond_the_limits_is_refused_and_forgotten() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let (x, mut out) = (gpu.upload(&[1.0; BLOCK]), gpu.upload(&[0.0; BLOCK]));
    let kernel = gpu.kernel("vcuda_read");
    for (threads, shared) in [(BLOCK + 1, 0), (0, 0), (BLOCK, 49 << 10)] {
        let mut launch = gpu.stream.launch_builder(&kernel);
        launch.arg(&mut out).arg(&x).arg(&1i32).arg(&0i32);
        // SAFETY: nothing is launched.
        let refused = unsafe {
            launch.launch(LaunchConfig {
                shared_mem_bytes: shared,
                ..config(1, threads)
            })
        };
        assert_eq!(
            refused.err().map(|error| error.0),
            Some(CUDA_ERROR_INVALID_VALUE),
            "{threads} {shared}"
        );
    }
    gpu.run("vcuda_read", 1, &mut out, &x, &[BLOCK as i32, 0])
        .unwrap();
}

#[test]
fn a_division_by_zero_ends_the_kernel_and_not_the_process() {
    let Some(session) = session(Options::default()) else {
        return;
    };
    run_with_switch(&Gpu::new(0), "vcuda_divide", BLOCK, 0, 7).unwrap();
    assert!(run_with_switch(&Gpu::new(0), "vcuda_divide", BLOCK, 0, 0).is_err());
    assert!(session.last_fault().unwrap().contains("division by zero"));
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
