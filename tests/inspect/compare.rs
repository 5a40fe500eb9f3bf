//! compare: several configurations trained with equal seeds.

use crate::support::run;

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
    let output = run(folder.path(), &arguments);
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
}

#[test]
fn every_experiment_is_a_configuration() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/experiments");
    let base = alexnet_mp::config::Config::load("quickstart", &[]).unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let config = alexnet_mp::config::Config::load(path.to_str().unwrap(), &[]).unwrap();
        assert_ne!(config, base, "{}", path.display());
        assert_eq!(config.train, base.train, "{}", path.display());
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
