//! From the bytes of a JPEG or PNG file to a square RGB image.
//!
//! The format is told by the first bytes, not by the name. Orientation tags are ignored, as is the
//! practice with ImageNet; an alpha channel is dropped; 16-bit samples keep their upper 8 bits;
//! inks of CMYK images are multiplied, as Pillow does.

mod jpeg;

use crate::error::{Result, data};
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::png::PngDecoder;
use image::{DynamicImage, ImageDecoder, Limits};
use std::cell::{Cell, RefCell};
use std::fmt::Write;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

/// Images of more pixels are refused before memory for them is asked for.
pub const LARGEST_IMAGE: usize = 100_000_000;

/// Larger files are refused unread, in bytes.
pub(crate) const LARGEST_FILE: u64 = 1 << 29;

/// Decoded pixels `[row][column][red, green, blue]`.
pub struct Pixels {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

/// Decodes a JPEG or PNG file's bytes. An error is the reason, in a few words on one line.
pub fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    let decoded = quietly(|| match bytes {
        [] => Err("the file is empty".into()),
        [0xff, 0xd8, ..] => jpeg::decode(bytes),
        [0x89, b'P', b'N', b'G', ..] => decode_png(bytes),
        _ => Err(format!(
            "neither JPEG nor PNG: it begins with \"{}\"",
            bytes[..bytes.len().min(8)].escape_ascii()
        )),
    });
    // Some of the decoders' messages end with a line break.
    decoded.map_err(|reason| reason.trim_end().replace(char::is_control, " "))
}

/// Reads an image file and scales it to `side` × `side` × 3 bytes: see [`square`].
pub fn read_square(path: &Path, side: usize, into: &mut [u8]) -> Result<(), String> {
    square(&decode(&read_file(path)?)?, side, into)
}

/// The same for a single image that a user names.
///
/// Errors: `Data` naming the file and the reason.
pub fn load(path: &Path, side: usize) -> Result<Vec<u8>> {
    let mut pixels = vec![0; side * side * 3];
    read_square(path, side, &mut pixels)
        .map_err(|reason| data(format!("{}: {reason}", escape(path.as_os_str()))))?;
    Ok(pixels)
}

/// A regular file's bytes; never blocks on pipes or devices.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = std::fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    if metadata.len() > LARGEST_FILE {
        return Err(format!(
            "{} bytes are too many for an image",
            metadata.len()
        ));
    }
    std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))
}

fn check_size(width: usize, height: usize) -> Result<(), String> {
    if width < 2 || height < 2 || width.saturating_mul(height) > LARGEST_IMAGE {
        return Err(format!(
            "{width} × {height} pixels; expected at least 2 × 2 and at most {} megapixels",
            LARGEST_IMAGE / 1_000_000
        ));
    }
    Ok(())
}

fn decode_png(bytes: &[u8]) -> Result<Pixels, String> {
    let failed = |e| format!("broken PNG: {e}");
    let mut limits = Limits::default();
    // 16-bit RGBA of the largest size.
    limits.max_alloc = Some(LARGEST_IMAGE as u64 * 8 + (1 << 20));
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    let rgb = to_rgb(DynamicImage::from_decoder(decoder).map_err(failed)?);
    Ok(Pixels { width, height, rgb })
}

/// Drops alpha, repeats grey, keeps the upper bits of 16.
fn to_rgb(image: DynamicImage) -> Vec<u8> {
    let upper = |x: u16| (x >> 8) as u8;
    match image {
        DynamicImage::ImageLuma16(i) => i.iter().flat_map(|&x| [upper(x); 3]).collect(),
        DynamicImage::ImageLumaA16(i) => i.pixels().flat_map(|p| [upper(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(i) => i.iter().map(|&x| upper(x)).collect(),
        DynamicImage::ImageRgba16(i) => {
            let rgb = |p: &image::Rgba<u16>| [upper(p.0[0]), upper(p.0[1]), upper(p.0[2])];
            i.pixels().flat_map(rgb).collect()
        }
        other => other.into_rgb8().into_raw(),
    }
}

thread_local! {
    /// Keeps its work space from image to image.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Scales the shorter side to `side` with a triangle filter as wide as the reduction needs, and
/// takes the central square; an image whose shorter side fits is only cropped.
pub fn square(image: &Pixels, side: usize, into: &mut [u8]) -> Result<(), String> {
    let short = image.width.min(image.height);
    if short == side {
        let (top, left) = ((image.height - side) / 2, (image.width - side) / 2);
        let rows = image.rgb.chunks_exact(image.width * 3).skip(top);
        for (target, row) in into.chunks_exact_mut(side * 3).zip(rows) {
            target.copy_from_slice(&row[left * 3..(left + side) * 3]);
        }
        return Ok(());
    }
    let failed = |e: &dyn std::fmt::Display| format!("cannot be resized: {e}");
    let (width, height) = (image.width as u32, image.height as u32);
    let source = TypedImageRef::<U8x3>::from_buffer(width, height, &image.rgb);
    let source = source.map_err(|e| failed(&e))?;
    let target = TypedImage::<U8x3>::from_buffer(side as u32, side as u32, into);
    let mut target = target.map_err(|e| failed(&e))?;
    let square = short as f64;
    let (left, top) = (f64::from(width) - square, f64::from(height) - square);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(left / 2.0, top / 2.0, square, square);
    // Not `resize`, which is compiled for every kind of pixel: a third of this crate's code.
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, &options))
        .map_err(|e| failed(&e))
}

/// A name for messages: on one line, whatever bytes it has.
pub fn escape(name: &std::ffi::OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c.is_control() {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder; a panic inside it on a broken file becomes a reason instead of a message.
fn quietly<T>(decoder: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                others(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(decoder));
    QUIET.set(false);
    result.unwrap_or_else(|_| Err("broken image: the decoder failed on it".into()))
}
