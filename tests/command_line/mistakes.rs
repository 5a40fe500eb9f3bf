//! What a user gets for a mistake: the fitting exit code and one line that says what to do.

use crate::support::*;

/// Runs the program on `arguments`, split at spaces, and gives its error line.
#[track_caller]
fn error(code: i32, arguments: &str) -> String {
    let folder = folder();
    let arguments: Vec<&str> = arguments.split(' ').collect();
    run(folder.path(), &arguments).wrong(code)
}

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{message:?} does not say {word:?}");
    }
}

#[test]
fn flags_that_do_not_exist_or_do_not_fit_are_refused() {
    assert_says(&error(2, "train --bach 3"), &["--bach", "--batch"]);
    assert_says(&error(2, "trian"), &["trian", "train"]);
    assert_says(&error(2, "train --steps many"), &["many", "--steps"]);
    assert_says(
        &error(2, "train --steps 3 --epochs 3"),
        &["--steps", "--epochs"],
    );
    assert_says(&error(2, "train --gpus 0 --cpu"), &["--gpus", "--cpu"]);
    for gpus in ["a", "0,", "-1", "0.5", "all"] {
        let message = error(2, &format!("train --gpus={gpus}"));
        assert_says(&message, &["--gpus", "expected GPUs by index", "devices"]);
    }
    assert_says(&error(2, "train --gpus 0,1,2"), &["3 GPUs", "2 column"]);
    assert_says(
        &error(2, "train --gpus 0 --threads 2"),
        &["--threads", "--gpus"],
    );
    assert_says(&error(2, "train --threads 0"), &["--threads 0"]);
    assert_says(
        &error(2, "train --threads 100000"),
        &["--threads 100000", "1 to 1024"],
    );
    assert_says(&error(2, "train --steps 0"), &["--steps 0", "at least one"]);
    let resumed = error(2, "train --resume --epochs 0");
    assert_says(&resumed, &["--epochs 0", "at least one"]);
    assert_says(&error(2, "step --weights w.safetensors"), &["--images"]);
    assert_says(&error(2, "plan --diff paper"), &["--diff"]);
}

#[test]
fn a_seed_that_no_configuration_can_hold_is_refused_with_the_range() {
    for seed in ["9223372036854775808", "18446744073709551616", "-1", "one"] {
        let message = error(2, &format!("train --seed={seed}"));
        assert_says(&message, &["--seed", "expected 0 to 9223372036854775807"]);
    }
}

#[test]
fn unknown_keys_and_presets_name_the_nearest() {
    let message = error(2, "train --set train.learning_rte=0.1");
    assert_says(&message, &["train.learning_rte", "train.learning_rate"]);
    assert_says(
        &error(2, "train --set netwrok.width=1"),
        &["netwrok", "network"],
    );
    let message = error(2, "train --set network.lrn.alhpa=1");
    assert_says(&message, &["network.lrn.alhpa", "network.lrn.alpha"]);
    assert_says(
        &error(2, "train --config quickstrat"),
        &["quickstrat", "quickstart"],
    );
    assert_says(
        &error(2, "plan --diff paper sorce-145"),
        &["sorce-145", "source-145"],
    );
    assert_says(&error(2, "train --set train.batch"), &["section.key=value"]);
}

#[test]
fn values_out_of_range_name_the_range() {
    for (assignment, words) in [
        ("train.batch=0", ["train.batch = 0", "1 to"]),
        ("network.width=-1", ["network.width = -1", "0.001 to"]),
        ("train.momentum=1", ["train.momentum = 1", "0 to"]),
        ("data.side=10", ["data.side = 10", "64 to"]),
        (
            "network.dropout.rate=1",
            ["network.dropout.rate = 1", "0 to"],
        ),
        ("train.log_every=0", ["train.log_every = 0", "1 to"]),
        ("network.columns=3", ["network.columns = 3", "1 to 2"]),
        (
            "train.learning_rate=nan",
            ["train.learning_rate = NaN", "0 to"],
        ),
    ] {
        let message = error(2, &format!("train --config quickstart --set {assignment}"));
        assert_says(&message, &words);
    }
    assert_says(
        &error(2, "train --set train.batch=many"),
        &["train.batch", "many"],
    );
    assert_says(
        &error(2, "train --set network.activation=gelu"),
        &["gelu", "relu", "tanh"],
    );
    assert_says(
        &error(2, "train --epochs 0"),
        &["train.epochs", "nothing to do"],
    );
}

#[test]
fn files_that_are_not_there_are_named() {
    assert_says(
        &error(2, "train --config mine.toml"),
        &["mine.toml", "presets"],
    );
    assert_says(
        &error(3, "train --data photos --config quickstart"),
        &["photos"],
    );
    assert_says(
        &error(4, "train --resume --out run"),
        &["run/checkpoint.safetensors"],
    );
    assert_says(&error(2, "train --resume"), &["--resume", "--out"]);
    let message = error(3, "step --weights w --images x.npy --labels y.npy --out o");
    assert_says(&message, &["x.npy"]);
}

#[test]
fn a_toml_file_with_a_mistake_is_named_with_its_line() {
    let folder = folder();
    let file = folder.path().join("mine.toml");
    for (text, words) in [
        ("[train]\nbatch = = 3\n", vec!["mine.toml", "line 2"]),
        ("[train]\nbtach = 3\n", vec!["train.btach", "train.batch"]),
        ("base = \"papr\"\n", vec!["papr", "paper"]),
    ] {
        std::fs::write(&file, text).unwrap();
        let message = run(folder.path(), &["train", "--config", "mine.toml"]).wrong(2);
        assert_says(&message, &words);
    }
}

/// On a machine with GPUs too: there is no GPU 99.
#[test]
fn a_gpu_that_is_not_there_is_an_error_and_no_fallback() {
    let message = error(5, "train --gpus 99 --steps 1");
    assert!(
        message.contains("99") || message.contains("driver"),
        "{message}"
    );
    assert!(
        message.contains("--cpu") || message.contains("GPU"),
        "{message}"
    );
}

#[test]
fn a_precision_that_a_device_has_not_is_refused_before_anything_is_made() {
    let folder = folder();
    let ran = run(folder.path(), &tiny("run", &["--precision", "bf16"]));
    assert!(!ran.stderr.contains("mean image"), "{}", ran.stderr);
    assert_says(&ran.wrong(2), &["--precision bf16", "f32 only"]);
    assert!(!folder.path().join("run").exists());
}

#[test]
fn a_run_is_not_overwritten() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "1"]);
    let before = std::fs::read(folder.path().join("run/checkpoint.safetensors")).unwrap();
    let message = run(folder.path(), &tiny("run", &["--steps", "2"])).wrong(2);
    assert_says(&message, &["run", "--resume"]);
    let after = std::fs::read(folder.path().join("run/checkpoint.safetensors")).unwrap();
    assert!(before == after);
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert_says(
        &run(folder.path(), &tiny("file", &[])).wrong(2),
        &["--out file"],
    );
    let message = run(
        folder.path(),
        &["train", "--resume", "--out", "run", "--batch", "8"],
    );
    assert_says(&message.wrong(2), &["--resume", "own configuration"]);
}

#[test]
fn a_damaged_checkpoint_is_not_resumed_from() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "1"]);
    let file = folder.path().join("run/checkpoint.safetensors");
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&file, &bad).unwrap();
    let message = run(folder.path(), &["train", "--resume", "--out", "run"]).wrong(4);
    assert_says(&message, &["run/checkpoint.safetensors", "checksum"]);
    std::fs::write(&file, &good[..middle]).unwrap();
    let message = run(folder.path(), &["train", "--resume", "--out", "run"]).wrong(4);
    assert_says(&message, &["run/checkpoint.safetensors", "truncated"]);
}

#[test]
fn a_learning_rate_that_explodes_ends_the_run_and_keeps_the_last_good_checkpoint() {
    let folder = folder();
    let more = [
        "--steps",
        "50",
        "--set",
        "train.learning_rate=1000",
        "--set",
        "train.checkpoint_every=1",
    ];
    let message = run(folder.path(), &tiny("run", &more)).wrong(6);
    let new = "start a new run with --set train.learning_rate=100,";
    assert_says(&message, &["step", "1000", new, "train.on_nan=rollback"]);
    let kept = checkpoint(folder.path(), "run");
    assert!(kept.state.step >= 1 && kept.parameters.is_finite());
}
