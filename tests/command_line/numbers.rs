//! Numbers that are not finite, and losses that explode: exit code 6, the first tensor named, the
//! last good checkpoint kept, or gone back to.

use crate::support::*;
use alexnet_mp::checkpoint::Checkpoint;
use alexnet_mp::config::Config;
use std::path::Path;

/// Trains in `run` with a NaN put somewhere, in logged steps 3, 6, … and checkpoints every second.
fn train_with_nan(folder: &Path, tensor: &str, step: u64, more: &[&str]) -> Ran {
    let fixed = [
        "--threads",
        "2",
        "--set",
        "train.checkpoint_every=2",
        "--set",
        "train.learning_rate=0.02",
    ];
    program(folder)
        .env("ALEXNET_MP_FAULT", format!("nan:{tensor}:step{step}"))
        .args(tiny("run", &[&fixed[..], more].concat()))
        .output()
        .unwrap()
        .into()
}

#[test]
fn the_first_tensor_that_is_not_finite_is_named() {
    for (tensor, named) in [
        ("conv3.weight.column1", "conv3.weight (column 1)"),
        ("fc8.bias", "fc8.bias (column 0)"),
        // A NaN that ReLU turns into zeros reaches no loss.
        ("conv1.weight", "conv1.weight (column 0)"),
        ("conv5.bias.column1", "conv5.bias (column 1)"),
    ] {
        let folder = folder();
        let more = ["--steps", "9"];
        let message = train_with_nan(folder.path(), tensor, 5, &more).wrong(6);
        for word in [named, "step", "learning rate 0.02", "step 4 is good"] {
            assert!(message.contains(word), "{tensor}, {word}: {message}");
        }
        let kept = checkpoint(folder.path(), "run");
        assert!(kept.state.step == 4 && kept.parameters.is_finite());
    }
}

#[test]
fn momentum_that_is_not_finite_is_found_where_it_is() {
    let folder = folder();
    // Step 6 is logged: the momentum is looked at before another update spreads it.
    let message = train_with_nan(folder.path(), "fc7.momentum", 6, &["--steps", "9"]).wrong(6);
    assert!(
        message.contains("the momentum of fc7.weight (column 0)"),
        "{message}"
    );
}

#[test]
fn a_run_goes_back_to_its_checkpoint_with_half_the_learning_rate() {
    let folder = folder();
    let more = ["--steps", "9", "--set", "train.on_nan=rollback"];
    let ran = train_with_nan(folder.path(), "conv3.weight", 5, &more).well();
    for word in ["conv3.weight", "back to step 4", "0.01", "rollback 1 of 3"] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
    let end = checkpoint(folder.path(), "run").state;
    assert_eq!((end.step, end.rollbacks), (9, 1));
    let halved = Config::from_toml(&end.config).unwrap().train.learning_rate;
    assert_eq!(halved, 0.01);
    let written = std::fs::read_to_string(folder.path().join("run/config.toml")).unwrap();
    assert_eq!(written, end.config);
    let lines = metrics(folder.path(), "run");
    let of_steps = lines.iter().filter(|l| l.get("val_loss").is_none());
    let steps: Vec<u64> = of_steps.map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [3, 6, 9]);
    // Interrupted after it went back, it still goes on to the same bits.
    let folder = self::folder();
    train_with_nan(
        folder.path(),
        "conv3.weight",
        5,
        &[&more[..], &["--steps", "7"]].concat()[2..],
    )
    .well();
    resume(folder.path(), "run", &["--steps", "9", "--threads", "2"]);
    assert_eq!(checkpoint(folder.path(), "run").state, end);
}

#[test]
fn a_run_goes_back_three_times_at_most() {
    let folder = folder();
    let more = [
        "--set",
        "train.learning_rate=1000",
        "--set",
        "train.on_nan=rollback",
        "--set",
        "train.checkpoint_every=1",
        // The loss is judged where it is logged, and must be before the damage is in two.
        "--set",
        "train.log_every=1",
        "--steps",
        "40",
    ];
    let ran = run(folder.path(), &tiny("run", &more));
    assert!(ran.stderr.contains("rollback 3 of 3"), "{}", ran.stderr);
    // The damage is in the checkpoint of step 1 already: then it goes to the one before.
    assert!(ran.stderr.contains("back to step 1 "), "{}", ran.stderr);
    assert!(ran.stderr.contains("back to step 0 "), "{}", ran.stderr);
    let message = ran.wrong(6);
    assert!(message.contains("learning rate 125"), "{message}");
    // --resume takes no learning rate, and would end the same way.
    let remedy = "start a new run with --set train.learning_rate=12.5";
    assert!(message.ends_with(remedy), "{message}");
    assert!(!message.contains("go on with"), "{message}");
    assert!(!message.contains("on_nan"), "{message}");
}

#[test]
fn a_loss_that_stays_at_chance_for_an_epoch_is_warned_of() {
    let folder = folder();
    let ran = train(
        folder.path(),
        "run",
        &["--steps", "11", "--set", "train.learning_rate=0"],
    );
    for word in [
        "ln(classes) = 2.303",
        "learning rate",
        "biases",
        "unshuffled",
    ] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
}

#[test]
fn dead_relus_are_warned_of_once_and_not_at_every_evaluation() {
    let folder = folder();
    let more = ["--steps", "24", "--set", "layers.conv5.bias=-1000"];
    let ran = train(folder.path(), "run", &more);
    let warnings = ran.stderr.matches("conv5 of column 0 (100 %)").count();
    assert_eq!(warnings, 1, "{}", ran.stderr);
    let lines = metrics(folder.path(), "run");
    let dead = lines
        .iter()
        .filter(|l| l["dead_relus/conv5/column0"] == 1.0);
    assert_eq!(dead.count(), 3);
}

#[test]
fn one_large_loss_between_logs_is_no_explosion() {
    let folder = folder();
    // Single images of a network that guesses, sure of itself, and learns nothing.
    let more = [
        "--steps",
        "20",
        "--set",
        "train.log_every=20",
        "--set",
        "train.batch=1",
        "--set",
        "train.learning_rate=0",
        "--set",
        "layers.fc8.sigma=0.15",
        "--set",
        "train.checkpoint_every=1",
        "--set",
        "train.keep=20",
    ];
    train(folder.path(), "run", &more);
    let bound = 10.0 * 10f64.ln();
    let checkpoints = std::fs::read_dir(folder.path().join("run")).unwrap();
    let largest = checkpoints
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("checkpoint-")
        })
        .map(|path| Checkpoint::load(&path).unwrap().state.pending)
        .filter(|pending| pending.images > 0)
        .map(|pending| pending.loss / pending.images as f64)
        .fold(0.0, f64::max);
    assert!(largest > bound, "no save saw a large mean: {largest}");
    let logged = metrics(folder.path(), "run")[0]["loss"].as_f64().unwrap();
    assert!(logged < bound, "{logged}");
}

#[test]
fn the_speed_of_a_network_that_diverged_is_no_measurement() {
    let folder = folder();
    let bench = |fault: &str| -> Ran {
        let mut program = program(folder.path());
        program.args(["bench", "--threads", "2", "--batch", "4", "--steps", "9"]);
        for size in ["network.width=0.05", "network.image=64", "data.side=64"] {
            program.args(["--set", size]);
        }
        let ran = program.env("ALEXNET_MP_FAULT", fault).output();
        ran.unwrap().into()
    };
    bench("nan:fc8.bias:step1000000").well();
    let message = bench("nan:fc8.bias:step4").wrong(6);
    for word in ["not finite", "train.learning_rate"] {
        assert!(message.contains(word), "{word}: {message}");
    }
}
