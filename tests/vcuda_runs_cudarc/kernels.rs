//! Kernels and cuBLAS compute what they should.

use crate::{Gpu, STREAMS, grid, session, whole_numbers};
use cudarc::cublas::{CudaBlas, Gemm, GemmConfig, sys as blas};
use cudarc::driver::{DevicePtr, DevicePtrMut, LaunchConfig, PushKernelArg};
use half::{bf16, f16};
use vcuda::{AsyncCopies, Fibres, Options};

/// C[m,n] = A[m,k]·B[k,n], row by row.
fn product(a: &[f32], b: &[f32], m: usize, n: usize, k: usize) -> Vec<f32> {
    let element = |i: usize| (0..k).map(|d| a[i / n * k + d] * b[d * n + i % n]).sum();
    (0..m * n).map(element).collect()
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
    // Of 32..64, eleven are multiples of three; none is 7; all are below 64.
    let votes = 11.0 + 0.0 + 1000.0;
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

/// D[128, n] = A[128, 64] · B[64, n] by a kernel that takes A and B turned over or not.
fn wgmma_agrees(name: &str, n: usize, turned: [bool; 2], bits: fn(f32) -> u16) {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let gpu = Gpu::new(0);
    let (a, b) = (whole_numbers(128 * 64, 1), whole_numbers(64 * n, 2));
    let transposed = |x: &[f32], rows: usize| -> Vec<f32> {
        let columns = x.len() / rows;
        (0..x.len())
            .map(|i| x[i % rows * columns + i / rows])
            .collect()
    };
    // A's rows are along K as it stands, B's turned over.
    let (a_there, b_there) = (
        if turned[0] {
            transposed(&a, 128)
        } else {
            a.clone()
        },
        if turned[1] {
            b.clone()
        } else {
            transposed(&b, 64)
        },
    );
    let upload = |x: &[f32]| {
        let bits: Vec<u16> = x.iter().map(|x| bits(*x)).collect();
        gpu.stream.clone_htod(&bits).unwrap()
    };
    let (da, db) = (upload(&a_there), upload(&b_there));
    let mut d = gpu.stream.alloc_zeros::<f32>(128 * n).unwrap();
    let kernel = gpu.kernel(name);
    let mut launch = gpu.stream.launch_builder(&kernel);
    launch.arg(&mut d).arg(&da).arg(&db);
    let config = LaunchConfig {
        shared_mem_bytes: ((128 + n as u32) * 64) * 2 + 1024,
        ..grid(1, 256)
    };
    // SAFETY: the arrays have the sizes that the kernel takes.
    unsafe { launch.launch(config) }.unwrap();
    assert_eq!(
        gpu.stream.clone_dtoh(&d).unwrap(),
        product(&a, &b, 128, n, 64)
    );
}

#[test]
fn wgmma_multiplies_operands_along_k_and_turned_over() {
    let (bf16_bits, f16_bits) = (
        |x| bf16::from_f32(x).to_bits(),
        |x| f16::from_f32(x).to_bits(),
    );
    wgmma_agrees("vcuda_wgmma_48", 48, [false, false], bf16_bits);
    wgmma_agrees("vcuda_wgmma_128", 128, [true, true], bf16_bits);
    wgmma_agrees("vcuda_wgmma_192", 192, [false, true], f16_bits);
}
