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

/// Trains on the virtual GPUs, whose streams run in an order of their own.
fn train_on_gpus(folder: &Path, more: &[&str]) -> Option<Ran> {
    let mut program = on_virtual_gpus(folder)?;
    let mut arguments = vec!["train", "--gpus", "0,1"];
    arguments.extend(more);
    program.env("VCUDA_STREAMS", "random:3");
    let ran: Ran = program.args(&arguments).output().unwrap().into();
    Some(ran.well())
}

#[test]
fn an_interrupted_run_in_f16_ends_in_the_same_bits_loss_scale_included() {
    let folder = folder();
    let path = folder.path();
    let small = [
        TINY,
        &["--set", "data.builtin_val=8", "--set", "train.batch=4"],
    ]
    .concat();
    let run = |out: &'static str, steps| {
        let fixed = ["--precision", "f16", "--out", out, "--steps", steps];
        train_on_gpus(path, &[&small[..], &fixed].concat())
    };
    let (Some(_), Some(_)) = (run("whole", "7"), run("parts", "4")) else {
        return;
    };
    train_on_gpus(path, &["--out", "parts", "--resume", "--steps", "7"]);
    assert_same_checkpoint(path, "parts", "whole");
    let scale = |out| checkpoint(path, out).state.loss_scale;
    assert!(scale("whole").is_some_and(|s| s.scale > 1.0));
    assert_eq!(scale("parts"), scale("whole"));
}

#[test]
fn steps_as_graphs_fed_by_the_loader_are_the_steps_issued_one_by_one() {
    let folder = folder();
    let path = folder.path();
    for (out, more) in [("graphs", &[][..]), ("single", &["--no-graph"])] {
        let fixed = ["--out", out, "--steps", "9", "--set", "train.batch=4"];
        if train_on_gpus(path, &[TINY, &fixed, more].concat()).is_none() {
            return;
        }
    }
    assert_same_checkpoint(path, "graphs", "single");
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
