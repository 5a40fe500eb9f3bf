//! Between the threads of a block: barriers, shuffles, shared memory, `cp.async`.

use crate::{BLOCK, Gpu, run_with_switch, session};
use cudarc::driver::sys::CUresult::*;
use vcuda::{AsyncCopies, Fibres, Options};

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

#[test]
fn a_divergent_barrier_is_diagnosed() {
    let Some(session) = session(Options::default()) else {
        return;
    };
    run_with_switch(&Gpu::new(0), "vcuda_barriers", BLOCK as u32, 0, 0).unwrap();
    let error = run_with_switch(&Gpu::new(0), "vcuda_barriers", BLOCK as u32, 0, 1).unwrap_err();
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
    let cleared = run_with_switch(&gpu, "vcuda_shared_start", BLOCK as u32, shared, 1).unwrap();
    assert_eq!(cleared, [[1.0; BLOCK], [2.0; BLOCK]].concat());
    let uncleared = run_with_switch(&gpu, "vcuda_shared_start", BLOCK as u32, shared, 0).unwrap();
    assert!(uncleared.iter().all(|value| value.is_nan()));
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
