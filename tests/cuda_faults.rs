//! What a user sees of faulty or missing GPUs. The virtual driver plays them; on a real one these tests do nothing.
#![cfg(feature = "cuda")]

use alexnet_mp::device::Device;
use alexnet_mp::device::cuda::{CudaDevice, probe};
use alexnet_mp::error::{Error, Result};
use std::time::{Duration, Instant};
use vcuda::{Options, Session};

fn session(options: Options) -> Option<Session> {
    let session = vcuda::session(&options);
    session.is_virtual().then_some(session)
}

/// The message of a device error.
#[track_caller]
fn message<T>(result: Result<T>) -> String {
    match result.err().expect("an error") {
        Error::Device(message) => message,
        other => panic!("not a device error: {other}"),
    }
}

#[test]
fn a_gpu_that_is_not_there_is_named_with_those_that_are() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    assert_eq!(
        message(CudaDevice::open(7)),
        "GPU 7 is not there: there are 2 GPUs, numbers 0 to 1"
    );
}

#[test]
fn a_driver_without_gpus_is_no_panic() {
    let Some(_session) = session(Options {
        devices: Some(0),
        ..Options::default()
    }) else {
        return;
    };
    assert!(probe().map_or(true, |gpus| gpus.is_empty()));
    assert!(message(CudaDevice::open(0)).contains("--cpu"));
}

#[test]
fn gpus_describe_themselves() {
    let Some(_session) = session(Options {
        memory: Some(3 << 30),
        ..Options::default()
    }) else {
        return;
    };
    let gpus = probe().unwrap();
    assert_eq!(gpus.len(), 2);
    assert_eq!((gpus[0].total_bytes, gpus[0].capability), (3 << 30, (9, 0)));
    assert!(gpus[0].free_bytes.is_some_and(|free| free <= 3 << 30));
    assert_eq!(gpus[0].peers, [true, true]);
    assert_eq!(gpus[1].obstacle, None);
}

#[test]
fn exhausted_memory_says_how_much_was_needed_and_was_free() {
    let Some(_session) = session(Options {
        memory: Some(256 << 20),
        ..Options::default()
    }) else {
        return;
    };
    let mut gpu = CudaDevice::open(0).unwrap();
    let before = gpu.allocated_bytes();
    let said = message(gpu.allocate(100 << 20));
    assert!(
        said.contains("400 MiB more needed") && said.contains("MiB free of 256 MiB"),
        "{said}"
    );
    assert_eq!(gpu.allocated_bytes(), before);
    // What was there before still works.
    let buffer = gpu.allocate(1000).unwrap();
    assert_eq!(gpu.allocated_bytes(), before + 4000);
    drop(buffer);
    assert_eq!(gpu.allocated_bytes(), before);
}

#[test]
fn a_driver_too_old_for_the_kernels_is_named() {
    let Some(_session) = session(Options {
        driver_version: Some(11040),
        ..Options::default()
    }) else {
        return;
    };
    let said = message(CudaDevice::open(0));
    assert!(said.contains("driver"), "{said}");
}

#[test]
fn a_kernel_that_fails_names_the_gpu() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let mut gpu = CudaDevice::open(0).unwrap();
    let mut buffer = gpu.allocate(1000).unwrap();
    vcuda::set(&Options {
        fail_at: Some(1),
        ..Options::default()
    });
    let failed = gpu
        .scale(1000, 2.0, &mut buffer)
        .and_then(|()| gpu.synchronize());
    let said = message(failed);
    assert!(
        said.contains("GPU 0") && said.contains("CUDA_ERROR"),
        "{said}"
    );
    drop((buffer, gpu));
}

#[test]
fn memory_of_another_gpu_is_refused() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let (mut a, mut b) = (CudaDevice::open(0).unwrap(), CudaDevice::open(1).unwrap());
    let mut buffer = a.allocate(10).unwrap();
    let said = message(b.scale(10, 2.0, &mut buffer));
    assert!(said.contains("GPU 1") && said.contains("GPU 0"), "{said}");
}

#[test]
fn an_operation_on_more_than_a_buffer_holds_is_refused() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let mut gpu = CudaDevice::open(0).unwrap();
    let mut buffer = gpu.allocate(10).unwrap();
    assert!(message(gpu.scale(11, 2.0, &mut buffer)).contains("11 elements"));
}

/// In a process of its own: after this, no wait in it is patient any more.
#[test]
fn a_gpu_that_hangs_is_an_error_in_time() {
    const INNER: &str = "ALEXNET_MP_TEST_HANG";
    if std::env::var_os(INNER).is_some() {
        hang();
        return;
    }
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let start = Instant::now();
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_gpu_that_hangs_is_an_error_in_time",
            "--nocapture",
        ])
        .env(INNER, "1")
        .env("ALEXNET_MP_DEVICE_TIMEOUT", "1")
        .status()
        .unwrap();
    assert!(status.success());
    assert!(start.elapsed() < Duration::from_secs(30));
}

fn hang() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    let mut gpus = [CudaDevice::open(0).unwrap(), CudaDevice::open(1).unwrap()];
    let [a, b] = &mut gpus;
    let mailbox = CudaDevice::mailbox(a, b, 1000).unwrap();
    let (mut buffer, mut inbox) = (a.allocate(1000).unwrap(), b.allocate(1000).unwrap());
    vcuda::set(&Options {
        hang_at: Some(1),
        ..Options::default()
    });
    a.scale(1000, 2.0, &mut buffer).unwrap();
    a.send(&buffer, 1000, &mailbox).unwrap();
    b.receive(&mailbox, &mut inbox).unwrap();
    assert!(message(a.synchronize()).contains("GPU 0, Virtual CUDA device 0: no answer for"));
    // The other GPU waits for the first one; everything is given up without a wait without end.
    assert!(message(b.synchronize()).contains("GPU 1"));
    drop((mailbox, buffer, inbox, gpus));
}
