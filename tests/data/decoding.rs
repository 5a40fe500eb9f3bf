//! Every kind of image file is decoded right, or refused with a reason before it takes memory or time.

use crate::support::*;
use alexnet_mp::data::{self, ReadOutcome};
use image::{DynamicImage, ExtendedColorType, RgbImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use std::time::{Duration, Instant};

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
