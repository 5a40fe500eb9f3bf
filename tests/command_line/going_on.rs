//! `--resume`: which run goes on, from which checkpoint, and what is said where none can.

use crate::support::*;

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

const RESUME: &[&str] = &["train", "--cpu", "--resume", "--out", "run"];

#[test]
fn without_a_folder_the_run_that_goes_on_is_named_and_the_newer_one_that_cannot() {
    let folder = folder();
    train(folder.path(), "runs/old", &["--steps", "2"]);
    let more = ["train", "--cpu", "--resume", "--steps", "3"];
    let ran = run(folder.path(), &more).well();
    let line = "going on with runs/old from step 2\n";
    assert_says(&ran.stderr, &[line]);
    std::fs::create_dir(folder.path().join("runs/new")).unwrap();
    let ran = run(
        folder.path(),
        &["train", "--cpu", "--resume", "--steps", "4"],
    )
    .well();
    let line = "going on with runs/old from step 3; runs/new is newer, but holds no checkpoint\n";
    assert_says(&ran.stderr, &[line]);
    let quiet = ["train", "--cpu", "--resume", "--steps", "5", "--quiet"];
    let ran = run(folder.path(), &quiet).well();
    assert!(!ran.stderr.contains("going on"), "{}", ran.stderr);
}

#[test]
fn a_damaged_checkpoint_names_the_newest_whole_one_and_how_to_go_on_from_it() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "20"]);
    let newest = folder.path().join("run/checkpoint.safetensors");
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Where it is: the one of step 20 beside it is the same file, and damaged too.
    std::fs::write(&newest, bytes).unwrap();
    let message = run(folder.path(), RESUME).wrong(4);
    let remedy = "`mv run/checkpoint-000000016.safetensors run/checkpoint.safetensors`";
    assert_says(&message, &["checksum", "step 16", remedy, "--resume"]);
    let older = folder.path().join("run/checkpoint-000000016.safetensors");
    std::fs::rename(older, &newest).unwrap();
    resume(folder.path(), "run", &[]);
    train(folder.path(), "whole", &["--steps", "20"]);
    assert_same_checkpoint(folder.path(), "run", "whole");
}

#[test]
fn a_run_that_has_saved_nothing_yet_is_to_be_started_again() {
    let folder = folder();
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let message = run(folder.path(), RESUME).wrong(4);
    let words = [
        "run/checkpoint.safetensors",
        "no checkpoint yet",
        "without --resume",
    ];
    assert_says(&message, &words);
    train(folder.path(), "run", &["--steps", "1"]);
}

#[test]
fn weights_alone_are_nothing_to_go_on_from_but_can_be_evaluated() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "8"]);
    let run_folder = folder.path().join("run");
    for name in files(&run_folder) {
        if name.starts_with("checkpoint") {
            std::fs::remove_file(run_folder.join(name)).unwrap();
        }
    }
    let weights = run_folder.join("checkpoint.safetensors");
    std::fs::copy(run_folder.join("best.safetensors"), weights).unwrap();
    let message = run(folder.path(), RESUME).wrong(4);
    assert_says(&message, &["no training state", "evaluate --weights"]);
}

#[test]
fn an_edited_configuration_beside_a_checkpoint_is_said_not_to_count() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "2"]);
    let ran = resume(folder.path(), "run", &["--steps", "3"]);
    assert!(!ran.stderr.contains("config.toml"), "{}", ran.stderr);
    let file = folder.path().join("run/config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let edited = text.replace("learning_rate = ", "learning_rate = 1");
    assert_ne!(edited, text);
    std::fs::write(&file, edited).unwrap();
    let ran = resume(folder.path(), "run", &["--steps", "4"]);
    let words = [
        "run/config.toml",
        "(train.learning_rate)",
        "the checkpoint's counts",
    ];
    assert_says(&ran.stderr, &words);
    train(folder.path(), "whole", &["--steps", "4"]);
    assert_same_checkpoint(folder.path(), "run", "whole");
}
