//! What a user sees of faulty or missing GPUs. The virtual driver plays them; on a real one these tests do nothing.
#![cfg(feature = "cuda")]

use alexnet_mp::config::Config;
use alexnet_mp::device::Device;
use alexnet_mp::device::cuda::{CudaDevice, obstacles, probe, prove};
use alexnet_mp::engine::{Dropping, Engine, StepContext};
use alexnet_mp::error::{Error, Result};
use alexnet_mp::network::op::{Conv, Linear, Shape, Window};
use alexnet_mp::precision::Precision;
use cudarc::driver::sys;
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

/// Another program may have filled a GPU's memory: choosing among them must not need any.
#[test]
fn gpus_are_looked_at_without_opening_any() {
    let Some(_session) = session(Options::default()) else {
        return;
    };
    assert_eq!(obstacles().unwrap(), [None, None]);
    for gpu in 0..2 {
        let (mut flags, mut opened) = (0, 0);
        // SAFETY: writes two numbers.
        let asked = unsafe { sys::cuDevicePrimaryCtxGetState(gpu, &mut flags, &mut opened) };
        assert_eq!((asked.result(), opened), (Ok(()), 0), "GPU {gpu}");
    }
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

/// A network of the largest batch that an engine tells of trains on the memory there is.
#[test]
fn the_largest_batch_that_fits_does_fit() {
    for gpus in [&[0][..], &[0, 0], &[0, 1]] {
        let Some(_session) = session(Options {
            memory: Some(224 << 20),
            ..Options::default()
        }) else {
            return;
        };
        let engine = |batch: usize| {
            let small = ["network.width=0.1", "network.image=64", "data.side=64"];
            let mut overrides: Vec<String> = small.map(String::from).to_vec();
            overrides.push(format!("train.batch={batch}"));
            let plan = Config::load("source-145", &overrides)
                .unwrap()
                .plan()
                .unwrap();
            let devices = gpus.iter().map(|&gpu| CudaDevice::open(gpu).unwrap());
            Engine::new(plan, devices.collect(), 64, 0, true)
        };
        let said = message(engine(5000));
        let (_, rest) = said.split_once("largest batch that fits is ").expect(&said);
        let largest: usize = rest.split(' ').next().unwrap().parse().unwrap();
        let mut engine = engine(largest).unwrap();
        // Shapes decide on work space, and so do images: a whole step of all of them.
        let plan = engine.plan();
        let images = vec![0.0; largest * plan.slots[plan.input].shape.len()];
        engine.load_images(&images, &vec![0; largest]).unwrap();
        let context = StepContext {
            dropping: Dropping::Off,
            first_image: 0,
            whole_batch: largest,
            accumulate: false,
            update: None,
        };
        engine.train_step(&context).unwrap();
        engine.synchronize().unwrap();
    }
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
    in_time("a_kernel_that_fails_names_the_gpu", 30, |_session| {
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
    });
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

/// Runs a test's body in a process of its own, with so many seconds of patience with GPUs: after it, no wait in that
/// process is patient any more. A body that hangs is ended, and fails.
fn in_time(test: &str, patience: u64, body: fn(Session)) {
    const INNER: &str = "ALEXNET_MP_TEST_INNER";
    let Some(session) = session(Options::default()) else {
        return;
    };
    if std::env::var_os(INNER).is_some() {
        return body(session);
    }
    let mut inner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INNER, "1")
        .env("ALEXNET_MP_DEVICE_TIMEOUT", patience.to_string())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while inner.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(30) {
            inner.kill().unwrap();
            panic!("{test} hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(inner.wait().unwrap().success());
}

/// The kernel launched as `number` from here on never ends.
fn hang_at(number: u64) {
    vcuda::set(&Options {
        hang_at: Some(number),
        ..Options::default()
    });
}

const NO_ANSWER: &str = "Virtual CUDA device 0: no answer for";

#[test]
fn a_gpu_that_hangs_is_an_error_in_time() {
    in_time("a_gpu_that_hangs_is_an_error_in_time", 1, |_session| {
        let mut gpus = [CudaDevice::open(0).unwrap(), CudaDevice::open(1).unwrap()];
        let [a, b] = &mut gpus;
        let mailbox = CudaDevice::mailbox(a, b, 1000).unwrap();
        let (mut buffer, mut inbox) = (a.allocate(1000).unwrap(), b.allocate(1000).unwrap());
        hang_at(1);
        a.scale(1000, 2.0, &mut buffer).unwrap();
        a.send(&buffer, 1000, &mailbox).unwrap();
        b.receive(&mailbox, &mut inbox).unwrap();
        b.scale(1000, 2.0, &mut inbox).unwrap();
        assert!(message(a.synchronize()).contains(NO_ANSWER));
        // The other GPU waits for the first one; everything is given up without a wait without end.
        assert!(message(b.synchronize()).contains("GPU 1"));
        drop((mailbox, buffer, inbox, gpus));
    });
}

#[test]
fn only_what_reads_a_message_waits_for_it() {
    in_time("only_what_reads_a_message_waits_for_it", 1, |session| {
        let mut gpus = [CudaDevice::open(0).unwrap(), CudaDevice::open(1).unwrap()];
        let [a, b] = &mut gpus;
        let op = Linear {
            input: Shape::new(10, 1, 1),
            parts: 2,
            outputs: 10,
            activation: None,
        };
        let mailbox = CudaDevice::mailbox(a, b, 100).unwrap();
        let mut sent = a.allocate(100).unwrap();
        let [own, mut inbox, mut y, w, bias] =
            [100, 100, 100, 100, 10].map(|n| b.allocate(n).unwrap());
        b.synchronize().unwrap();
        // The message never arrives.
        hang_at(1);
        vcuda::reset_counters();
        a.scale(100, 2.0, &mut sent).unwrap();
        a.send(&sent, 100, &mailbox).unwrap();
        b.receive(&mailbox, &mut inbox).unwrap();
        b.synchronize().unwrap();
        b.linear_forward(&op, 10, &[&own, &inbox], &[&w, &w], &bias, None, &mut y)
            .unwrap();
        assert_eq!(session.counters().products, 1);
        assert!(message(b.synchronize()).contains("no answer for"));
        drop((mailbox, sent, own, inbox, y, w, bias, gpus));
    });
}

/// In f32 and on tensor cores: GPU 1 is opened once for each, and nothing GPU 0 sends arrives.
#[test]
fn a_convolution_multiplies_its_own_maps_while_the_others_arrive() {
    let name = "a_convolution_multiplies_its_own_maps_while_the_others_arrive";
    in_time(name, 1, |session| {
        let mut a = CudaDevice::open(0).unwrap();
        let input = Shape::new(16, 5, 5);
        let op = Conv {
            input,
            parts: 2,
            output: Shape::new(32, 5, 5),
            window: Window::new(3, 1, 1),
            activation: None,
        };
        let (maps, matrix) = (input.len(), op.depth() * 32);
        let mut ends = [Precision::F32, Precision::Bf16].map(|precision| {
            let mut b = CudaDevice::open(1).unwrap();
            a.set_precision(precision).unwrap();
            b.set_precision(precision).unwrap();
            let sent = a.allocate_maps(maps).unwrap();
            let mailbox = CudaDevice::mailbox(&mut a, &mut b, maps).unwrap();
            let x = [(); 2].map(|()| b.allocate_maps(maps).unwrap());
            let y = b.allocate_maps(op.output.len()).unwrap();
            let w = b.allocate_weights(matrix).unwrap();
            let bias = b.allocate(32).unwrap();
            (b, sent, mailbox, x, y, w, bias)
        });
        hang_at(1);
        a.scale(maps, 2.0, &mut ends[0].1).unwrap();
        for (b, sent, mailbox, [own, inbox], y, w, bias) in &mut ends {
            a.send(sent, maps, mailbox).unwrap();
            b.receive(mailbox, inbox).unwrap();
            b.synchronize().unwrap();
            vcuda::reset_counters();
            b.conv_forward(&op, 1, &[own, inbox], &[w, w], bias, y)
                .unwrap();
            assert_eq!(session.counters().launches, 1);
        }
        for (b, ..) in &mut ends {
            assert!(message(b.synchronize()).contains("no answer for"));
        }
        drop((ends, a));
    });
}

#[test]
fn numbers_of_a_gpu_that_hangs_are_not_waited_for_without_end() {
    let name = "numbers_of_a_gpu_that_hangs_are_not_waited_for_without_end";
    in_time(name, 1, |_session| {
        let mut gpu = CudaDevice::open(0).unwrap();
        let mut buffer = gpu.allocate(1000).unwrap();
        hang_at(1);
        gpu.scale(1000, 2.0, &mut buffer).unwrap();
        let mut numbers = vec![0.0; 1000];
        assert!(message(gpu.download(&buffer, &mut numbers)).contains(NO_ANSWER));
        assert!(message(gpu.upload(&numbers, &mut buffer)).contains(NO_ANSWER));
        drop((buffer, gpu));
    });
}

#[test]
fn a_gpu_that_hangs_while_copies_are_proven_is_an_error_in_time() {
    let name = "a_gpu_that_hangs_while_copies_are_proven_is_an_error_in_time";
    in_time(name, 1, |_session| {
        let [mut a, mut b] = [CudaDevice::open(0).unwrap(), CudaDevice::open(1).unwrap()];
        // Of three messages the last one's check: the sender is done, and what arrived is read.
        hang_at(12);
        let said = message(prove(&mut a, &mut b));
        assert!(
            said.contains("GPU 1") && said.contains("no answer for"),
            "{said}"
        );
        drop((a, b));
    });
}

#[test]
fn once_a_gpu_has_failed_the_others_are_not_waited_for_patiently() {
    let name = "once_a_gpu_has_failed_the_others_are_not_waited_for_patiently";
    in_time(name, 600, |_session| {
        let [mut a, mut b] = [CudaDevice::open(0).unwrap(), CudaDevice::open(1).unwrap()];
        let [mut of_a, mut of_b] = [&mut a, &mut b].map(|gpu| gpu.allocate(10).unwrap());
        vcuda::set(&Options {
            fail_at: Some(1),
            hang_at: Some(2),
            ..Options::default()
        });
        a.scale(10, 2.0, &mut of_a).unwrap();
        b.scale(10, 2.0, &mut of_b).unwrap();
        assert!(message(a.synchronize()).contains("LAUNCH_FAILED"));
        assert!(message(b.synchronize()).contains("no answer for 5 s"));
        drop((of_a, of_b, a, b));
    });
}
