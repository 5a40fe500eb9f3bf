//! Image folders as people have them: every kind of file is decoded right or skipped, never more.

use crate::support::*;
use alexnet_mp::batch::pageable;
use alexnet_mp::data::{self, EvaluationOptions, Loader, OpenOptions, ReadOutcome, Statistics};
use image::{DynamicImage, ExtendedColorType, RgbImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
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
fn reasons_are_one_line_whatever_a_decoder_says() {
    // zune-jpeg ends this message with a line break.
    let whole = jpeg(&picture(1, 64, 48));
    let bytes = [&whole[..2], &[0xff, 0xe0, 0, 1], &whole[2..]].concat();
    let reason = data::decode::decode(&bytes).err().expect("refused");
    assert!(reason.contains("length"), "{reason}");
    assert!(!reason.contains(char::is_control), "{reason:?}");
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
fn sizes_are_bounded_before_anything_is_allocated() {
    let root = tempfile::tempdir().unwrap();
    let class = root.path().join("train/a");
    let sized = |width: u16, height: u16| {
        let mut bytes = jpeg(&picture(1, 16, 16));
        let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
        bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
        bytes
    };
    let sized_png = |size: u32| {
        let mut bytes = png(picture(1, 16, 16));
        bytes[16..20].copy_from_slice(&size.to_be_bytes());
        bytes[20..24].copy_from_slice(&size.to_be_bytes());
        let mut crc = flate_crc(&bytes[12..29]);
        crc.reverse();
        bytes[29..33].copy_from_slice(&crc);
        bytes
    };
    put(class.join("1.jpg"), &sized(65_500, 65_500));
    put(class.join("2.jpg"), &sized(30_000, 30_000));
    put(class.join("3.png"), &sized_png(30_000));
    put(class.join("4.png"), &png(picture(1, 1, 1)));
    put(class.join("5.png"), &png(picture(1, 1, 3000)));
    put(class.join("6.png"), &png(picture(1, 3, 2000)));
    let set = open(root.path()).unwrap();
    for image in 0..6 {
        let started = Instant::now();
        let outcome = read(&*set.train, image).0;
        assert!(started.elapsed() < Duration::from_secs(1));
        let expected = if image < 5 {
            "at most 100 megapixels"
        } else {
            ""
        };
        match outcome {
            ReadOutcome::Image => assert_eq!(image, 5),
            ReadOutcome::Bad(reason) => assert!(reason.contains(expected), "{image}: {reason}"),
        }
    }
}

#[test]
fn a_few_bytes_that_claim_many_pixels_are_refused_undecoded() {
    // Found by fuzzing: a CMYK file of 1 KB that said 5120 × 7168 was decoded at length.
    for (kind, components) in [
        (ColorType::Luma, 1),
        (ColorType::Rgb, 3),
        (ColorType::Cmyk, 4),
    ] {
        for progressive in [false, true] {
            let encoded = |side: u16| {
                let mut bytes = Vec::new();
                let mut encoder = Encoder::new(&mut bytes, 50);
                encoder.set_progressive(progressive);
                encoder.set_optimized_huffman_tables(true);
                let flat = vec![128; usize::from(side).pow(2) * components];
                encoder.encode(&flat, side, side, kind).unwrap();
                bytes
            };
            // A single colour takes the fewest bytes that there can be, and is an image.
            let flat = encoded(2048);
            let what = format!("{kind:?}, progressive: {progressive}, {} bytes", flat.len());
            assert!(data::decode::decode(&flat).is_ok(), "{what}");
            let mut bytes = encoded(16);
            let frame = (bytes.windows(2))
                .position(|w| w == [0xff, 0xc0] || w == [0xff, 0xc2])
                .unwrap();
            bytes[frame + 5..frame + 9].copy_from_slice(&[0x1c, 0, 0x14, 0]);
            let reason = data::decode::decode(&bytes).err().expect("refused");
            let expected = "bytes are too few for 5120 × 7168 pixels";
            assert!(reason.contains(expected), "{what}: {reason}");
        }
    }
}

/// CRC-32 as PNG has it, little end first.
fn flate_crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).to_le_bytes()
}

#[test]
fn every_kind_of_jpeg_has_the_right_colours() {
    let (width, height) = (120u16, 90u16);
    let rgb = picture(3, width.into(), height.into());
    // Inks such that white light under them gives the same colours, with some black.
    let inks: Vec<u8> = rgb
        .pixels()
        .flat_map(|p| {
            let black = 255 - *p.0.iter().max().unwrap();
            let ink = |x: u8| 255 - (u32::from(x) * 255 / u32::from(255 - black).max(1)) as u8;
            [ink(p.0[0]), ink(p.0[1]), ink(p.0[2]), black]
        })
        .collect();
    let grey: Vec<u8> = rgb.pixels().map(|p| p.0[0]).collect();
    use SamplingFactor::*;
    let kinds = [
        ("RGB", ColorType::Rgb, rgb.as_raw()),
        ("CMYK", ColorType::Cmyk, &inks),
        ("YCCK", ColorType::CmykAsYcck, &inks),
        ("grey", ColorType::Luma, &grey),
    ];
    for (name, kind, pixels) in kinds {
        for sampling in [F_1_1, F_2_1, F_1_2, F_2_2, F_4_1, F_4_2, F_1_4, R_4_1_0] {
            for (progressive, restart) in [(false, 0), (false, 3), (true, 0)] {
                let mut bytes = Vec::new();
                let mut encoder = Encoder::new(&mut bytes, 95);
                encoder.set_progressive(progressive);
                encoder.set_sampling_factor(sampling);
                if restart > 0 {
                    encoder.set_restart_interval(restart);
                }
                encoder.encode(pixels, width, height, kind).unwrap();
                let what = format!("{name} {sampling:?} {progressive} {restart}");
                let found = data::decode::decode(&bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
                let mut expected = mean_colour(rgb.as_raw());
                if name == "grey" {
                    expected = [expected[0]; 3];
                }
                close(mean_colour(&found.rgb), expected, &what);
                let corner = [0, 1, 2].map(|c| f64::from(found.rgb[c]));
                let at_corner = if name == "grey" {
                    [0; 3]
                } else {
                    [0, 0, rgb.as_raw()[2]]
                };
                let far = corner
                    .iter()
                    .zip(at_corner)
                    .any(|(f, e)| (f - f64::from(e)).abs() > 24.0);
                assert!(!far, "{what}: corner {corner:?}");
            }
        }
    }
}

#[test]
fn every_kind_of_png_is_decoded_whatever_its_name() {
    let root = tempfile::tempdir().unwrap();
    let size = SIDE as u32;
    let rgb = picture(4, size, size);
    let expected = mean_colour(rgb.as_raw());
    let wide: Vec<u16> = rgb
        .as_raw()
        .iter()
        .map(|&x| u16::from(x) * 256 + 255)
        .collect();
    let wide = image::ImageBuffer::<image::Rgb<u16>, _>::from_raw(size, size, wide).unwrap();
    let alpha = image::RgbaImage::from_fn(size, size, |x, y| {
        let p = rgb.get_pixel(x, y).0;
        image::Rgba([p[0], p[1], p[2], (x * 8) as u8])
    });
    let files = [
        ("8.png", png(rgb.clone())),
        ("16.png", png(DynamicImage::ImageRgb16(wide))),
        ("alpha.png", png(alpha)),
        ("really-a-png.JPEG", png(rgb.clone())),
    ];
    for (name, bytes) in &files {
        let path = root.path().join(name);
        put(&path, bytes);
        // Images of the stored side come through unchanged.
        assert_eq!(
            &data::decode::load(&path, SIDE).unwrap(),
            rgb.as_raw(),
            "{name}"
        );
    }
    let really_jpeg = root.path().join("really-a-jpeg.png");
    put(&really_jpeg, &jpeg(&rgb));
    close(
        mean_colour(&data::decode::load(&really_jpeg, SIDE).unwrap()),
        expected,
        "JPEG as .png",
    );
    let mut grey = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut grey);
    let luma: Vec<u8> = (0..SIDE * SIDE).map(|i| (i % 251) as u8).collect();
    image::ImageEncoder::write_image(encoder, &luma, size, size, ExtendedColorType::L8).unwrap();
    let path = root.path().join("grey.png");
    put(&path, &grey);
    let repeated: Vec<u8> = luma.iter().flat_map(|&x| [x; 3]).collect();
    assert_eq!(data::decode::load(&path, SIDE).unwrap(), repeated);
}

#[test]
fn a_palette_png_is_decoded() {
    // 2 × 2 pixels with the palette red, blue: made with zlib's stored blocks.
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], body: &[u8]| {
        let mut tail = kind.to_vec();
        tail.extend(body);
        let mut crc = flate_crc(&tail);
        crc.reverse();
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(tail);
        bytes.extend(crc);
    };
    chunk(b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 2, 8, 3, 0, 0, 0]);
    chunk(b"PLTE", &[255, 0, 0, 0, 0, 255]);
    chunk(
        b"IDAT",
        &[
            0x78, 1, 1, 6, 0, 0xf9, 0xff, 0, 0, 1, 0, 1, 0, 0, 0x0c, 0, 3,
        ],
    );
    chunk(b"IEND", &[]);
    let found = data::decode::decode(&bytes).map(|pixels| pixels.rgb);
    assert_eq!(found, Ok(vec![255, 0, 0, 0, 0, 255, 0, 0, 255, 255, 0, 0]));
}

#[test]
fn orientation_tags_are_ignored() {
    let upright = jpeg(&picture(5, 80, 64));
    for orientation in 1..=8u8 {
        let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        let mut bytes = upright[..2].to_vec();
        bytes.extend([0xff, 0xe1]);
        bytes.extend(((exif.len() + 2) as u16).to_be_bytes());
        bytes.extend(&exif);
        bytes.extend(&upright[2..]);
        let (tagged, plain) = (data::decode::decode(&bytes), data::decode::decode(&upright));
        assert!(tagged.unwrap().rgb == plain.unwrap().rgb);
    }
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
fn scaling_averages_and_keeps_the_centre() {
    // Fine stripes become their mean (but for the edges); the side margins are cut off.
    let image = RgbImage::from_fn(192, 128, |x, y| match x {
        0..32 => image::Rgb([255, 0, 0]),
        160.. => image::Rgb([0, 255, 0]),
        _ => image::Rgb([(y % 2 * 200) as u8; 3]),
    });
    let decoded = data::decode::decode(&png(image)).unwrap();
    let mut pixels = vec![0; SIDE * SIDE * 3];
    data::decode::square(&decoded, SIDE, &mut pixels).unwrap();
    let inside = pixels[SIDE * 3..(SIDE - 1) * SIDE * 3]
        .chunks_exact(SIDE * 3)
        .flat_map(|row| &row[9..SIDE * 3 - 9]);
    assert!(inside.copied().all(|x| (95..=105).contains(&x)));
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
        "1 files are both in train and in val, as train/a/same.png",
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
