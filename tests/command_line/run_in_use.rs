//! Two processes and one run folder: never both.

use crate::support::*;
use std::process::{Child, Stdio};

#[test]
fn runs_begun_in_the_same_second_have_folders_of_their_own() {
    let folder = folder();
    let start = || -> Child {
        program(folder.path())
            .args(["train", "--cpu", "--steps", "1"])
            .args(TINY)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    for mut child in [start(), start(), start()] {
        assert!(child.wait().unwrap().success());
    }
    let runs = files(&folder.path().join("runs"));
    assert_eq!(runs.len(), 3, "{runs:?}");
    for name in runs {
        let state = checkpoint(folder.path(), &format!("runs/{name}")).state;
        assert_eq!(state.step, 1, "{name}");
    }
}

#[test]
fn a_folder_in_which_another_process_trains_is_refused_until_that_is_killed() {
    let folder = folder();
    let endless = ["--steps", "1000000", "--set", "train.checkpoint_every=3"];
    let mut child = program(folder.path())
        .args(tiny("run", &endless))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_metrics(&folder.path().join("run"), 4);
    let resumed = ["train", "--cpu", "--resume", "--out", "run"];
    let refused = |arguments: &[&str]| {
        let message = run(folder.path(), arguments).wrong(2);
        let words = "--out run: in use by another alexnet-mp";
        assert!(message.contains(words), "{message}");
    };
    refused(&resumed);
    // A new run too, where the other has saved nothing yet.
    let newest = folder.path().join("run/checkpoint.safetensors");
    signal(&child, libc::SIGSTOP);
    let aside = folder.path().join("aside.safetensors");
    std::fs::rename(&newest, &aside).unwrap();
    refused(&tiny("run", &["--steps", "1"]));
    std::fs::rename(&aside, &newest).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let step = checkpoint(folder.path(), "run").state.step;
    let until = (step + 1).to_string();
    resume(folder.path(), "run", &["--steps", &until]);
}
