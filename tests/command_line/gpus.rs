//! The program on GPUs: the virtual ones of `tests/vcuda`, put before any real driver.

use crate::support::*;
use alexnet_mp::checkpoint::read;
use alexnet_mp::network::params::Tensors;
use std::path::Path;
use std::process::Command;

/// The program on two virtual GPUs; none where there can be none, said aloud.
fn on_virtual_gpus(folder: &Path) -> Option<Command> {
    if vcuda::LIBRARY.is_empty() || !cfg!(feature = "cuda") {
        println!("skipped: no virtual driver here");
        return None;
    }
    let mut program = program(folder);
    program.env(
        "LD_PRELOAD",
        format!("{}:{}", vcuda::LIBRARY, vcuda::CUBLAS),
    );
    Some(program)
}

/// Relative L2 distance of all tensors together, and of each the worst.
#[track_caller]
fn assert_near(found: &Tensors, expected: &Tensors, tolerance: f64) {
    assert_eq!(found.0.len(), expected.0.len());
    for (a, b) in found.0.iter().zip(&expected.0) {
        assert_eq!((&a.name, &a.shape), (&b.name, &b.shape));
        let pairs = a.values.iter().zip(&b.values);
        let difference: f64 = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let norm: f64 = b.values.iter().map(|b| f64::from(*b).powi(2)).sum();
        let error = (difference / norm.max(1e-300)).sqrt();
        assert!(error <= tolerance, "{}: {error:e}", a.name);
    }
}

#[test]
fn steps_on_gpus_equal_those_on_the_cpu() {
    let folder = folder();
    let path = folder.path();
    let inputs = StepInputs::write(path, 2);
    let fixed = [
        "--lr",
        "1e-3",
        "--masks",
        "m.safetensors",
        "--steps",
        "3",
        "--out",
    ];
    let with = |more: &[&'static str]| [&fixed[..], more].concat();
    inputs
        .step(path, &with(&["cpu.safetensors", "--cpu"]))
        .well();
    let expected = read(&path.join("cpu.safetensors")).unwrap().tensors;
    for gpus in ["0,1", "0", "0,0"] {
        let Some(mut program) = on_virtual_gpus(path) else {
            return;
        };
        let ran = inputs
            .step_by(&mut program, &with(&["gpu.safetensors", "--gpus", gpus]))
            .well();
        assert!(ran.stderr.contains("2 columns on GPU 0"), "{}", ran.stderr);
        assert_eq!(
            ran.stderr.contains("named twice"),
            gpus == "0,0",
            "{}",
            ran.stderr
        );
        let found = read(&path.join("gpu.safetensors")).unwrap().tensors;
        assert_near(&found, &expected, 1e-4);
    }
}

#[test]
fn training_runs_on_two_gpus_and_goes_on_without_them() {
    let folder = folder();
    let path = folder.path();
    let Some(mut program) = on_virtual_gpus(path) else {
        return;
    };
    let small = ["--set", "data.builtin_val=8", "--set", "train.batch=4"];
    let mut arguments = vec!["train", "--gpus", "0,1", "--out", "run"];
    arguments.extend(TINY);
    arguments.extend(small);
    arguments.extend(["--steps", "3"]);
    let ran: Ran = program.args(&arguments).output().unwrap().into();
    assert!(ran.well().stderr.contains("GPU 1"));
    train(path, "cpu", &[&small[..], &["--steps", "3"]].concat());
    let [gpu, cpu] = ["run", "cpu"].map(|out| checkpoint(path, out).parameters);
    assert_near(&gpu, &cpu, 1e-4);
    resume(path, "run", &["--steps", "5"]);
    assert_eq!(checkpoint(path, "run").state.step, 5);
}

#[test]
fn a_gpu_number_out_of_range_is_told_with_what_there_is() {
    let folder = folder();
    let Some(mut program) = on_virtual_gpus(folder.path()) else {
        return;
    };
    let ran: Ran = program
        .args(["train", "--gpus", "7", "--steps", "1"])
        .output()
        .unwrap()
        .into();
    let message = ran.wrong(5);
    assert!(
        message.contains("GPU 7") && message.contains("2 GPUs, numbers 0 to 1"),
        "{message}"
    );
}

#[test]
fn without_flags_two_gpus_are_chosen_where_they_are() {
    let folder = folder();
    let Some(mut program) = on_virtual_gpus(folder.path()) else {
        return;
    };
    let inputs = StepInputs::write(folder.path(), 1);
    let ran = inputs
        .step_by(&mut program, &["--out", "o.safetensors"])
        .well();
    assert!(
        ran.stderr.contains("GPU 0") && ran.stderr.contains("GPU 1"),
        "{}",
        ran.stderr
    );
}

/// Trains on two virtual GPUs that are as `options` say; none where there are none.
fn train_on(folder: &Path, options: &[(&str, &str)], more: &[&str]) -> Option<Ran> {
    let mut program = on_virtual_gpus(folder)?;
    let mut arguments = vec!["train", "--gpus", "0,1", "--out", "run"];
    arguments.extend(TINY);
    arguments.extend(["--set", "data.builtin_val=8"]);
    arguments.extend(more);
    program.envs(options.iter().copied()).args(arguments);
    Some(program.output().unwrap().into())
}

#[test]
fn gpus_without_peer_access_exchange_through_the_host_said_with_the_bandwidth() {
    let folder = folder();
    for (option, reason) in [
        ("VCUDA_PEER_ACCESS", "no peer access"),
        ("VCUDA_CORRUPT_PEER", "arrive wrong"),
    ] {
        let value = if option == "VCUDA_PEER_ACCESS" {
            "0"
        } else {
            "1"
        };
        let more = ["--check-exchange", "1", "--batch", "4", "--steps", "2"];
        let Some(ran) = train_on(folder.path(), &[(option, value)], &more) else {
            return;
        };
        let said = ran.well().stderr;
        for word in ["through the host", "GB/s", reason] {
            assert!(said.contains(word), "{word}: {said}");
        }
        std::fs::remove_dir_all(folder.path().join("run")).unwrap();
    }
}

#[test]
fn a_gpu_whose_memory_does_not_suffice_is_told_with_the_largest_batch_that_does() {
    let folder = folder();
    let little = [("VCUDA_MEMORY", "134217728")];
    let Some(ran) = train_on(folder.path(), &little, &["--batch", "4096", "--steps", "1"]) else {
        return;
    };
    let message = ran.wrong(5);
    for word in [
        "GPU 0",
        "out of memory",
        "MiB more needed",
        "MiB free of 128 MiB",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    let largest = message.split("the largest batch that fits is ").nth(1);
    let largest: String = largest
        .unwrap_or_else(|| panic!("no estimate: {message}"))
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let ran = train_on(
        folder.path(),
        &little,
        &["--batch", &largest, "--steps", "1"],
    );
    ran.unwrap().well();
}

#[test]
fn a_driver_or_a_gpu_too_old_for_the_program_says_what_to_do() {
    let folder = folder();
    for (option, value, word) in [
        ("VCUDA_DRIVER_VERSION", "11040", "driver"),
        ("VCUDA_CAPABILITY", "50", "ALEXNET_MP_CUDA_ARCHS"),
    ] {
        let Some(ran) = train_on(folder.path(), &[(option, value)], &["--steps", "1"]) else {
            return;
        };
        let message = ran.wrong(5);
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[test]
fn a_gpu_that_fails_or_hangs_in_a_step_is_named_with_it() {
    let folder = folder();
    for (fault, word) in [
        ("fail", "failed"),
        ("hang", "hang"),
        ("peer-corrupt", "arrived wrong"),
    ] {
        let text = format!("{fault}:device1:step2");
        let options = [("ALEXNET_MP_FAULT", text.as_str())];
        let more = [
            "--set",
            "train.step_timeout=2",
            "--batch",
            "4",
            "--check-exchange",
            "1",
            "--steps",
            "3",
        ];
        let Some(ran) = train_on(folder.path(), &options, &more) else {
            return;
        };
        let message = ran.wrong(5);
        for word in [word, "step 2", "GPU 1"] {
            assert!(message.contains(word), "{word}: {message}");
        }
    }
}

/// Two GPUs, one, one named twice; one loader worker or three: the same bits.
#[test]
fn neither_the_number_of_gpus_nor_loader_workers_change_a_bit() {
    let folder = folder();
    let mut compared = 0;
    for (gpus, workers) in [("0,1", "1"), ("0", "3"), ("0,0", "2")] {
        let Some(mut program) = on_virtual_gpus(folder.path()) else {
            return;
        };
        let workers = format!("data.workers={workers}");
        let mut arguments = vec!["train", "--gpus", gpus, "--out", gpus];
        arguments.extend(TINY);
        arguments.extend(["--set", "data.builtin_val=8", "--set", &workers]);
        arguments.extend(["--batch", "4", "--steps", "2"]);
        let ran: Ran = program.args(arguments).output().unwrap().into();
        ran.well();
        assert_same_checkpoint(folder.path(), "0,1", gpus);
        compared += 1;
    }
    assert_eq!(compared, 3);
}
