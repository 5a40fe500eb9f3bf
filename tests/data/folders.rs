//! Image folders as people have them: what is in them is read or skipped, never more.

use crate::support::*;
use alexnet_mp::batch::pageable;
use alexnet_mp::data::{self, EvaluationOptions, Loader, OpenOptions, ReadOutcome, Statistics};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

#[test]
fn classes_and_images_come_in_byte_order_and_labels_match_by_name() {
    let root = tempfile::tempdir().unwrap();
    for file in [
        "train/b/2.png",
        "train/b/10.PNG",
        "train/B/x.png",
        "train/é/1.png",
        "val/é/1.png",
    ] {
        put(root.path().join(file), &png(picture(1, 40, 32)));
    }
    put(root.path().join("train/b/notes.txt"), b"ignored");
    put(root.path().join("train/b/.hidden.png"), b"ignored");
    put(root.path().join("val/b/7.png"), &png(picture(2, 40, 32)));
    let set = open(root.path()).unwrap();
    assert_eq!(set.train.classes(), ["B", "b", "é"]);
    let names: Vec<_> = (0..set.train.len()).map(|i| set.train.name(i)).collect();
    assert_eq!(names, ["B/x.png", "b/10.PNG", "b/2.png", "é/1.png"]);
    let labels: Vec<_> = (0..4).map(|i| set.train.label(i)).collect();
    assert_eq!(labels, [0, 1, 1, 2]);
    let val = set.val.unwrap();
    assert_eq!(
        (val.name(0), val.label(0), val.label(1)),
        ("b/7.png".into(), 1, 2)
    );
    assert_eq!(val.classes(), set.train.classes());
}

#[test]
fn sets_that_cannot_be_used_are_data_errors_with_path_and_numbers() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("empty/train/a")).unwrap();
    put(at("other/train/a/1.png"), &png(picture(1, 8, 8)));
    put(at("other/val/zebra/1.png"), &png(picture(1, 8, 8)));
    put(at("no-val/train/a/1.png"), &png(picture(1, 8, 8)));
    fs::create_dir_all(at("no-val/val/a")).unwrap();
    put(at("file"), b"");
    let cases = [
        ("missing", "No such file"),
        ("file", "it is a file"),
        ("empty", "no images: 0 files"),
        (
            "other",
            "1 of 1 classes are not among the 1 of train, the first is zebra",
        ),
        ("no-val", "no images"),
    ];
    for (name, expected) in cases {
        let error = open(&at(name)).err().unwrap();
        assert_eq!(error.exit_code(), 3);
        let message = error.to_string();
        assert!(
            message.contains(expected) && message.contains(name),
            "{message}"
        );
    }
}

#[test]
fn a_set_of_bad_images_alone_is_an_error_at_once() {
    let root = tempfile::tempdir().unwrap();
    for n in 0..300 {
        put(
            root.path().join(format!("train/a/{n}.jpg")),
            b"<html>404</html>",
        );
    }
    let started = Instant::now();
    let error = open(root.path())
        .unwrap()
        .statistics(None, 2)
        .err()
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("of 300"), "{error}");
}

#[test]
fn bad_files_are_skipped_with_a_reason_and_never_block() {
    let root = tempfile::tempdir().unwrap();
    good_set(root.path(), 20);
    let class = root.path().join("train/a");
    let whole = jpeg(&picture(1, 300, 200));
    let mut thumbnail = whole[..2].to_vec();
    // A header segment that holds a whole small image with its own end marker.
    let inner = jpeg(&picture(1, 16, 16));
    thumbnail.extend([0xff, 0xe1]);
    thumbnail.extend(((inner.len() + 2) as u16).to_be_bytes());
    thumbnail.extend(&inner);
    thumbnail.extend(&whole[2..whole.len() * 2 / 3]);
    let mut flipped = png(picture(1, 64, 64));
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    put(class.join("bad-empty.jpg"), b"");
    put(class.join("bad-flipped.png"), &flipped);
    put(class.join("bad-html.jpg"), b"<html>404</html>");
    put(class.join("bad-late-cut.jpg"), &whole[..whole.len() - 3]);
    put(class.join("bad-cut.jpg"), &whole[..whole.len() / 2]);
    put(
        class.join("bad-cut-png.png"),
        &png(picture(1, 64, 64))[..300],
    );
    put(class.join("bad-thumbnail.jpg"), &thumbnail);
    fs::create_dir(class.join("bad-folder.jpg")).unwrap();
    std::os::unix::fs::symlink("nowhere", class.join("bad-dangling.jpg")).unwrap();
    std::os::unix::fs::symlink("bad-loop.jpg", class.join("bad-loop.jpg")).unwrap();
    let fifo = std::process::Command::new("mkfifo")
        .arg(class.join("bad-pipe.jpg"))
        .status();
    assert!(fifo.unwrap().success());
    let unreadable = class.join("bad-unreadable.jpg");
    put(&unreadable, &whole);
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o000)).unwrap();
    let mut expected = 12;
    if fs::File::open(&unreadable).is_ok() {
        println!("skipped: a file of mode 000, which root reads; the links stand for it");
        fs::remove_file(&unreadable).unwrap();
        expected -= 1;
    }
    let set = open(root.path()).unwrap();
    let mut bad = 0;
    for i in 0..set.train.len() {
        let started = Instant::now();
        let outcome = read(&*set.train, i).0;
        assert!(started.elapsed() < Duration::from_secs(1));
        let name = set.train.name(i);
        assert_eq!(
            outcome != ReadOutcome::Image,
            name.contains("bad"),
            "{name}: {outcome:?}"
        );
        bad += usize::from(outcome != ReadOutcome::Image);
    }
    assert_eq!(bad, expected);
}

#[test]
fn skipped_images_are_counted_once_and_the_rest_is_used() {
    let root = tempfile::tempdir().unwrap();
    good_set(root.path(), 20);
    put(root.path().join("train/a/x.jpg"), b"");
    put(root.path().join("val/b/x.jpg"), b"");
    let mut set = open(root.path()).unwrap();
    let cache = root.path().join("stats.safetensors");
    let first = set.statistics(Some(&cache), 2).unwrap();
    assert_eq!((first.images, set.train.skipped().count()), (40, 1));
    let again = open(root.path())
        .unwrap()
        .statistics(Some(&cache), 2)
        .unwrap();
    assert_eq!(first, again);
    let options = EvaluationOptions {
        batch: 16,
        workers: 2,
        queue: 2,
        crop: 28,
        views: 1,
        centre_mean: false,
    };
    let val = set.val.unwrap();
    for _ in 0..2 {
        let mut loader = Loader::evaluation(val.clone(), &options, &pageable()).unwrap();
        let mut images = 0;
        while let Some(batch) = loader.next_batch().unwrap() {
            images += batch.len();
            loader.recycle(batch);
        }
        assert_eq!((images, val.skipped().count()), (40, 1));
    }
    assert_eq!(val.skipped().list()[0].1, "the file is empty");
}

#[test]
fn strange_names_are_read_and_escaped() {
    let root = tempfile::tempdir().unwrap();
    let class = root
        .path()
        .join("train")
        .join(std::ffi::OsStr::from_bytes(b"cl\xffss"));
    put(
        class.join("new\nline\x1b[31m.png"),
        &png(picture(1, 40, 32)),
    );
    put(
        class.join(std::ffi::OsStr::from_bytes(b"\xfe.png")),
        &png(picture(2, 40, 32)),
    );
    let set = open(root.path()).unwrap();
    let names = [set.train.name(0), set.train.name(1)];
    assert_eq!(
        names,
        [r"cl\xffss/new\nline\u{1b}[31m.png", r"cl\xffss/\xfe.png"]
    );
    assert!((0..2).all(|i| read(&*set.train, i).0 == ReadOutcome::Image));
}

#[test]
fn decoded_images_are_kept_where_they_fit_and_read_anew_where_not() {
    let root = tempfile::tempdir().unwrap();
    good_set(root.path(), 5);
    for (cache, kept) in [(64, true), (0, false)] {
        let set = data::open(
            root.path(),
            &OpenOptions {
                side: SIDE,
                cache_mib: cache,
                reads: Default::default(),
            },
        )
        .unwrap();
        let (_, pixels) = read(&*set.train, 3);
        let held = set.train.in_memory(3).unwrap();
        assert_eq!(held, kept.then_some(&pixels[..]));
    }
}

#[test]
fn statistics_agree_with_a_plain_computation_and_survive_their_file() {
    let root = tempfile::tempdir().unwrap();
    good_set(root.path(), 10);
    let set = open(root.path()).unwrap();
    let found = Statistics::compute(&*set.train, 3).unwrap();
    let images: Vec<Vec<u8>> = (0..20).map(|i| read(&*set.train, i).1).collect();
    for (at, mean) in found.mean.iter().enumerate() {
        let sum: f64 = images.iter().map(|i| f64::from(i[at])).sum();
        assert!((f64::from(*mean) - sum / 20.0).abs() < 1e-4);
    }
    let all: Vec<&[u8]> = images.iter().flat_map(|i| i.chunks_exact(3)).collect();
    let n = all.len() as f64;
    let mean = mean_colour(&images.concat());
    // The definition: C·v = λ·v for every pair.
    for (value, vector) in found.eigenvalues.iter().zip(found.eigenvectors) {
        for a in 0..3 {
            let product: f64 = (0..3)
                .map(|b| {
                    let deviation = |p: &[u8], c: usize| f64::from(p[c]) - mean[c];
                    let sum: f64 = all.iter().map(|p| deviation(p, a) * deviation(p, b)).sum();
                    sum / n * f64::from(vector[b])
                })
                .sum();
            let expected = f64::from(value * vector[a]);
            let scale = f64::from(found.eigenvalues[0]);
            assert!(
                (product - expected).abs() < 1e-6 * scale,
                "{product} {expected}"
            );
        }
    }
    let path = root.path().join("s.safetensors");
    found.write(&path, None).unwrap();
    assert_eq!(Statistics::read(&path).unwrap().0, found);
    let bytes = fs::read(&path).unwrap();
    for broken in [&bytes[..bytes.len() / 2], &bytes[..4], b"", &bytes[8..]] {
        fs::write(&path, broken).unwrap();
        assert_eq!(Statistics::read(&path).unwrap_err().exit_code(), 3);
    }
}

#[test]
fn doubtful_sets_are_warned_of_with_numbers() {
    let root = tempfile::tempdir().unwrap();
    good_set(root.path(), 3);
    let log = warnings(|| drop(open(root.path()).unwrap()));
    assert!(log.is_empty(), "{log}");
    let same = png(picture(99, 40, 32));
    for file in [
        "train/a/same.png",
        "train/a/same2.png",
        "train/b/same.png",
        "val/a/same.png",
        "val/b/same.png",
    ] {
        put(root.path().join(file), &same);
    }
    fs::create_dir_all(root.path().join("train/nothing")).unwrap();
    put(root.path().join("train/a/a.txt"), b"");
    let log = warnings(|| drop(open(root.path()).unwrap()));
    for expected in [
        "1 of 3 class folders hold no images, the first is nothing",
        "2 files of train repeat another one, as a/same.png",
        "2 files of val are in train too, as val/a/same.png, which is train/a/same.png",
        "1 entries ignored",
    ] {
        assert!(log.contains(expected), "{expected}: {log}");
    }
    let one = tempfile::tempdir().unwrap();
    put(one.path().join("train/a/1.png"), &same);
    let log = warnings(|| drop(open(one.path()).unwrap()));
    assert!(
        log.contains("1 class only") && log.contains("no validation images"),
        "{log}"
    );
}
