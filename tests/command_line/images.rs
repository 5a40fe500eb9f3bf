//! Folders of images as a training run meets them: bad ones are said.

use crate::support::*;
use std::path::Path;

fn put(path: &Path, seed: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let noise = |x: u32, y: u32| (x * 31 + y * 57 + seed * 101).wrapping_mul(2_654_435_761) >> 24;
    let image = image::RgbImage::from_fn(72, 72, |x, y| {
        image::Rgb([0, 1, 2].map(|c| noise(x + c, y) as u8))
    });
    image.save(path).unwrap();
}

/// `count` images in each of two classes of `half`.
fn images(folder: &Path, half: &str, count: u32) {
    for class in ["cat", "dog"] {
        for n in 0..count {
            let name = format!("images/{half}/{class}/{n:02}.png");
            put(&folder.join(name), n);
        }
    }
}

/// Arguments of a tiny run on `images`.
const RUN: &[&str] = &[
    "train",
    "--cpu",
    "--data",
    "images",
    "--out",
    "run",
    "--batch",
    "8",
    "--set",
    "network.width=0.02",
    "--set",
    "data.workers=1",
];

#[test]
fn skipped_images_are_said_once_with_their_number_and_the_file_that_lists_them() {
    for with_val in [true, false] {
        let folder = folder();
        images(folder.path(), "train", 20);
        if with_val {
            images(folder.path(), "val", 4);
        }
        let bad = [("cat", "05.png", &b"<html>"[..]), ("dog", "13.png", b"")];
        for (class, name, bytes) in bad {
            let path = folder.path().join("images/train").join(class).join(name);
            std::fs::write(path, bytes).unwrap();
        }
        // Ten epochs, with an evaluation after each where there is something to evaluate on.
        let ran = run(folder.path(), &[RUN, &["--steps", "50"]].concat()).well();
        for command in [
            "alexnet-mp evaluate --weights run --views 10",
            "alexnet-mp predict --weights run FILE",
        ] {
            let shown = ran.stdout.contains(command);
            assert_eq!(shown, with_val || !command.contains("evaluate"));
        }
        let expected = "2 of 40 training images could not be read and were replaced; run/skipped.txt names them and says why";
        let lines = |part: &str| ran.stderr.lines().filter(|l| l.contains(part)).count();
        assert_eq!(lines(expected), 1, "{}", ran.stderr);
        for (class, name, _) in bad {
            assert_eq!(
                lines(&format!("skipping images/train/{class}/{name}: ")),
                1,
                "{}",
                ran.stderr
            );
        }
        let list = std::fs::read_to_string(folder.path().join("run/skipped.txt")).unwrap();
        assert_eq!(
            list,
            "train/cat/05.png\tneither JPEG nor PNG: it begins with \"<html>\"\n\
             train/dog/13.png\tthe file is empty\n"
        );
    }
}

#[test]
fn a_run_without_bad_images_says_nothing_of_them() {
    let folder = folder();
    images(folder.path(), "train", 8);
    let ran = run(folder.path(), &[RUN, &["--steps", "4"]].concat()).well();
    assert!(!ran.stderr.contains("could not be read"), "{}", ran.stderr);
    assert!(!folder.path().join("run/skipped.txt").exists());
}

#[test]
fn too_many_bad_images_end_a_run_with_their_paths_and_the_list_of_all() {
    let folder = folder();
    images(folder.path(), "train", 20);
    let bad = |n: u32| format!("{}/{n:02}.png", ["cat", "dog"][n as usize % 2]);
    for n in 0..11 {
        std::fs::write(folder.path().join("images/train").join(bad(n)), "<html>").unwrap();
    }
    let ran = run(folder.path(), RUN);
    for n in 0..11 {
        let line = format!("skipping images/train/{}: ", bad(n));
        assert_eq!(ran.stderr.matches(&line).count(), 1, "{}", ran.stderr);
    }
    let message = ran.wrong(3);
    for words in [
        "11 of 40 images are bad, 10 are borne; the last is images/train/",
        "run/skipped.txt names all",
    ] {
        assert!(message.contains(words), "{message}");
    }
    let list = std::fs::read_to_string(folder.path().join("run/skipped.txt")).unwrap();
    assert_eq!(list.lines().count(), 11, "{list}");
    let first = "train/cat/00.png\tneither JPEG nor PNG";
    assert!(list.starts_with(first), "{list}");
}
