//! What ptxas reported about the kernels in this build.
#![cfg(feature = "cuda")]

use alexnet_mp::device::cuda::report::{ARCHS, KERNELS, has_kernels, summary};

/// Whether there is something to look at; says so if not.
fn built_with_nvcc() -> bool {
    if !has_kernels() {
        println!("skipped: {}", summary());
    }
    has_kernels()
}

#[test]
fn no_kernel_spills_registers_to_memory() {
    if !built_with_nvcc() {
        return;
    }
    for k in KERNELS {
        assert_eq!(
            (k.spill_stores, k.spill_loads, k.stack),
            (0, 0, 0),
            "{} for sm_{}",
            k.kernel,
            k.arch
        );
    }
}

#[test]
fn every_kernel_is_there_for_every_architecture() {
    if !built_with_nvcc() {
        return;
    }
    let names = |arch: u32| -> Vec<&str> {
        KERNELS
            .iter()
            .filter(|k| k.arch == arch && !k.file.starts_with("conv_wgmma"))
            .map(|k| k.kernel)
            .collect()
    };
    for &arch in ARCHS {
        assert!(names(arch).contains(&"conv_forward_64_packed"), "sm_{arch}");
        assert_eq!(names(arch).len(), names(ARCHS[0]).len(), "sm_{arch}");
    }
}

#[test]
fn products_by_wgmma_are_there_for_the_one_architecture_that_has_it() {
    if !built_with_nvcc() {
        return;
    }
    let kernels: Vec<_> = KERNELS
        .iter()
        .filter(|k| k.file.starts_with("conv_wgmma"))
        .collect();
    assert_eq!(kernels.is_empty(), !ARCHS.contains(&90));
    for k in kernels {
        assert_eq!(k.arch, 90, "{}", k.kernel);
        // What __launch_bounds__ asks for: of two blocks with 256 threads each, a thread has 128 of 65,536 registers.
        let blocks = if k.kernel.contains("192") { 1 } else { 2 };
        assert!(blocks * 256 * k.registers <= 65_536, "{}", k.kernel);
        assert!(!k.serialized, "{}", k.kernel);
    }
}

#[test]
fn three_blocks_of_a_convolution_fit_a_multiprocessor() {
    if !built_with_nvcc() {
        return;
    }
    for k in KERNELS.iter().filter(|k| k.file == "conv") {
        // 65,536 registers, given out by 8 to a thread; 64 KiB of shared memory on the smallest, sm_75, where two do.
        let registers = 128 * k.registers.next_multiple_of(8);
        assert!(
            3 * registers <= 65_536,
            "{} for sm_{}: {} registers",
            k.kernel,
            k.arch,
            k.registers
        );
        assert!(
            2 * k.shared <= 64 << 10,
            "{} for sm_{}: {} bytes",
            k.kernel,
            k.arch,
            k.shared
        );
    }
}
