//! Devices that fail, hang or deliver wrong bytes: the run ends with the device and the step
//! named, and goes on from its last checkpoint as if nothing had been.

use crate::support::*;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Two devices, and a checkpoint every second step.
const TWO: &[&str] = &["--threads", "2", "--set", "train.checkpoint_every=2"];

/// The program, told to fail on purpose.
fn failing(folder: &Path, fault: &str) -> Command {
    let mut program = program(folder);
    program.env("ALEXNET_MP_FAULT", fault);
    program
}

/// Trains in `run` with a fault.
fn train_failing(folder: &Path, fault: &str, more: &[&str]) -> Ran {
    let arguments = tiny("run", more);
    let mut program = failing(folder, fault);
    program.args(arguments).output().unwrap().into()
}

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

#[test]
fn a_device_that_fails_is_named_with_the_step_and_the_run_goes_on_to_the_same_bits() {
    let folder = folder();
    train(folder.path(), "whole", &[&["--steps", "8"], TWO].concat());
    for (fault, words) in [
        ("panic:device1:step5", ["device 1", "internal error"]),
        ("fail:device0:step6", ["device 0", "failed"]),
        ("oom:device1:step5", ["device 1", "out of memory"]),
    ] {
        let more = [&["--steps", "8"], TWO].concat();
        let message = train_failing(folder.path(), fault, &more).wrong(5);
        let step = &fault[fault.len() - 1..];
        assert_says(&message, &words);
        assert_says(
            &message,
            &[&format!("step {step}"), "checkpoint of step 4 is good"],
        );
        assert_eq!(checkpoint(folder.path(), "run").state.step, 4);
        resume(folder.path(), "run", &["--threads", "2"]);
        assert_same_checkpoint(folder.path(), "whole", "run");
        std::fs::remove_dir_all(folder.path().join("run")).unwrap();
    }
}

#[test]
fn the_only_device_may_fail_too_and_before_the_first_step() {
    let folder = folder();
    let one = ["--steps", "3", "--threads", "1"];
    let message = train_failing(folder.path(), "panic:device0:step2", &one).wrong(5);
    assert_says(&message, &["device 0", "step 2", "no checkpoint"]);
    let two = ["--steps", "3", "--threads", "2"];
    let message = train_failing(folder.path(), "oom:device1:step0", &two).wrong(5);
    assert_says(&message, &["device 1", "out of memory", "--batch"]);
}

#[test]
fn a_device_that_hangs_ends_the_run_in_time() {
    let folder = folder();
    let more = [TWO, &["--steps", "9", "--set", "train.step_timeout=1"]].concat();
    let message = train_failing(folder.path(), "hang:device1:step5", &more).wrong(5);
    assert_says(
        &message,
        &["step 5", "device 1", "train.step_timeout", "step 4 is good"],
    );
    assert!(!message.contains("device 0"), "{message}");
    assert_eq!(checkpoint(folder.path(), "run").state.step, 4);
    // The only device, which nobody waits for.
    std::fs::remove_dir_all(folder.path().join("run")).unwrap();
    let one = ["--threads", "1", "--set", "train.step_timeout=1"];
    let message = train_failing(folder.path(), "hang:device0:step2", &one).wrong(5);
    assert_says(&message, &["step 2", "device 0"]);
}

#[test]
fn a_second_signal_ends_even_a_hanging_run_at_once() {
    let folder = folder();
    let child = failing(folder.path(), "hang:device0:step4")
        .args(tiny("run", &["--threads", "2"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_metrics(&folder.path().join("run"), 1);
    for _ in 0..2 {
        signal(&child, libc::SIGINT);
        std::thread::sleep(Duration::from_millis(100));
    }
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.code, Some(130), "{ran:?}");
}

#[test]
fn wrong_bytes_between_devices_are_found_where_exchanges_are_checked() {
    let folder = folder();
    let more = [TWO, &["--steps", "6"]].concat();
    let checked = [&more[..], &["--check-exchange", "2"]].concat();
    // Checking changes nothing of a run whose copies are right.
    train(folder.path(), "whole", &more);
    train(folder.path(), "checked", &checked);
    assert_same_checkpoint(folder.path(), "whole", "checked");
    for device in ["device 0", "device 1"] {
        let fault = format!("peer-corrupt:{}:step4", device.replace(' ', ""));
        let message = train_failing(folder.path(), &fault, &checked).wrong(5);
        assert_says(
            &message,
            &["step 4", "arrived wrong at", device, "checksum", "verify"],
        );
        assert_eq!(checkpoint(folder.path(), "run").state.step, 2);
        std::fs::remove_dir_all(folder.path().join("run")).unwrap();
    }
    // Unchecked they are not: this is what the check is for.
    train_failing(folder.path(), "peer-corrupt:device1:step4", &more).well();
    let [right, wrong] = ["whole", "run"].map(|out| checkpoint(folder.path(), out).parameters);
    assert_ne!(right, wrong);
}

#[test]
fn a_text_that_is_no_fault_is_a_mistake() {
    let folder = folder();
    let message = train_failing(folder.path(), "explode:device0:step1", &[]).wrong(2);
    assert_says(&message, &["ALEXNET_MP_FAULT", "explode", "peer-corrupt"]);
    let one = ["--steps", "2"];
    let message = train_failing(folder.path(), "nan:conv9.weight:step1", &one).wrong(2);
    assert_says(&message, &["ALEXNET_MP_FAULT", "conv9"]);
}
