//! What a training run leaves behind, and what it says.

use crate::support::*;
use alexnet_mp::checkpoint;
use alexnet_mp::config::Config;

#[test]
fn a_run_leaves_its_configuration_checkpoints_metrics_events_and_pictures() {
    let folder = folder();
    let ran = train(folder.path(), "run", &["--steps", "20"]);
    let names = files(&folder.path().join("run"));
    for expected in [
        "best.safetensors",
        "checkpoint.safetensors",
        "config.toml",
        "conv1.png",
        "curves.png",
        "metrics.jsonl",
        "stats.safetensors",
    ] {
        assert!(
            names.iter().any(|n| n == expected),
            "{expected} is not in {names:?}"
        );
    }
    let begins = |prefix: &str| names.iter().filter(|n| n.starts_with(prefix)).count();
    assert_eq!(begins("events.out.tfevents"), 1, "{names:?}");
    // Those of steps 8 and 16, the newest being linked too.
    assert_eq!(begins("checkpoint-"), 3, "{names:?}");
    assert!(!names.iter().any(|n| n.ends_with(".tmp")), "{names:?}");
    for picture in ["conv1.png", "curves.png"] {
        let bytes = std::fs::read(folder.path().join("run").join(picture)).unwrap();
        assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{picture}");
    }
    let written = std::fs::read_to_string(folder.path().join("run/config.toml")).unwrap();
    let config = Config::from_toml(&written).unwrap();
    assert_eq!((config.train.steps, config.train.batch), (20, 16));
    assert!(ran.stdout.contains("In run:"), "{}", ran.stdout);
}

#[test]
fn every_line_of_the_metrics_has_the_keys_that_scripts_read() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "20"]);
    let lines = metrics(folder.path(), "run");
    let evaluations: Vec<_> = lines
        .iter()
        .filter(|l| l.get("val_loss").is_some())
        .collect();
    let number = |line: &serde_json::Value, key: &str| -> f64 {
        line[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key} in {line}"))
    };
    for line in &lines {
        for key in [
            "step",
            "epoch",
            "loss",
            "learning_rate",
            "images_per_second",
            "data_wait",
        ] {
            number(line, key);
        }
        assert!(number(line, "images_per_second") > 0.0, "{line}");
        assert!((0.0..=1.0).contains(&number(line, "data_wait")), "{line}");
        assert_eq!(number(line, "epoch"), number(line, "step") / 8.0, "{line}");
    }
    let steps: Vec<f64> = evaluations.iter().map(|l| number(l, "step")).collect();
    assert_eq!(steps, [8.0, 16.0, 20.0]);
    for line in evaluations {
        for key in ["val_top1_error", "val_top5_error"] {
            assert!((0.0..=1.0).contains(&number(line, key)), "{line}");
        }
        number(line, "val_loss");
    }
    let logged: Vec<f64> = lines
        .iter()
        .filter(|l| l.get("val_loss").is_none())
        .map(|l| number(l, "step"))
        .collect();
    assert_eq!(logged, [3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 20.0]);
}

#[test]
fn a_checkpoint_holds_whole_tensors_and_names_no_device() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "2"]);
    let path = folder.path().join("run/checkpoint.safetensors");
    let contents = checkpoint::read(&path).unwrap();
    let config = checkpoint_config(&contents.metadata["state"]);
    for param in config.plan().unwrap().params {
        for prefix in ["", "momentum."] {
            let name = format!("{prefix}{}", param.weight_name());
            contents
                .tensors
                .expect(&name, &param.weight_shape())
                .unwrap();
            let name = format!("{prefix}{}", param.bias_name());
            contents
                .tensors
                .expect(&name, &[param.all_outputs()])
                .unwrap();
        }
    }
    let state = contents.metadata["state"].to_lowercase();
    for word in ["cpu", "gpu", "cuda", "thread", "device"] {
        assert!(!state.contains(word), "{word}: {state}");
    }
}

/// The weights of the lowest validation error so far, of the first evaluation that had it.
#[test]
fn the_best_weights_are_those_of_the_lowest_validation_error() {
    let folder = folder();
    let more = [
        "--steps",
        "24",
        "--set",
        "train.evaluate_every=3",
        "--set",
        "train.checkpoint_every=3",
        "--set",
        "train.keep=9",
    ];
    train(folder.path(), "run", &more);
    let error = |l: &serde_json::Value| Some((l["val_top1_error"].as_f64()?, l["step"].as_u64()?));
    let lines = metrics(folder.path(), "run");
    let lowest = lines.iter().filter_map(error).min_by(|a, b| {
        let by_error = a.0.total_cmp(&b.0);
        by_error.then(a.1.cmp(&b.1))
    });
    let (_, step) = lowest.unwrap();
    let run = folder.path().join("run");
    let best = checkpoint::read(&run.join("best.safetensors")).unwrap();
    let then = run.join(format!("checkpoint-{step:09}.safetensors"));
    let mut then = checkpoint::Checkpoint::load(&then).unwrap().parameters;
    then.0.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(best.tensors == then, "step {step}");
}

fn checkpoint_config(state: &str) -> Config {
    let state: serde_json::Value = serde_json::from_str(state).unwrap();
    Config::from_toml(state["config"].as_str().unwrap()).unwrap()
}

#[test]
fn where_stderr_is_no_terminal_lines_are_plain() {
    let folder = folder();
    let ran = train(folder.path(), "run", &["--steps", "9"]);
    for text in [&ran.stdout, &ran.stderr] {
        let plain = |c: char| c == '\n' || !c.is_control();
        assert!(text.chars().all(plain), "{text:?}");
    }
    assert!(
        ran.stderr.lines().any(|line| line.contains("loss")),
        "{}",
        ran.stderr
    );
    let quiet = train(folder.path(), "quiet", &["--steps", "3", "--quiet"]);
    assert!(!quiet.stderr.contains("loss"), "{}", quiet.stderr);
}

#[test]
fn the_devices_are_named_with_the_reason() {
    let folder = folder();
    let ran = train(folder.path(), "run", &["--steps", "1"]);
    assert!(ran.stderr.contains("2 columns on CPU"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--cpu"), "{}", ran.stderr);
}
