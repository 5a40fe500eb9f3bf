//! Small image folders to try things on.

use alexnet_mp::data::{self, Dataset, OpenOptions, ReadOutcome, Source};
use alexnet_mp::error::Result;
use image::{DynamicImage, ImageFormat, RgbImage};
use jpeg_encoder::{ColorType, Encoder};
use std::fs;
use std::path::Path;

pub const SIDE: usize = 32;

pub fn open(root: &Path) -> Result<Dataset> {
    data::open(
        root,
        &OpenOptions {
            side: SIDE,
            cache_mib: 64,
            reads: Default::default(),
        },
    )
}

/// A smooth picture that differs by `n`.
pub fn picture(n: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let at = |v: u32, size: u32| (v * 200 / size) as u8;
        image::Rgb([at(x, width), at(y, height), (n * 37 % 251) as u8])
    })
}

pub fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = Encoder::new(&mut bytes, 95);
    let (width, height) = (image.width() as u16, image.height() as u16);
    encoder
        .encode(image.as_raw(), width, height, ColorType::Rgb)
        .unwrap();
    bytes
}

pub fn put(path: impl AsRef<Path>, bytes: &[u8]) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// `count` good images in each of two classes of train and val.
pub fn good_set(root: &Path, count: u32) {
    for (half, class) in [("train", "a"), ("train", "b"), ("val", "a"), ("val", "b")] {
        for n in 0..count {
            let seed = n + 100 * u32::from(half == "val") + 50 * u32::from(class == "b");
            put(
                root.join(half).join(class).join(format!("{n:04}.png")),
                &png(picture(seed, 40, 32)),
            );
        }
    }
}

pub fn read(source: &dyn Source, image: usize) -> (ReadOutcome, Vec<u8>) {
    let mut pixels = vec![0; SIDE * SIDE * 3];
    (source.read(image, &mut pixels).unwrap(), pixels)
}

pub fn mean_colour(pixels: &[u8]) -> [f64; 3] {
    let n = (pixels.len() / 3) as f64;
    [0, 1, 2].map(|c| {
        pixels
            .iter()
            .skip(c)
            .step_by(3)
            .map(|&x| f64::from(x))
            .sum::<f64>()
            / n
    })
}

pub fn close(found: [f64; 3], expected: [f64; 3], what: &str) {
    let far = found.iter().zip(expected).any(|(f, e)| (f - e).abs() > 3.0);
    assert!(!far, "{what}: mean colour {found:?}, expected {expected:?}");
}

/// What is logged on this thread.
pub fn warnings(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(log, work);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}
