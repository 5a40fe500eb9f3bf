//! Signals: the step ends, the state is saved, and the run can go on as if nothing had been.

use crate::support::*;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Starts a run that would take hours and waits until it has logged a few steps.
fn start(folder: &Path, out: &str, more: &[&str]) -> Child {
    let arguments = [&["--steps", "1000000"], more].concat();
    let mut child = program(folder)
        .args(tiny(out, &arguments))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let metrics = folder.join(out).join("metrics.jsonl");
    while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 4 {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended by itself"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[track_caller]
fn a_signal_saves(number: i32, code: i32, name: &str) {
    let folder = folder();
    let child = start(folder.path(), "run", &[]);
    signal(&child, number);
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert!(ran.wrong(code).contains(name));
    let step = checkpoint(folder.path(), "run").state.step;
    assert!(step >= 9, "step {step}");
    let until = (step + 5).to_string();
    resume(folder.path(), "run", &["--steps", &until]);
    train(folder.path(), "whole", &["--steps", &until]);
    assert_same_checkpoint(folder.path(), "whole", "run");
}

#[test]
fn sigint_ends_with_130_and_the_run_goes_on_to_the_same_bits() {
    a_signal_saves(libc::SIGINT, 130, "SIGINT");
}

#[test]
fn sigterm_ends_with_143_and_the_run_goes_on_to_the_same_bits() {
    a_signal_saves(libc::SIGTERM, 143, "SIGTERM");
}

/// Before the first step there is nothing to save: reading the data for its mean, which takes minutes, ends at once.
#[test]
fn a_signal_before_the_first_step_ends_the_run_at_once() {
    for (number, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let folder = folder();
        let much = ["--set", "data.builtin_train=100000000"];
        let mut child = program(folder.path())
            .args(tiny("run", &much))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs(2));
        assert!(child.try_wait().unwrap().is_none(), "ended by itself");
        signal(&child, number);
        let since = Instant::now();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(since.elapsed() < Duration::from_secs(10));
        assert!(!folder.path().join("run/checkpoint.safetensors").exists());
    }
}

#[test]
fn an_interrupted_run_tells_the_length_that_was_saved_and_how_to_go_on() {
    let folder = folder();
    // Only evaluations are logged, so that the end mostly comes between two records.
    let more = [
        "--set",
        "train.log_every=1000000",
        "--set",
        "train.evaluate_every=4",
    ];
    let child = start(folder.path(), "my run", &more);
    signal(&child, libc::SIGINT);
    let ran: Ran = child.wait_with_output().unwrap().into();
    let step = checkpoint(folder.path(), "my run").state.step;
    let epochs = step as f64 / 8.0;
    let length = format!("length      {step} steps of 16 images, {epochs:.2} epochs\n");
    assert!(ran.stdout.contains(&length), "{length}: {}", ran.stdout);
    let command = "alexnet-mp train --resume --out 'my run'  go on where it stopped\n";
    assert!(ran.stdout.contains(command), "{}", ran.stdout);
    assert!(!ran.stdout.contains("--steps"), "{}", ran.stdout);
}

/// As Ctrl-Z and `fg` do: the time in between is no sign of a device that hangs.
#[test]
fn a_run_that_is_stopped_and_continued_goes_on() {
    let folder = folder();
    // Longer than a step takes on a machine that is busy otherwise, shorter than the stops.
    let child = start(folder.path(), "run", &["--set", "train.step_timeout=2"]);
    for _ in 0..2 {
        signal(&child, libc::SIGSTOP);
        std::thread::sleep(Duration::from_secs(5));
        signal(&child, libc::SIGCONT);
        std::thread::sleep(Duration::from_millis(300));
    }
    signal(&child, libc::SIGINT);
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.wrong(130);
}

/// An evaluation that would take long is left, and made after all when the run goes on.
#[test]
fn a_signal_during_an_evaluation_ends_it() {
    let folder = folder();
    let more = [
        "--set",
        "data.builtin_val=10000000",
        "--set",
        "train.evaluate_every=4",
    ];
    let more = [&more[..], &["--set", "train.log_every=1"]].concat();
    // Four lines of steps: the evaluation after the fourth step has begun, or is about to.
    let child = start(folder.path(), "run", &more);
    signal(&child, libc::SIGTERM);
    let ran: Ran = child.wait_with_output().unwrap().into();
    ran.wrong(143);
    let state = checkpoint(folder.path(), "run").state;
    assert_eq!((state.step, state.evaluated), (4, None));
}

/// Killed without warning: the checkpoint of the epoch before is whole.
#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let folder = folder();
    let mut child = start(folder.path(), "run", &["--set", "train.checkpoint_every=2"]);
    signal(&child, libc::SIGKILL);
    child.wait().unwrap();
    let step = checkpoint(folder.path(), "run").state.step;
    assert!(step >= 2 && step.is_multiple_of(2), "step {step}");
    let until = (step + 3).to_string();
    resume(folder.path(), "run", &["--steps", &until]);
    train(
        folder.path(),
        "whole",
        &["--steps", &until, "--set", "train.checkpoint_every=2"],
    );
    assert_same_checkpoint(folder.path(), "whole", "run");
    let steps: Vec<u64> = metrics(folder.path(), "run")
        .iter()
        .filter(|l| l.get("val_loss").is_none())
        .map(|l| l["step"].as_u64().unwrap())
        .collect();
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
}
