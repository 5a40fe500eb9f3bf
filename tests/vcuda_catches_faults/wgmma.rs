//! Mistakes with wgmma: `tests/vcuda/kernels/wgmma.cu`.

use crate::support::{Gpu, grid, session};
use cudarc::driver::{LaunchConfig, PushKernelArg};
use vcuda::{AsyncCopies, Options};

/// As in the kernel file.
const NONE: i32 = 0;
const COPIES_UNFENCED: i32 = 1;
const SUMS_UNFENCED: i32 = 2;
const NOT_WAITED_FOR: i32 = 4;
const OVERWRITTEN_EARLY: i32 = 5;
const WARPS_APART: i32 = 6;

/// What the threads found, or the fault.
fn run(mistake: i32, copies: AsyncCopies) -> Option<Result<Vec<f32>, String>> {
    let session = session(Options {
        async_copies: Some(copies),
        ..Options::default()
    })?;
    let gpu = Gpu::new(0);
    // Two ones each, in bf16.
    let x = gpu
        .stream
        .clone_htod(&[f32::from_bits(0x3f80_3f80); 256])
        .unwrap();
    let mut out = gpu.stream.alloc_zeros::<f32>(256).unwrap();
    let kernel = gpu.kernel("vcuda_wgmma_mistake");
    let mut launch = gpu.stream.launch_builder(&kernel);
    launch.arg(&mut out).arg(&x).arg(&mistake);
    let config = LaunchConfig {
        shared_mem_bytes: 24 << 10,
        ..grid(1, 256)
    };
    // SAFETY: what the kernel does wrong is what the virtual driver has to bear.
    let launched = unsafe { launch.launch(config) };
    let found = launched.and_then(|_| gpu.stream.clone_dtoh(&out));
    Some(found.map_err(|_| session.last_fault().unwrap_or_default()))
}

#[test]
fn a_product_that_is_waited_for_is_right_whenever_it_is_computed() {
    for copies in [AsyncCopies::Eager, AsyncCopies::Deferred] {
        let Some(found) = run(NONE, copies) else {
            return;
        };
        assert_eq!(found, Ok(vec![16.0; 256]));
    }
}

#[test]
fn a_product_that_is_not_waited_for_shows() {
    for mistake in [NOT_WAITED_FOR, OVERWRITTEN_EARLY] {
        let Some(found) = run(mistake, AsyncCopies::Deferred) else {
            return;
        };
        let right = found.unwrap().iter().all(|sum| *sum == 16.0);
        assert!(!right, "mistake {mistake}");
    }
}

#[test]
fn missing_fences_and_warps_that_differ_are_diagnosed() {
    for (mistake, words) in [
        (COPIES_UNFENCED, "fence.proxy.async"),
        (SUMS_UNFENCED, "wgmma.fence"),
        (WARPS_APART, "did not issue the same products"),
    ] {
        let Some(found) = run(mistake, AsyncCopies::Deferred) else {
            return;
        };
        let fault = found.unwrap_err();
        assert!(
            fault.contains(words) && fault.contains("vcuda_wgmma_mistake"),
            "{fault}"
        );
    }
}
