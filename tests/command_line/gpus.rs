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
        [vcuda::LIBRARY, vcuda::CUBLAS, vcuda::NVML].join(":"),
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

#[test]
fn a_driver_that_does_not_start_is_told_with_its_reason_where_the_cpu_is_taken_instead() {
    let folder = folder();
    let inputs = StepInputs::write(folder.path(), 1);
    for (error, words) in [
        ("803", ["SYSTEM_DRIVER_MISMATCH", "restart the machine"]),
        ("999", ["CUDA_ERROR_UNKNOWN", "nvidia-smi"]),
    ] {
        let Some(mut program) = on_virtual_gpus(folder.path()) else {
            return;
        };
        program.env("VCUDA_START_ERROR", error);
        let ran = inputs
            .step_by(&mut program, &["--out", "o.safetensors"])
            .well();
        for word in words.into_iter().chain(["on CPU", "does not start"]) {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
    }
}

/// What `verify --quick --json` says of two GPUs, and how it ends.
fn verified(gpus: &str, variables: &[(&str, &str)]) -> Option<(serde_json::Value, Ran)> {
    verified_in("f32", gpus, variables)
}

fn verified_in(
    precision: &str,
    gpus: &str,
    variables: &[(&str, &str)],
) -> Option<(serde_json::Value, Ran)> {
    let folder = folder();
    let mut program = on_virtual_gpus(folder.path())?;
    let ran: Ran = program
        .args(["verify", "--gpus", gpus, "--precision", precision])
        .args(["--quick", "--json"])
        .envs(variables.iter().copied())
        .output()
        .unwrap()
        .into();
    Some((serde_json::from_str(&ran.stdout).expect("JSON"), ran))
}

#[test]
fn verify_passes_on_gpus_that_are_well() {
    let Some((report, ran)) = verified("0,1", &[]) else {
        return;
    };
    ran.well();
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&true.into(), &0.into())
    );
    let checks = report["checks"].as_array().unwrap();
    let of = |section: &str| checks.iter().filter(|c| c["section"] == section).count();
    assert!(of("operation") > 100 && of("network") >= 5 && of("training") == 1);
    // The way, and both directions with their bandwidth.
    assert_eq!(of("exchange"), 3);
    for check in checks {
        assert_eq!(check["passed"], true, "{check}");
        let (rate, bytes) = (&check["gflops"], &check["gigabytes_per_second"]);
        if check["section"] == "operation" {
            assert!(check["milliseconds"].as_f64().unwrap() > 0.0, "{check}");
            assert!(rate.is_number() || bytes.is_number(), "{check}");
            assert!(check["share_of_peak"].is_number(), "{check}");
        }
    }
}

/// Two GPUs, and one named twice: messages are checked after operations in 16 bits.
#[test]
fn verify_passes_in_16_bits() {
    for gpus in ["0,1", "0,0"] {
        let Some((report, ran)) = verified_in("bf16", gpus, &[]) else {
            return;
        };
        ran.well();
        let checks = report["checks"].as_array().unwrap();
        let of = |part: &str| {
            let named = |c: &&serde_json::Value| c["name"].as_str().unwrap().contains(part);
            checks.iter().filter(named).count()
        };
        assert_eq!(of("smooth network"), 5, "{report}");
        assert_eq!(of("small network"), 5, "{report}");
    }
}

#[test]
fn verify_fails_and_names_copies_that_arrive_wrong() {
    let Some((report, ran)) = verified("0,1", &[("VCUDA_CORRUPT_PEER", "1")]) else {
        return;
    };
    let message = ran.wrong(5);
    assert!(
        message.contains("way of the messages") && message.contains("arrive wrong"),
        "{message}"
    );
    // Everything else passes: training goes through the host.
    assert_eq!(report["failed"], 1, "{report}");
}

#[test]
fn verify_names_a_kernel_that_fails_and_goes_no_further() {
    let folder = folder();
    let Some(mut program) = on_virtual_gpus(folder.path()) else {
        return;
    };
    let ran: Ran = program
        .args(["verify", "--gpus", "0", "--quick"])
        .env("VCUDA_FAIL_AT", "40")
        .output()
        .unwrap()
        .into();
    let message = ran.wrong(5);
    assert!(
        message.contains("verify: ") && message.contains("GPU 0"),
        "{message}"
    );
}

#[test]
fn devices_lists_gpus_and_what_nvml_adds() {
    let folder = folder();
    let Some(mut program) = on_virtual_gpus(folder.path()) else {
        return;
    };
    let ran: Ran = program.args(["devices", "--json"]).output().unwrap().into();
    let machine: serde_json::Value = serde_json::from_str(&ran.well().stdout).unwrap();
    assert_eq!(
        (&machine["driver"], &machine["driver_version"]),
        (&"13.0".into(), &"580.65.06".into())
    );
    let [first, second] = &machine["gpus"].as_array().unwrap()[..] else {
        panic!("{machine}");
    };
    assert_eq!(first["capability"], "9.0");
    assert_eq!(first["peers"], serde_json::json!([true, true]));
    assert_eq!(
        (
            &first["temperature_celsius"],
            &second["temperature_celsius"]
        ),
        (&52.into(), &53.into())
    );
    assert_eq!(
        (&first["pcie_generation"], &first["pcie_lanes"]),
        (&5.into(), &16.into())
    );
    // The second refuses the question.
    assert_eq!(second["pcie_generation"], serde_json::Value::Null);
    assert_eq!(first["between"][1], "one PCIe switch");

    let mut program = on_virtual_gpus(folder.path()).unwrap();
    let text = Ran::from(program.arg("devices").output().unwrap())
        .well()
        .stdout;
    for part in [
        "580.65.06, supports CUDA 13.0",
        "310 of 700",
        "5 ×16",
        "yes, over one PCIe switch",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn devices_does_without_nvml_and_says_so() {
    let folder = folder();
    let Some(mut program) = on_virtual_gpus(folder.path()) else {
        return;
    };
    program.env("LD_PRELOAD", [vcuda::LIBRARY, vcuda::CUBLAS].join(":"));
    let text = Ran::from(program.arg("devices").output().unwrap())
        .well()
        .stdout;
    assert!(text.contains("Virtual CUDA device 1"), "{text}");
    assert!(text.contains("NVML does not start"), "{text}");
}

#[test]
fn a_batch_too_large_for_the_memory_is_told_with_the_largest_that_fits() {
    let folder = folder();
    for gpus in ["0", "0,0", "0,1"] {
        let Some(mut program) = on_virtual_gpus(folder.path()) else {
            return;
        };
        let sizes = [
            "--config",
            "paper",
            "--set",
            "network.image=96",
            "--set",
            "network.width=0.25",
        ];
        let data = [
            "--set",
            "data.builtin_train=512",
            "--set",
            "data.builtin_val=16",
            "--set",
            "data.side=100",
        ];
        let arguments = |batch: &str| {
            let batch = format!("train.batch={batch}");
            let fixed = [
                "train", "--gpus", gpus, "--steps", "1", "--out", "run", "--set", &batch,
            ];
            [&fixed[..], &sizes, &data]
                .concat()
                .into_iter()
                .map(String::from)
                .collect::<Vec<_>>()
        };
        // cuBLAS and the margin alone take 80 MiB for each column.
        let memory = (224u64 << 20).to_string();
        program.env("VCUDA_MEMORY", &memory);
        let message = Ran::from(program.args(arguments("512")).output().unwrap()).wrong(5);
        assert!(message.contains("MiB are free of 224 MiB"), "{message}");
        let (_, rest) = message
            .split_once("the largest batch that fits is ")
            .expect(&message);
        let largest: usize = rest.split(' ').next().unwrap().parse().unwrap();
        assert!((1..512).contains(&largest), "{message}");
        let mut program = on_virtual_gpus(folder.path()).unwrap();
        program.env("VCUDA_MEMORY", &memory);
        let one_more = Ran::from(
            program
                .args(arguments(&(largest + 1).to_string()))
                .output()
                .unwrap(),
        )
        .wrong(5);
        assert!(
            one_more.contains(&format!("fits is {largest} ")),
            "{one_more}"
        );
    }
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
            // A step of the virtual GPUs takes seconds where other programs run beside it.
            "train.step_timeout=8",
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

/// Wherever the driver stops answering: in a step, an evaluation, a copy for a checkpoint, a look for bad numbers.
#[test]
fn a_gpu_that_never_ends_a_kernel_ends_the_run_in_time() {
    let folder = folder();
    let ended = |launch: u32, graphs: bool| {
        let name = format!("{launch}{graphs}");
        let launch = launch.to_string();
        let mut program = on_virtual_gpus(folder.path())?;
        program
            .env("VCUDA_HANG_AT", &launch)
            .args(["train", "--gpus", "0,1", "--out", &name])
            .args(TINY)
            .args(["--set", "data.builtin_val=8", "--set", "train.log_every=1"])
            .args([
                "--set",
                "train.evaluate_every=2",
                "--set",
                "train.checkpoint_every=2",
            ])
            .args([
                "--set",
                "train.step_timeout=2",
                "--batch",
                "4",
                "--steps",
                "12",
            ])
            .args((!graphs).then_some("--no-graph"));
        let since = std::time::Instant::now();
        let ran: Ran = program.output().unwrap().into();
        let message = ran.wrong(5);
        assert!(
            message.contains("hang") || message.contains("no answer"),
            "{launch}: {message}"
        );
        assert!(since.elapsed().as_secs() < 60, "{launch}");
        Some(())
    };
    std::thread::scope(|scope| {
        for (number, launch) in (150..1200).step_by(131).enumerate() {
            let ended = &ended;
            scope.spawn(move || ended(launch, number % 2 == 0));
        }
    });
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
