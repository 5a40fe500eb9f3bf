//! `prepare` from the command line, and training on what it made.

use crate::support::*;
use std::path::Path;

fn put(path: &Path, n: usize) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let image = image::RgbImage::from_fn(90, 80, |x, y| {
        let at = |v: u32| (v as usize * (n + 1) * 3 % 200) as u8;
        image::Rgb([at(x) + 40, at(y) + 20, (n * 7 % 200) as u8])
    });
    image.save(path).unwrap();
}

fn images(folder: &Path) {
    for n in 0..40 {
        let class = ["cat", "dog"][n % 2];
        put(&folder.join(format!("images/train/{class}/{n}.png")), n);
        if n < 8 {
            put(&folder.join(format!("images/val/{class}/{n}.png")), 100 + n);
        }
    }
}

const PREPARE: &[&str] = &["prepare", "images", "set", "--side", "72"];

#[test]
fn a_set_is_prepared_checked_trained_on_and_evaluated() {
    let folder = folder();
    images(folder.path());
    let made = run(folder.path(), PREPARE).well().stdout;
    let expected = "set: 40 training and 8 validation images of 2 classes, 0 skipped, 1 MB";
    assert!(made.contains(expected), "{made}");
    let checked = run(folder.path(), &["prepare", "--check", "set"]).well();
    assert!(
        checked.stdout.contains("all checksums right"),
        "{}",
        checked.stdout
    );
    let sheet = image::open(folder.path().join("set/check.png")).unwrap();
    assert!(sheet.width() > 800 && sheet.height() > 300);
    let more = [
        "--data",
        "set",
        "--config",
        "quickstart",
        "--steps",
        "3",
        "--batch",
        "8",
    ];
    let small = ["--set", "network.width=0.05"];
    let trained = |set: &str, out: &str| {
        let arguments = [&["train", "--cpu", "--out", out][..], &more, &small].concat();
        let arguments: Vec<&str> = arguments
            .into_iter()
            .map(|a| if a == "set" { set } else { a })
            .collect();
        run(folder.path(), &arguments).well();
    };
    trained("set", "from-shards");
    trained("images", "from-folder");
    assert_same_checkpoint(folder.path(), "from-shards", "from-folder");
    let flags = [
        "evaluate",
        "--cpu",
        "--weights",
        "from-shards",
        "--json",
        "--data",
    ];
    let evaluated = |set| {
        run(folder.path(), &[&flags[..], &[set]].concat())
            .well()
            .stdout
    };
    assert_eq!(evaluated("set"), evaluated("images"));
}

#[test]
fn mistakes_have_their_exit_codes_and_remedies() {
    let folder = folder();
    images(folder.path());
    run(folder.path(), PREPARE).well();
    let wrong = |arguments: &[&str], code, expected: &str| {
        let message = run(folder.path(), arguments).wrong(code);
        assert!(message.contains(expected), "{message}");
    };
    wrong(&["prepare", "images"], 2, "DST");
    wrong(
        &["prepare", "--check", "images"],
        3,
        "no finished preparation",
    );
    wrong(&["prepare", "nowhere", "other"], 3, "nowhere");
    wrong(&["prepare", "set", "other"], 2, "already made by `prepare`");
    wrong(&["prepare", "images", "set"], 2, "side 72, now 256");
    wrong(
        &["prepare", "images", "other", "--format", "ilsvrc"],
        3,
        "ILSVRC2012_img_train.tar",
    );
    wrong(&["prepare", "images", "other", "--side", "8"], 2, "16");
    wrong(
        &["prepare", "images", "other", "--quality", "80"],
        2,
        "--store jpeg",
    );
    wrong(
        &[
            "train", "--cpu", "--data", "set", "--out", "run", "--steps", "1",
        ],
        3,
        "--set data.side=72",
    );
    let shard = folder.path().join("set/train-00000.shard");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[6000] ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    let damaged = "set/train-00000.shard: checksum error at byte 4096";
    wrong(&["prepare", "--check", "set"], 3, damaged);
    wrong(
        &[
            "train",
            "--cpu",
            "--data",
            "set",
            "--config",
            "quickstart",
            "--out",
            "run",
            "--steps",
            "9",
        ],
        3,
        damaged,
    );
}

#[test]
fn the_loader_s_bench_names_the_stage_that_bounds_it() {
    let folder = folder();
    images(folder.path());
    run(folder.path(), PREPARE).well();
    let flags = [
        "bench",
        "--loader",
        "--cpu",
        "--config",
        "quickstart",
        "--batch",
        "8",
        "--steps",
        "4",
    ];
    for set in ["set", "images"] {
        let shown = run(folder.path(), &[&flags[..], &["--data", set]].concat())
            .well()
            .stdout;
        assert!(shown.contains("bound by: "), "{shown}");
        let json = run(
            folder.path(),
            &[&flags[..], &["--data", set, "--json"]].concat(),
        )
        .well();
        let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
        let stages: Vec<&str> = json["stages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["stage"].as_str().unwrap())
            .collect();
        assert_eq!(stages, ["disk", "decode", "crop", "upload", "augment"]);
        assert!(stages.contains(&json["bound"].as_str().unwrap()));
        assert!(json["step_images_per_second"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn too_many_bad_images_end_a_preparation_with_the_list_of_all() {
    let folder = folder();
    images(folder.path());
    for n in 0..11 {
        let path = format!("images/train/cat/bad{n:02}.png");
        std::fs::write(folder.path().join(path), "<html>").unwrap();
    }
    let message = run(folder.path(), PREPARE).wrong(3);
    for words in [
        "the last is images/train/cat/bad",
        "set/skipped.txt names all",
    ] {
        assert!(message.contains(words), "{message}");
    }
    let list = std::fs::read_to_string(folder.path().join("set/skipped.txt")).unwrap();
    assert_eq!(list.lines().count(), 11, "{list}");
    assert!(list.starts_with("train/cat/bad00.png\t"), "{list}");
}
