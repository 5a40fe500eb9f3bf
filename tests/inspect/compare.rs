//! compare: several configurations trained with equal seeds.

use crate::support::run as run_in;

#[test]
fn two_configurations_are_trained_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("tanh.toml"),
        "base = \"quickstart\"\n[network]\nactivation = \"tanh\"\n",
    )
    .unwrap();
    let mut arguments = vec![
        "compare",
        "quickstart",
        "tanh.toml",
        "--seeds",
        "2",
        "--steps",
        "2",
    ];
    for set in [
        "network.width=0.05",
        "network.image=48",
        "data.side=56",
        "train.batch=8",
        "data.builtin_train=40",
        "data.builtin_val=20",
        "train.log_every=1",
    ] {
        arguments.extend(["--set", set]);
    }
    arguments.extend(["--out", "out", "--cpu"]);
    let output = run_in(folder.path(), &arguments);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].starts_with("configuration"), "{stdout}");
    assert!(
        lines[1].starts_with("quickstart") && lines[1].contains("+0.00"),
        "{stdout}"
    );
    assert!(
        lines[2].starts_with("tanh") && lines[2].contains(" ± "),
        "{stdout}"
    );
    for name in [
        "comparison.png",
        "curves.png",
        "tanh-seed1/checkpoint.safetensors",
    ] {
        assert!(folder.path().join("out").join(name).is_file(), "{name}");
    }
    let results = std::fs::read(folder.path().join("out/results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_slice(&results).unwrap();
    assert_eq!(results[1]["configuration"], "tanh");
    let run = &results[1]["runs"][1];
    assert!(run["top1_error"].as_f64().unwrap() > 0.2, "{run}");
    assert!(run["steps_to_25_percent_training_error"].is_null(), "{run}");
    check_signs_of_health(&folder.path().join("out/quickstart-seed0/metrics.jsonl"));
    let again = run_in(folder.path(), &arguments);
    assert_eq!(again.status.code(), Some(2));
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("quickstart-seed0 is there already"), "{said}");
}

/// Evaluations tell dead ReLUs per column and how large updates are, layer by layer.
fn check_signs_of_health(metrics: &std::path::Path) {
    let text = std::fs::read_to_string(metrics).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for layer in [
        "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8",
    ] {
        let ratio = last[format!("update_to_weight/{layer}")].as_f64().unwrap();
        assert!(ratio > 0.0 && ratio < 0.5, "{layer}: {last}");
        for column in ["column0", "column1"] {
            let dead = last[format!("dead_relus/{layer}/{column}")].as_f64();
            assert_eq!(dead.is_none(), layer == "fc8", "{layer}: {last}");
            assert!(dead.is_none_or(|d| (0.0..=1.0).contains(&d)), "{last}");
        }
    }
}

#[test]
fn a_configuration_builds_on_a_file_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "one.toml",
        "base = \"quickstart\"\n[train]\nbatch = 7\nepochs = 3\n",
    );
    write("two.toml", "base = \"one.toml\"\n[train]\nepochs = 4\n");
    write("circle.toml", "base = \"circle.toml\"\n");
    let load = |name: &str| {
        let path = folder.path().join(name);
        alexnet_mp::config::Config::load(path.to_str().unwrap(), &[])
    };
    let config = load("two.toml").unwrap();
    assert_eq!((config.train.batch, config.train.epochs), (7, 4));
    assert_eq!(config.network.width, 0.25);
    let error = load("circle.toml").unwrap_err();
    assert!(error.to_string().contains("name one another"), "{error}");
}

#[test]
fn every_experiment_is_a_configuration() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/experiments");
    let baseline = format!("{folder}/baseline.toml");
    let base = alexnet_mp::config::Config::load(&baseline, &[]).unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("baseline.toml") {
            continue;
        }
        let config = alexnet_mp::config::Config::load(path.to_str().unwrap(), &[]).unwrap();
        assert_ne!(config, base, "{}", path.display());
        // As in the paper (Figure 1), a rate may be a network's own.
        let mut train = config.train.clone();
        train.learning_rate = base.train.learning_rate;
        assert_eq!(train, base.train, "{}", path.display());
        count += 1;
    }
    assert!(count >= 7);
}

#[test]
fn a_runs_own_configuration_can_be_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    for (preset, _) in alexnet_mp::config::PRESETS {
        let config = alexnet_mp::config::Config::load(preset, &[]).unwrap();
        std::fs::write(&path, config.to_toml()).unwrap();
        let again = alexnet_mp::config::Config::load(path.to_str().unwrap(), &[]).unwrap();
        assert_eq!(again, config, "{preset}");
    }
}
