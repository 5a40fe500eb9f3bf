//! What commands print and measure: results that arrive, numbers that mean what they say.

use crate::support::*;
use alexnet_mp::config::Config;
use std::path::Path;
use std::process::Stdio;

/// Runs the program with its results going to a device that is always full.
#[cfg(target_os = "linux")]
fn run_on_full_disk(folder: &Path, arguments: &[&str]) -> Ran {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = program(folder).args(arguments).stdout(full).output();
    output.unwrap().into()
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_an_error() {
    let folder = folder();
    for arguments in [&["plan"][..], &["plan", "--help"], &["--version"]] {
        let message = run_on_full_disk(folder.path(), arguments).wrong(3);
        assert!(message.contains("cannot be written to stdout"), "{message}");
    }
}

#[test]
fn a_reader_that_has_gone_away_is_no_error() {
    let folder = folder();
    let mut child = program(folder.path())
        .arg("plan")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.well().stderr, "");
}

const SMALL: &[&str] = &["--config", "quickstart", "--set", "network.width=0.05"];

#[test]
fn inference_on_two_devices_tells_the_bytes_of_its_exchanges() {
    let folder = folder();
    let fixed = [
        "bench",
        "--inference",
        "--batch",
        "8",
        "--steps",
        "3",
        "--json",
    ];
    let bytes = |more: &[&str]| {
        let ran = run(folder.path(), &[&fixed[..], SMALL, more].concat()).well();
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        json["exchanged_bytes_per_step"].as_u64().unwrap()
    };
    let config = Config::load("quickstart", &["network.width=0.05".into()]).unwrap();
    let planned = config.plan().unwrap().exchanged_bytes(8) as u64;
    assert!(planned > 0);
    assert_eq!(bytes(&["--threads", "2"]), planned);
    assert_eq!(bytes(&["--threads", "2", "--one-device"]), 0);
}

#[test]
fn the_median_of_a_bench_is_that_of_several_laps() {
    let folder = folder();
    let fixed = ["bench", "--cpu", "--batch", "2", "--steps", "3"];
    let shown = run(folder.path(), &[&fixed[..], SMALL].concat())
        .well()
        .stdout;
    let start = shown.find("median of ").unwrap() + "median of ".len();
    let (laps, rest) = shown[start..].split_once(' ').unwrap();
    assert!(laps.parse::<usize>().unwrap() >= 3, "{shown}");
    assert!(rest.starts_with("laps of "), "{shown}");
    assert!(!shown.contains("step(s)"), "{shown}");
}

#[test]
fn weights_that_lack_what_evaluation_needs_are_told_with_the_flag_that_gives_it() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "8"]);
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("alone")).unwrap();
    std::fs::copy(at("run/best.safetensors"), at("alone/w.safetensors")).unwrap();
    let flags = ["evaluate", "--cpu", "--weights", "alone/w.safetensors"];
    let message = run(folder.path(), &flags).wrong(4);
    let assumed = "the file holds no configuration, `paper` was assumed: give --config";
    assert!(message.contains(assumed), "{message}");
    let config = ["--config", "run/config.toml"];
    let ran = run(folder.path(), &[&flags[..], &config].concat()).well();
    let mean = "there is no alone/stats.safetensors: the mean image is that of the data's";
    assert!(ran.stderr.contains(mean), "{}", ran.stderr);
    let inputs = StepInputs::write(folder.path(), 1);
    let mut arguments = vec!["evaluate", "--cpu", "--weights", "w.safetensors"];
    let flags = inputs
        .flags
        .chunks(2)
        .filter(|p| p[0] == "--config" || p[0] == "--set");
    arguments.extend(flags.flatten().map(String::as_str));
    let message = run(folder.path(), &arguments).wrong(3);
    let expected = "a network of 6 classes, and the built-in set has 10: give --data";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn similar_names_the_devices_once_and_pictures_are_png_files() {
    let folder = folder();
    train(folder.path(), "run", &["--steps", "1"]);
    for n in 0..3u8 {
        let image = image::RgbImage::from_pixel(72, 72, image::Rgb([80 * n, 40, 90]));
        image.save(folder.path().join(format!("{n}.png"))).unwrap();
    }
    let similar = [
        "similar",
        "--cpu",
        "--weights",
        "run",
        "--index",
        ".",
        "0.png",
    ];
    let ran = run(folder.path(), &similar).well();
    assert_eq!(
        ran.stderr.matches(" columns on CPU").count(),
        1,
        "{}",
        ran.stderr
    );
    let predict = ["predict", "--cpu", "--weights", "run", "0.png"];
    for command in [&similar[..], &predict] {
        let message = run(folder.path(), &[command, &["--picture", "x.jpg"]].concat()).wrong(2);
        assert!(message.contains("--picture x.jpg"), "{message}");
        assert!(message.contains(".png"), "{message}");
        assert!(!folder.path().join("x.jpg").exists());
    }
}
