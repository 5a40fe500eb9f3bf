//! Runs that must end in the same bits: resumed ones, on other threads, with other workers.

use crate::support::*;

/// Twenty steps at once, and ten, then ten more; a tenth step is in the middle of an epoch of 8.
#[track_caller]
fn resuming_changes_nothing(more: &[&str]) {
    let folder = folder();
    let with = |steps: &[&'static str]| [steps, more].concat();
    train(folder.path(), "whole", &with(&["--steps", "20"]));
    train(folder.path(), "parts", &with(&["--steps", "10"]));
    assert_eq!(checkpoint(folder.path(), "parts").state.step, 10);
    resume(folder.path(), "parts", &["--steps", "20"]);
    assert_same_checkpoint(folder.path(), "whole", "parts");
    let evaluations = |out: &str| -> Vec<(u64, f64)> {
        metrics(folder.path(), out)
            .iter()
            .filter_map(|l| Some((l["step"].as_u64()?, l["val_loss"].as_f64()?)))
            .filter(|(step, _)| *step != 10)
            .collect()
    };
    assert_eq!(evaluations("whole"), evaluations("parts"));
}

#[test]
fn twenty_steps_are_ten_and_ten_more() {
    resuming_changes_nothing(&[]);
}

#[test]
fn with_accumulated_gradients_too() {
    resuming_changes_nothing(&["--set", "train.accumulate=2"]);
}

/// A schedule that remembers evaluations, and falls twice in twenty steps.
#[test]
fn with_a_schedule_that_waits_for_a_plateau_too() {
    resuming_changes_nothing(&[
        "--set",
        "train.schedule={ kind = \"plateau\", factor = 0.5, at = [], patience = 1, drops = 9, biases = true }",
        "--set",
        "train.evaluate_every=3",
        "--set",
        "train.learning_rate=0.0001",
    ]);
}

/// Stopped where an evaluation and a checkpoint are due.
#[test]
fn at_the_end_of_an_epoch_too() {
    let folder = folder();
    train(folder.path(), "whole", &["--steps", "16"]);
    train(folder.path(), "parts", &["--epochs", "1"]);
    assert_eq!(checkpoint(folder.path(), "parts").state.step, 8);
    resume(folder.path(), "parts", &["--epochs", "2"]);
    assert_same_checkpoint(folder.path(), "whole", "parts");
}

#[test]
fn neither_threads_nor_devices_nor_loader_workers_change_a_bit() {
    let folder = folder();
    train(folder.path(), "plain", &["--steps", "10", "--threads", "2"]);
    for (out, more) in [
        (
            "one thread",
            &["--threads=1", "--set", "data.workers=1"][..],
        ),
        ("three threads", &["--threads=3", "--set", "data.workers=2"]),
        ("one device", &["--threads=2", "--one-device"]),
        ("three workers", &["--threads=2", "--set", "data.workers=3"]),
    ] {
        train(folder.path(), out, &[&["--steps", "10"], more].concat());
        assert_same_checkpoint(folder.path(), "plain", out);
    }
}

/// A run may go on with other threads than it began with.
#[test]
fn a_run_goes_on_with_other_threads() {
    let folder = folder();
    train(folder.path(), "whole", &["--steps", "12"]);
    train(folder.path(), "parts", &["--steps", "5", "--threads", "1"]);
    resume(folder.path(), "parts", &["--steps", "12", "--threads", "3"]);
    assert_same_checkpoint(folder.path(), "whole", "parts");
}

#[test]
fn another_seed_is_another_run() {
    let folder = folder();
    train(folder.path(), "a", &["--steps", "2"]);
    train(folder.path(), "b", &["--steps", "2", "--seed", "1"]);
    let [a, b] = ["a", "b"].map(|out| checkpoint(folder.path(), out).parameters);
    assert_ne!(a, b);
}

#[test]
fn a_run_that_is_done_stays_as_it_is() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "5"]);
    let before = checkpoint(folder.path(), "run");
    resume(folder.path(), "run", &["--steps", "5"]);
    assert_eq!(checkpoint(folder.path(), "run"), before);
}

#[test]
fn the_same_command_twice_leaves_the_same_checkpoint_to_the_byte() {
    let folder = folder();
    let [a, b] = ["a", "b"].map(|out| {
        train(folder.path(), out, &["--steps", "9"]);
        let read = |name: &str| std::fs::read(folder.path().join(out).join(name)).unwrap();
        (read("checkpoint.safetensors"), read("best.safetensors"))
    });
    assert!(a == b);
}
