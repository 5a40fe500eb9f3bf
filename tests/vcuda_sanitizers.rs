//! The sanitized builds of the virtual CUDA driver report planted mistakes by source line, and
//! nothing in their twins.
//!
//! Started by `tests/vcuda/sanitize.sh`; in an ordinary test run there is no sanitizer and nothing
//! to do.
#![cfg(feature = "cuda")]

use cudarc::driver::{CudaContext, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;
use std::process::{Command, Output};
use vcuda::{Fibres, Options};

/// Launches one kernel of `tests/vcuda/kernels/faulty.cu` with two arrays and numbers, in the
/// process that the tests start.
#[test]
fn child_launches_a_kernel() {
    let Ok(request) = std::env::var("VCUDA_LAUNCH") else {
        return;
    };
    let (name, numbers) = request.split_once(' ').unwrap();
    let numbers: Vec<i32> = numbers
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    for fibres in Fibres::ALL {
        let _session = vcuda::session(&Options {
            fibres: Some(fibres),
            ..Options::default()
        });
        let context = CudaContext::new(0).unwrap();
        let stream = context.default_stream();
        let kernel = context
            .load_module(Ptx::from_binary(vec![0; 16]))
            .unwrap()
            .load_function(name)
            .unwrap();
        let x = stream
            .clone_htod(&vec![1.0f32; if name == "vcuda_read" { 254 } else { 256 }])
            .unwrap();
        let mut out = stream.alloc_zeros::<f32>(512).unwrap();
        let config = LaunchConfig {
            grid_dim: (1, 1, 1),
            block_dim: (256, 1, 1),
            shared_mem_bytes: if name.contains("wgmma") { 24 << 10 } else { 0 },
        };
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&mut out);
        if name != "vcuda_shared_reach" {
            launch.arg(&x);
        }
        for number in &numbers {
            launch.arg(number);
        }
        // SAFETY: what the kernel does wrong is for the sanitizer to stop.
        unsafe { launch.launch(config) }.unwrap();
        stream.synchronize().unwrap();
    }
}

fn run(request: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_launches_a_kernel", "--nocapture"])
        .env("VCUDA_LAUNCH", request)
        .output()
        .unwrap()
}

/// Expects a report that contains all of `words` for the mistake, and a clean run of its twin.
fn expect(sanitizer: &str, mistake: &str, twin: &str, words: &[&str]) {
    if std::env::var("VCUDA_SANITIZED").as_deref() != Ok(sanitizer) {
        return;
    }
    let clean = run(twin);
    assert!(
        clean.status.success(),
        "{twin}: {}",
        String::from_utf8_lossy(&clean.stderr)
    );
    let caught = run(mistake);
    let report = String::from_utf8_lossy(&caught.stderr);
    assert!(!caught.status.success(), "{mistake} went through");
    assert!(
        words.iter().all(|word| report.contains(word)),
        "{mistake}: {report}"
    );
}

#[test]
fn address_sanitizer_sees_a_read_past_the_end_of_shared_memory() {
    let words = ["AddressSanitizer: global-buffer-overflow", "faulty.cu:"];
    expect(
        "address",
        "vcuda_shared_reach 257",
        "vcuda_shared_reach 256",
        &words,
    );
}

#[test]
fn address_sanitizer_sees_one_element_past_the_end_of_device_memory() {
    // 254 floats leave eight bytes before the guard page.
    let words = ["AddressSanitizer: use-after-poison", "faulty.cu:"];
    expect("address", "vcuda_read 254 1", "vcuda_read 254 0", &words);
}

#[test]
fn thread_sanitizer_sees_a_missing_barrier() {
    let words = ["ThreadSanitizer: data race", "faulty.cu:"];
    expect(
        "thread",
        "vcuda_block_sum_without_barrier ",
        "vcuda_block_sum ",
        &words,
    );
}

#[test]
fn thread_sanitizer_sees_a_race_with_threads_that_have_ended_and_none_where_warps_keep_apart() {
    let words = ["ThreadSanitizer: data race", "faulty.cu:"];
    expect("thread", "vcuda_warp_sums 0", "vcuda_warp_sums 1", &words);
}

#[test]
fn thread_sanitizer_sees_data_of_a_cp_async_used_before_the_wait() {
    expect(
        "thread",
        "vcuda_copy_behind_without_wait ",
        "vcuda_copy_behind ",
        &["ThreadSanitizer: data race"],
    );
}

#[test]
fn thread_sanitizer_sees_a_product_by_wgmma_of_what_other_threads_are_still_writing() {
    let words = ["ThreadSanitizer: data race", "warpgroup.cpp:"];
    expect(
        "thread",
        "vcuda_wgmma_mistake 3",
        "vcuda_wgmma_mistake 0",
        &words,
    );
    // And of what they write before it was waited for.
    expect(
        "thread",
        "vcuda_wgmma_mistake 5",
        "vcuda_wgmma_mistake 0",
        &words,
    );
}

#[test]
fn undefined_behaviour_sanitizer_sees_a_misaligned_vector() {
    let words = ["runtime error:", "misaligned address", "faulty.cu:"];
    expect("undefined", "vcuda_vector 2", "vcuda_vector 4", &words);
}
