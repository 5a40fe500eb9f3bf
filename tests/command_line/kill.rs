//! `kill -9` at random moments of a run that saves after every step.
//!
//! Ten kills here; `ALEXNET_MP_KILLS=200 cargo test --release --test command_line kill` does more.

use crate::support::*;
use alexnet_mp::checkpoint::{Checkpoint, FILE_NAME};
use alexnet_mp::random::{Key, Purpose};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Steps of the run, each of which is saved.
const STEPS: u64 = 60;

/// The run that is not interrupted keeps every checkpoint, to compare with.
fn reference(folder: &Path) {
    let keep = format!("train.keep={STEPS}");
    let steps = STEPS.to_string();
    let more = ["--steps", &steps, "--set", &keep];
    train(folder, "whole", &[&more[..], SAVING].concat());
}

const SAVING: &[&str] = &[
    "--set",
    "train.checkpoint_every=1",
    "--set",
    "train.evaluate_every=5",
];

fn start(folder: &Path, out: &str) -> Child {
    let steps = STEPS.to_string();
    let arguments: Vec<String> = if folder.join(out).join(FILE_NAME).exists() {
        let go_on = ["train", "--cpu", "--quiet", "--resume", "--out", out];
        go_on.iter().map(ToString::to_string).collect()
    } else {
        let more = [&["--steps", &steps, "--quiet"], SAVING].concat();
        tiny(out, &more).iter().map(ToString::to_string).collect()
    };
    program(folder)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Fails where the newest checkpoint, or one kept beside it, is not what the reference saved.
fn assert_checkpoints_are_whole(folder: &Path, out: &str) {
    for name in files(&folder.join(out)) {
        let numbered = name.starts_with("checkpoint-");
        if name != FILE_NAME && !numbered {
            continue;
        }
        let found = Checkpoint::load(&folder.join(out).join(&name)).unwrap();
        let step = found.state.step;
        let expected = folder.join(format!("whole/checkpoint-{step:09}.safetensors"));
        let mut expected = Checkpoint::load(&expected).unwrap();
        // The one difference in what was asked for.
        expected.state.config = found.state.config.clone();
        assert!(found == expected, "{out}/{name} of step {step}");
    }
}

#[test]
fn a_killed_run_always_has_a_whole_checkpoint_and_goes_on_to_the_same_bits() {
    let kills: usize = std::env::var("ALEXNET_MP_KILLS").map_or(10, |n| n.parse().unwrap());
    let folder = folder();
    reference(folder.path());
    let mut moments = Key::new(std::process::id().into(), Purpose::Verify).stream(0, 0);
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        let out = format!("run{runs}");
        let mut before = None;
        loop {
            let mut child = start(folder.path(), &out);
            let file = folder.path().join(&out).join(FILE_NAME);
            // Most of the time goes by before the first save: wait for one, then a moment.
            let begun = Instant::now();
            let seen = || std::fs::metadata(&file).and_then(|m| m.modified()).ok();
            while seen() == before && child.try_wait().unwrap().is_none() {
                assert!(
                    begun.elapsed() < Duration::from_secs(120),
                    "nothing is saved"
                );
                std::thread::sleep(Duration::from_millis(1));
            }
            let moment = f64::from(moments.between(0.0, 0.25));
            std::thread::sleep(Duration::from_secs_f64(moment));
            child.kill().unwrap();
            let ended = child.wait().unwrap();
            assert_checkpoints_are_whole(folder.path(), &out);
            before = seen();
            if ended.success() {
                break;
            }
            assert_eq!(ended.code(), None, "{out} ended by itself: {ended}");
            killed += 1;
            if killed >= kills {
                // The last one is left to come to its end.
                assert!(start(folder.path(), &out).wait().unwrap().success());
                break;
            }
        }
        assert_same_checkpoint(folder.path(), "whole", &out);
        assert_checkpoints_are_whole(folder.path(), &out);
        std::fs::remove_dir_all(folder.path().join(&out)).unwrap();
        runs += 1;
    }
    println!("{killed} kills in {runs} runs");
}
