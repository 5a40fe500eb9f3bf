//! Disks that are full, folders that cannot be written to or vanish, files that were cut short:
//! what was good before stays good.

use crate::support::*;
use alexnet_mp::checkpoint::{Checkpoint, FILE_NAME, read, write_with};
use alexnet_mp::network::params::Tensor;
use std::path::Path;
use std::process::Stdio;

/// The program, allowed to write files of so many bytes at most.
fn with_file_limit(folder: &Path, bytes: u64) -> std::process::Command {
    use std::os::unix::process::CommandExt;
    let mut program = program(folder);
    // SAFETY: both calls are allowed between fork and exec, and allocate nothing.
    unsafe {
        program.pre_exec(move || {
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            // Without this the signal would end the process before it can tell of the error.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    };
    program
}

#[test]
fn a_checkpoint_that_does_not_fit_ends_the_run_and_leaves_the_one_before() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "2"]);
    let file = folder.path().join("run").join(FILE_NAME);
    let before = std::fs::read(&file).unwrap();
    let ran: Ran = with_file_limit(folder.path(), before.len() as u64 - 1000)
        .args(["train", "--cpu", "--resume", "--out", "run", "--steps", "4"])
        .output()
        .unwrap()
        .into();
    let message = ran.wrong(4);
    for word in ["checkpoint.safetensors", "too large", "unchanged"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert!(before == std::fs::read(&file).unwrap());
    let names = files(&folder.path().join("run"));
    assert!(!names.iter().any(|n| n.ends_with(".tmp")), "{names:?}");
    resume(folder.path(), "run", &["--steps", "4"]);
    train(folder.path(), "whole", &["--steps", "4"]);
    assert_same_checkpoint(folder.path(), "whole", "run");
}

#[test]
fn a_full_disk_is_named_and_the_file_before_is_whole() {
    if !Path::new("/dev/full").exists() {
        println!("skipped: no /dev/full here");
        return;
    }
    let folder = folder();
    train(folder.path(), "run", &["--steps", "1"]);
    let file = folder.path().join("run").join(FILE_NAME);
    let before = Checkpoint::load(&file).unwrap();
    // What is written for the file's sake ends on a device that is always full.
    std::os::unix::fs::symlink("/dev/full", file.with_extension("tmp")).unwrap();
    let error = before.save(&file).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(Checkpoint::load(&file).unwrap(), before);
}

#[test]
fn a_folder_that_cannot_be_made_or_written_to_is_a_mistake_told_at_once() {
    let folder = folder();
    // Nobody can make folders there, root included.
    let message = run(folder.path(), &tiny("/proc/alexnet", &["--steps", "1"])).wrong(2);
    assert!(message.contains("--out /proc/alexnet"), "{message}");
}

#[test]
fn a_folder_that_vanishes_ends_the_run_with_its_name() {
    let folder = folder();
    let more = ["--steps", "1000000", "--set", "train.checkpoint_every=1"];
    let child = program(folder.path())
        .args(tiny("run", &more))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_metrics(&folder.path().join("run"), 2);
    std::fs::rename(folder.path().join("run"), folder.path().join("gone")).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    let message = ran.wrong(4);
    assert!(message.contains("cannot write run/"), "{message}");
    assert!(checkpoint(folder.path(), "gone").state.step >= 1);
}

#[test]
fn what_a_killed_run_left_half_written_is_cleared_away() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "1"]);
    std::fs::write(folder.path().join("run/checkpoint.tmp"), "half").unwrap();
    resume(folder.path(), "run", &["--steps", "2"]);
    let names = files(&folder.path().join("run"));
    assert!(!names.iter().any(|n| n.ends_with(".tmp")), "{names:?}");
}

/// What a change of a checkpoint's tensors makes `--resume` say.
#[track_caller]
fn refused(change: impl FnOnce(&mut Checkpoint)) -> String {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "1"]);
    let mut changed = checkpoint(folder.path(), "run");
    change(&mut changed);
    changed
        .save(&folder.path().join("run").join(FILE_NAME))
        .unwrap();
    run(
        folder.path(),
        &["train", "--resume", "--cpu", "--out", "run"],
    )
    .wrong(4)
}

#[test]
fn a_checkpoint_that_does_not_fit_its_network_names_the_tensor() {
    let extra = |name: &str| Tensor {
        name: name.into(),
        shape: vec![1],
        values: vec![0.0],
    };
    let is = |t: &Tensor| t.name == "conv2.bias";
    for (message, words) in [
        (
            refused(|c| c.parameters.0.retain(|t| !is(t))),
            ["conv2.bias", "missing"],
        ),
        (
            refused(|c| c.momentum.0.retain(|t| !is(t))),
            ["conv2.bias", "missing"],
        ),
        (
            refused(|c| c.parameters.0.push(extra("conv6.weight"))),
            ["conv6.weight", "expected only"],
        ),
        (
            refused(|c| {
                let tensor = c.parameters.0.iter_mut().find(|t| is(t)).unwrap();
                tensor.shape.insert(0, 1);
            }),
            ["conv2.bias", "expected"],
        ),
    ] {
        for word in words {
            assert!(message.contains(word), "{word:?}: {message}");
        }
    }
}

#[test]
fn a_checkpoint_of_another_version_is_refused_with_both() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "1"]);
    let file = folder.path().join("run").join(FILE_NAME);
    // The version is a text of one figure in the header, which a checksum covers: without one.
    let contents = read(&file).unwrap();
    write_with(&file, &contents.tensors, []).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let text = String::from_utf8_lossy(&bytes[..4096]).into_owned();
    let place = text.find("\"version\":\"1\"").expect("a version") + "\"version\":\"".len();
    let mut other = bytes;
    other[place] = b'7';
    std::fs::write(&file, other).unwrap();
    let message = run(
        folder.path(),
        &["train", "--resume", "--cpu", "--out", "run"],
    )
    .wrong(4);
    assert!(
        message.contains("version 7") && message.contains("version 1"),
        "{message}"
    );
}
