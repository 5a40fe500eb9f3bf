//! Launches that no device could run, or not to their end.

use crate::{BLOCK, Gpu, grid, run_with_switch, session};
use cudarc::driver::sys::CUresult::*;
use cudarc::driver::{LaunchConfig, PushKernelArg};
use vcuda::Options;

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
                ..grid(1, threads as u32)
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
    run_with_switch(&Gpu::new(0), "vcuda_divide", BLOCK as u32, 0, 7).unwrap();
    assert!(run_with_switch(&Gpu::new(0), "vcuda_divide", BLOCK as u32, 0, 0).is_err());
    assert!(session.last_fault().unwrap().contains("division by zero"));
}
