//! `cudarc`, unmodified, on the virtual CUDA driver.
//!
//! The kernels stand in `tests/vcuda/kernels/right.cu`. They exist on the virtual driver only, so on a machine with a real
//! GPU these tests do nothing.
#![cfg(feature = "cuda")]

use cudarc::cublas::{CudaBlas, Gemm, GemmConfig, sys as blas};
use cudarc::driver::sys::{self, CUresult::*};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DevicePtrMut,
    DriverError, LaunchConfig, PushKernelArg, result,
};
use cudarc::nvrtc::Ptx;
use half::{bf16, f16};
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex};
use vcuda::{AsyncCopies, Fibres, Options, Session, Streams};

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

    /// y += a·x on a stream.
    fn axpy(&self, stream: &Arc<CudaStream>, y: &mut CudaSlice<f32>, a: f32, x: &CudaSlice<f32>) {
        let (kernel, n) = (self.kernel("vcuda_axpy"), x.len() as i32);
        // SAFETY: the arguments are the kernel's.
        unsafe {
            stream
                .launch_builder(&kernel)
                .arg(y)
                .arg(x)
                .arg(&a)
                .arg(&n)
                .launch(grid((n as u32).div_ceil(256), 256))
        }
        .unwrap();
    }
}

fn grid(blocks: u32, threads: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (threads, 1, 1),
        shared_mem_bytes: 0,
    }
}

fn session(options: Options) -> Option<Session> {
    let session = vcuda::session(&options);
    session.is_virtual().then_some(session)
}

const STREAMS: [Streams; 4] = [
    Streams::Eager,
    Streams::Lazy,
    Streams::Random(1),
    Streams::Random(2),
];

/// Small integers, so that sums are exact whatever their order.
fn whole_numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 7 + seed * 13) % 11) as f32 - 5.0)
        .collect()
}

/// C[m,n] = A[m,k]·B[k,n], row by row.
fn product(a: &[f32], b: &[f32], m: usize, n: usize, k: usize) -> Vec<f32> {
    let element = |i: usize| (0..k).map(|d| a[i / n * k + d] * b[d * n + i % n]).sum();
    (0..m * n).map(element).collect()
}

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
fn reductions_and_products_come_out_right_in_every_order_of_threads() {
    for fibres in Fibres::ALL {
        let Some(_session) = session(Options {
            fibres: Some(fibres),
            ..Options::default()
        }) else {
            return;
        };
        let gpu = Gpu::new(0);
        let values = whole_numbers(10_000, 3);
        let x = gpu.stream.clone_htod(&values).unwrap();
        let mut total = gpu.stream.alloc_zeros::<f32>(1).unwrap();
        let kernel = gpu.kernel("vcuda_sum");
        // SAFETY: the arguments are the kernel's.
        unsafe {
            gpu.stream
                .launch_builder(&kernel)
                .arg(&mut total)
                .arg(&x)
                .arg(&10_000i32)
                .launch(grid(7, 256))
        }
        .unwrap();
        assert_eq!(
            gpu.stream.clone_dtoh(&total).unwrap(),
            [values.iter().sum::<f32>()]
        );

        let (m, n, k) = (70usize, 90usize, 33usize);
        let (a, b) = (whole_numbers(m * k, 1), whole_numbers(k * n, 2));
        let (da, db) = (
            gpu.stream.clone_htod(&a).unwrap(),
            gpu.stream.clone_htod(&b).unwrap(),
        );
        let mut c = gpu.stream.alloc_zeros::<f32>(m * n).unwrap();
        let kernel = gpu.kernel("vcuda_product");
        let blocks = LaunchConfig {
            grid_dim: (2, 2, 1),
            ..grid(1, 64)
        };
        let (im, in_, ik) = (m as i32, n as i32, k as i32);
        let mut launch = gpu.stream.launch_builder(&kernel);
        // SAFETY: the arguments are the kernel's.
        unsafe {
            launch
                .arg(&mut c)
                .arg(&da)
                .arg(&db)
                .arg(&im)
                .arg(&in_)
                .arg(&ik)
                .launch(blocks)
        }
        .unwrap();
        assert_eq!(gpu.stream.clone_dtoh(&c).unwrap(), product(&a, &b, m, n, k));
    }
}

#[test]
fn tensor_core_products_come_out_right() {
    for async_copies in [AsyncCopies::Eager, AsyncCopies::Deferred] {
        let Some(_session) = session(Options {
            async_copies: Some(async_copies),
            ..Options::default()
        }) else {
            return;
        };
        let gpu = Gpu::new(0);
        let (m, n, k) = (128usize, 64usize, 96usize);
        let (a, b) = (whole_numbers(m * k, 1), whole_numbers(n * k, 2));
        let transposed: Vec<f32> = (0..k * n).map(|i| b[i % n * k + i / n]).collect();
        let upload = |v: &[f32]| {
            gpu.stream
                .clone_htod(
                    &v.iter()
                        .map(|x| bf16::from_f32(*x).to_bits())
                        .collect::<Vec<_>>(),
                )
                .unwrap()
        };
        let (da, db) = (upload(&a), upload(&b));
        let mut c = gpu.stream.alloc_zeros::<f32>(m * n).unwrap();
        let kernel = gpu.kernel("vcuda_product_bf16");
        let config = LaunchConfig {
            grid_dim: (1, 2, 1),
            shared_mem_bytes: 4 * 64 * 40 * 2,
            ..grid(1, 128)
        };
        let (im, in_, ik) = (m as i32, n as i32, k as i32);
        let mut launch = gpu.stream.launch_builder(&kernel);
        // SAFETY: the arguments are the kernel's.
        unsafe {
            launch
                .arg(&mut c)
                .arg(&da)
                .arg(&db)
                .arg(&im)
                .arg(&in_)
                .arg(&ik)
                .launch(config)
        }
        .unwrap();
        assert_eq!(
            gpu.stream.clone_dtoh(&c).unwrap(),
            product(&a, &transposed, m, n, k)
        );
    }
}

#[test]
fn single_tensor_core_instructions_come_out_right() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let mut d = gpu.stream.alloc_zeros::<f32>(16 * 8).unwrap();

    let (a, b) = (whole_numbers(16 * 8, 1), whole_numbers(8 * 8, 2));
    let (da, db) = (
        gpu.stream.clone_htod(&a).unwrap(),
        gpu.stream.clone_htod(&b).unwrap(),
    );
    let kernel = gpu.kernel("vcuda_mma_tf32");
    // SAFETY: the arguments are the kernel's.
    unsafe {
        gpu.stream
            .launch_builder(&kernel)
            .arg(&mut d)
            .arg(&da)
            .arg(&db)
            .launch(grid(1, 32))
    }
    .unwrap();
    assert_eq!(
        gpu.stream.clone_dtoh(&d).unwrap(),
        product(&a, &b, 16, 8, 8)
    );

    let (a, b) = (whole_numbers(16 * 16, 3), whole_numbers(16 * 8, 4));
    let halves = |v: &[f32]| {
        v.iter()
            .map(|x| f16::from_f32(*x).to_bits())
            .collect::<Vec<_>>()
    };
    let (da, db) = (
        gpu.stream.clone_htod(&halves(&a)).unwrap(),
        gpu.stream.clone_htod(&halves(&b)).unwrap(),
    );
    let kernel = gpu.kernel("vcuda_mma_f16");
    // SAFETY: the arguments are the kernel's.
    unsafe {
        gpu.stream
            .launch_builder(&kernel)
            .arg(&mut d)
            .arg(&da)
            .arg(&db)
            .launch(grid(1, 32))
    }
    .unwrap();
    assert_eq!(
        gpu.stream.clone_dtoh(&d).unwrap(),
        product(&a, &b, 16, 8, 16)
    );
}

#[test]
fn built_in_functions_give_what_cuda_gives() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let mut out = gpu.stream.alloc_zeros::<f32>(13 * 64).unwrap();
    let kernel = gpu.kernel("vcuda_builtins");
    // SAFETY: the arguments are the kernel's.
    unsafe {
        gpu.stream
            .launch_builder(&kernel)
            .arg(&mut out)
            .launch(grid(1, 64))
    }
    .unwrap();
    let values = gpu.stream.clone_dtoh(&out).unwrap();
    // What thread 37, lane 5 of the second warp, sees.
    let seen: Vec<f32> = (0..13).map(|i| values[i * 64 + 37]).collect();
    let votes = 11.0 + 0.0 + 1000.0; // of 32..64, eleven are multiples of three; none is 7; all are below 64
    let reduced = (32..64).sum::<i32>() as f32 + 63.0 + 32.0;
    let half = f16::from_f32(0.1).to_f32();
    let expected = [
        votes,
        34.0,
        33.0,
        reduced,
        3210.0,
        half,
        -1.0,
        1.0,
        1.25,
        3.0,
        2.0,
        4.0,
        1.0 + 1.0 / 1024.0,
    ];
    assert_eq!(seen, expected);
}

/// Two host threads, one per GPU: each computes, and they exchange what they have, ordered by events. Returns whether
/// both end with the right numbers.
fn exchange(ordinals: [usize; 2], rounds: usize) -> bool {
    const N: usize = 1000;
    let gpus: Vec<Gpu> = ordinals.iter().map(|ordinal| Gpu::new(*ordinal)).collect();
    let addresses = Mutex::new([0u64; 2]);
    let events = Mutex::new([None, None]);
    let together = Barrier::new(2);
    let right: Vec<bool> = std::thread::scope(|scope| {
        let worker = |me: usize| {
            let (gpu, other) = (&gpus[me], &gpus[1 - me]);
            let (context, peer) = (gpu.stream.context().clone(), other.stream.context().clone());
            let (addresses, events, together) = (&addresses, &events, &together);
            move || {
                let stream = &gpu.stream;
                context.bind_to_thread().unwrap();
                let one = stream.clone_htod(&vec![1.0f32; N]).unwrap();
                let mut own = stream.clone_htod(&vec![me as f32; N]).unwrap();
                let inbox = stream.alloc_zeros::<f32>(N).unwrap();
                stream.synchronize().unwrap();
                addresses.lock().unwrap()[me] = inbox.device_ptr(stream).0;
                together.wait();
                let outbox = addresses.lock().unwrap()[1 - me];
                let publish = |event| {
                    events.lock().unwrap()[me] = Some(event);
                    together.wait();
                    let theirs = events.lock().unwrap()[1 - me].take().unwrap();
                    stream.wait(&theirs).unwrap();
                    together.wait();
                };
                for _ in 0..rounds {
                    gpu.axpy(stream, &mut own, 1.0, &one);
                    let from = own.device_ptr(stream).0;
                    let (to_ctx, from_ctx) = (peer.cu_ctx(), context.cu_ctx());
                    // SAFETY: both sides hold N floats until the scope ends.
                    unsafe {
                        result::memcpy_peer_async(
                            to_ctx,
                            outbox,
                            from_ctx,
                            from,
                            N * 4,
                            stream.cu_stream(),
                        )
                    }
                    .unwrap();
                    publish(stream.record_event(None).unwrap()); // the other's half has arrived
                    gpu.axpy(stream, &mut own, 1.0, &inbox);
                    publish(stream.record_event(None).unwrap()); // my inbox may be overwritten
                }
                let got = stream.clone_dtoh(&own).unwrap();
                together.wait();
                // Both hold x + y after a round, however they began: x₁ = 2·(…).
                let mut pair = [0.0f32, 1.0];
                for _ in 0..rounds {
                    let next = [pair[0] + 1.0, pair[1] + 1.0];
                    pair = [next[0] + next[1], next[1] + next[0]];
                }
                got == vec![pair[me]; N]
            }
        };
        let handles = [scope.spawn(worker(0)), scope.spawn(worker(1))];
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap())
            .collect()
    });
    right == [true, true]
}

#[test]
fn two_host_threads_exchange_halves() {
    for streams in STREAMS {
        for ordinals in [[0, 1], [0, 0]] {
            let Some(session) = session(Options {
                streams: Some(streams),
                ..Options::default()
            }) else {
                return;
            };
            assert!(exchange(ordinals, 10), "{streams:?} {ordinals:?}");
            assert_eq!(session.counters().peer_bytes, 2 * 10 * 4000);
        }
    }
}

#[test]
fn a_corrupting_link_shows_between_devices_only() {
    let Some(_session) = session(Options {
        corrupt_peer: Some(true),
        ..Options::default()
    }) else {
        return;
    };
    assert!(!exchange([0, 1], 1));
    assert!(exchange([0, 0], 1));
}

#[test]
fn peer_access_can_be_absent() {
    for peer_access in [true, false] {
        let Some(_session) = session(Options {
            peer_access: Some(peer_access),
            ..Options::default()
        }) else {
            return;
        };
        let gpus = [Gpu::new(0), Gpu::new(1)];
        let mut can = -1;
        // SAFETY: both contexts live to the end of the round.
        let enabled = unsafe {
            sys::cuDeviceCanAccessPeer(&mut can, 0, 1).result().unwrap();
            gpus[0].stream.context().bind_to_thread().unwrap();
            sys::cuCtxEnablePeerAccess(gpus[1].stream.context().cu_ctx(), 0)
        };
        assert_eq!(can, i32::from(peer_access));
        assert_eq!(
            enabled,
            if peer_access {
                CUDA_SUCCESS
            } else {
                CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
            }
        );
        drop(gpus);
        assert!(
            exchange([0, 1], 1),
            "the driver stages the copy through the host"
        );
    }
}

#[test]
fn two_contexts_on_one_device_work_side_by_side() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let contexts = [
        CudaContext::new(0).unwrap(),
        CudaContext::new_non_primary(0, 0).unwrap(),
    ];
    let streams = contexts
        .each_ref()
        .map(|context| context.new_stream().unwrap());
    let x = streams[0].clone_htod(&[7.0f32; 100]).unwrap();
    streams[0].synchronize().unwrap();
    let mut y = streams[1].alloc_zeros::<f32>(100).unwrap();
    streams[1].memcpy_dtod(&x, &mut y).unwrap();
    assert_eq!(streams[1].clone_dtoh(&y).unwrap(), [7.0; 100]);
}

#[test]
fn cublas_multiplies_in_stream_order() {
    for streams in STREAMS {
        let Some(_session) = session(Options {
            streams: Some(streams),
            ..Options::default()
        }) else {
            return;
        };
        let gpu = Gpu::new(0);
        let blas = CudaBlas::new(gpu.stream.clone()).unwrap();
        let (m, n, k) = (37usize, 53usize, 300usize);
        let (a, b) = (whole_numbers(m * k, 1), whole_numbers(k * n, 2));
        let x = gpu.stream.clone_htod(&a).unwrap();
        let mut da = gpu.stream.alloc_zeros::<f32>(m * k).unwrap();
        gpu.axpy(&gpu.stream, &mut da, 1.0, &x);
        let db = gpu.stream.clone_htod(&b).unwrap();
        let mut c = gpu.stream.alloc_zeros::<f32>(m * n).unwrap();
        // BLAS counts by columns: C = A·B row by row is Cᵀ = Bᵀ·Aᵀ.
        let plain = blas::cublasOperation_t::CUBLAS_OP_N;
        let config = GemmConfig {
            transa: plain,
            transb: plain,
            m: n as i32,
            n: m as i32,
            k: k as i32,
            alpha: 1.0f32,
            lda: n as i32,
            ldb: k as i32,
            beta: 0.0,
            ldc: n as i32,
        };
        // SAFETY: the shapes are those of the arrays.
        unsafe { blas.gemm(config, &db, &da, &mut c) }.unwrap();
        assert_eq!(gpu.stream.clone_dtoh(&c).unwrap(), product(&a, &b, m, n, k));
        // SAFETY: refused before anything is read.
        assert!(
            unsafe {
                blas.gemm(
                    GemmConfig {
                        m: 1000,
                        ldc: 1000,
                        lda: 1000,
                        ..config
                    },
                    &db,
                    &da,
                    &mut c,
                )
            }
            .is_err()
        );
    }
}

#[test]
fn cublas_multiplies_bf16_with_transposes_and_batches() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let blas = CudaBlas::new(gpu.stream.clone()).unwrap();
    let (m, n, k, batch) = (20usize, 30usize, 40usize, 3usize);
    let bits = |x: &[f32]| {
        x.iter()
            .map(|x| bf16::from_f32(*x).to_bits())
            .collect::<Vec<_>>()
    };
    let (a, b) = (
        whole_numbers(batch * m * k, 1),
        whole_numbers(batch * n * k, 2),
    );
    let (da, db) = (
        gpu.stream.clone_htod(&bits(&a)).unwrap(),
        gpu.stream.clone_htod(&bits(&b)).unwrap(),
    );
    let mut c = gpu.stream.alloc_zeros::<f32>(batch * m * n).unwrap();
    let (alpha, beta) = (2.0f32, 0.0f32);
    use blas::{
        cublasComputeType_t::*, cublasGemmAlgo_t::*, cublasOperation_t::*, cudaDataType_t::*,
    };
    // By rows: C[m,n] = 2·A[m,k]·B[n,k]ᵀ for each of the batch.
    // SAFETY: the shapes and strides are those of the arrays.
    unsafe {
        blas::cublasGemmStridedBatchedEx(
            *blas.handle(),
            CUBLAS_OP_T,
            CUBLAS_OP_N,
            n as i32,
            m as i32,
            k as i32,
            (&raw const alpha).cast(),
            db.device_ptr(&gpu.stream).0 as _,
            CUDA_R_16BF,
            k as i32,
            (n * k) as i64,
            da.device_ptr(&gpu.stream).0 as _,
            CUDA_R_16BF,
            k as i32,
            (m * k) as i64,
            (&raw const beta).cast(),
            c.device_ptr_mut(&gpu.stream).0 as _,
            CUDA_R_32F,
            n as i32,
            (m * n) as i64,
            batch as i32,
            CUBLAS_COMPUTE_32F,
            CUBLAS_GEMM_DFALT,
        )
    }
    .result()
    .unwrap();
    let c = gpu.stream.clone_dtoh(&c).unwrap();
    for i in 0..batch {
        let a: Vec<f32> = a[i * m * k..][..m * k].iter().map(|x| 2.0 * x).collect();
        let b: Vec<f32> = (0..k * n)
            .map(|j| b[i * n * k + j % n * k + j / n])
            .collect();
        assert_eq!(c[i * m * n..][..m * n], product(&a, &b, m, n, k));
    }
}

#[test]
fn a_captured_graph_replays_across_streams() {
    for streams in STREAMS {
        let Some(session) = session(Options {
            streams: Some(streams),
            ..Options::default()
        }) else {
            return;
        };
        let gpu = Gpu::new(0);
        let side = gpu.stream.context().new_stream().unwrap();
        let x = gpu.stream.clone_htod(&[1.0f32; 500]).unwrap();
        let mut y = gpu.stream.alloc_zeros::<f32>(500).unwrap();
        gpu.stream.synchronize().unwrap();

        gpu.stream
            .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .unwrap();
        gpu.axpy(&gpu.stream, &mut y, 1.0, &x);
        side.wait(&gpu.stream.record_event(None).unwrap()).unwrap();
        gpu.axpy(&side, &mut y, 10.0, &x);
        gpu.stream.wait(&side.record_event(None).unwrap()).unwrap();
        let graph = gpu
            .stream
            .end_capture(sys::CUgraphInstantiate_flags(0))
            .unwrap()
            .unwrap();

        assert_eq!(
            gpu.stream.clone_dtoh(&y).unwrap(),
            [0.0; 500],
            "capturing runs nothing"
        );
        vcuda::reset_counters();
        for _ in 0..3 {
            graph.launch().unwrap();
        }
        assert_eq!(session.counters().host_synchronisations, 0);
        assert_eq!(gpu.stream.clone_dtoh(&y).unwrap(), [33.0; 500]);
        assert_eq!(session.counters().graph_launches, 3);
        assert_eq!(session.counters().launches, 6);
    }
}

#[test]
fn a_capture_refuses_what_a_gpu_refuses() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let x = gpu.stream.clone_htod(&[1.0f32; 10]).unwrap();
    let outside = gpu.stream.record_event(None).unwrap();
    let side = gpu.stream.context().new_stream().unwrap();
    let begin = || {
        gpu.stream
            .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL)
            .unwrap()
    };
    let end = || {
        gpu.stream
            .end_capture(sys::CUgraphInstantiate_flags(0))
            .err()
            .map(|error| error.0)
    };

    begin();
    assert_eq!(
        gpu.stream.synchronize().unwrap_err().0,
        CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    );
    assert_eq!(end(), Some(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));

    begin();
    assert_eq!(
        gpu.stream.wait(&outside).unwrap_err().0,
        CUDA_ERROR_STREAM_CAPTURE_ISOLATION
    );
    assert_eq!(end(), Some(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));

    let mut y = gpu.stream.alloc_zeros::<f32>(10).unwrap();
    begin();
    side.wait(&gpu.stream.record_event(None).unwrap()).unwrap();
    gpu.axpy(&side, &mut y, 1.0, &x);
    assert_eq!(end(), Some(CUDA_ERROR_STREAM_CAPTURE_UNJOINED));
    gpu.stream.synchronize().unwrap();
}

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
fn address_space_is_used_again() {
    let Some(session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    gpu.stream.context().bind_to_thread().unwrap();
    for _ in 0..40 {
        // SAFETY: allocated and freed. Forty of them need more than the 32 GiB of addresses that a device has.
        unsafe { result::free_sync(result::malloc_sync(1 << 30).unwrap()).unwrap() };
        // A gigabyte is filled with NaN each time: one round is enough where memory is slow.
        if session.counters().allocations > 2 && std::env::var_os("VCUDA_THOROUGH").is_none() {
            break;
        }
    }
    assert_eq!(session.counters().live_bytes, 0);
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
            "child_sees_devices_without_loading_anything",
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
