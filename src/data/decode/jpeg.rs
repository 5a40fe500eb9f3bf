//! JPEG, by two decoders: the fast one for the usual files, the exact one for the others.
//!
//! zune-jpeg 0.5.15 returns wrong colours, without an error, for some files with four components
//! and for some sampling factors of 4; jpeg-decoder agrees with libjpeg on all of them.

use super::{Pixels, check_size};
use std::io::Cursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// No JPEG has more: each block of 64 samples takes a bit or more, and there are 128 pixels to a
/// block at most, where one component has 4 × 1 samples for the other's 1 × 4.
const PIXELS_OF_A_BYTE: usize = 1024;

/// Decodes a JPEG file; an error is the reason.
pub fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    let frame = Frame::find(bytes)?;
    let (width, height) = (frame.width, frame.height);
    check_size(width, height)?;
    if bytes.len() < width * height / PIXELS_OF_A_BYTE {
        return Err(format!(
            "truncated JPEG: {} bytes are too few for {width} × {height} pixels",
            bytes.len()
        ));
    }
    let rgb = match frame.is_usual() {
        true => usual(bytes, true).or_else(|reason| {
            // Stray bytes between segments are common in the wild and do no harm.
            match reason.contains("Extra bytes between headers") {
                true => usual(bytes, false),
                false => Err(reason),
            }
        }),
        false => unusual(bytes),
    }?;
    if rgb.len() != width * height * 3 {
        return Err("broken JPEG: the frame's size is not the image's".into());
    }
    Ok(Pixels { width, height, rgb })
}

/// The frame header, as far as it decides how to decode.
struct Frame {
    width: usize,
    height: usize,
    /// Sampling factors of each component: horizontal in the upper four bits, vertical below.
    sampling: Vec<u8>,
}

impl Frame {
    /// Finds the frame header, and makes sure that the end marker follows the first scan. (A
    /// preview image in the header segments has an end marker of its own.)
    fn find(bytes: &[u8]) -> Result<Self, String> {
        let mut frame = None;
        let mut at = 2;
        loop {
            let Some(&[first, marker, high, low]) = bytes.get(at..at + 4) else {
                return Err("truncated JPEG: it ends within the header".into());
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let segment = bytes.get(at + 4..at + 2 + length).unwrap_or_default();
            match marker {
                0xda if first == 0xff => break,
                // All start-of-frame markers; c4, c8, cc mean something else.
                0xc0..=0xcf if first == 0xff && !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                    frame = Frame::parse(segment);
                }
                _ => {}
            }
            // A stray or fill byte, or a whole segment.
            at += match (first, marker) {
                (0xff, 0x01..=0xfe) => 2 + length,
                _ => 1,
            };
        }
        let mut scans = bytes[at..].windows(2).rev();
        if !scans.any(|pair| pair == [0xff, 0xd9]) {
            return Err("truncated JPEG: its end marker is missing".into());
        }
        frame.ok_or_else(|| "broken JPEG: it has no frame header".into())
    }

    fn parse(segment: &[u8]) -> Option<Self> {
        let &[_, h1, h0, w1, w0, components, ref rest @ ..] = segment else {
            return None;
        };
        let components = rest.chunks_exact(3).take(usize::from(components));
        Some(Frame {
            width: usize::from(u16::from_be_bytes([w1, w0])),
            height: usize::from(u16::from_be_bytes([h1, h0])),
            sampling: components.map(|c| c[1]).collect(),
        })
    }

    /// Grey, or three components with both colours halved alike or not at all.
    fn is_usual(&self) -> bool {
        matches!(
            self.sampling[..],
            [_] | [0x11 | 0x21 | 0x12 | 0x22, 0x11, 0x11]
        )
    }
}

fn usual(bytes: &[u8], strict: bool) -> Result<Vec<u8>, String> {
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    zune_jpeg::JpegDecoder::new_with_options(Cursor::new(bytes), options)
        .decode()
        .map_err(|e| format!("broken JPEG: {e}"))
}

fn unusual(bytes: &[u8]) -> Result<Vec<u8>, String> {
    use jpeg_decoder::PixelFormat::{CMYK32, L8, L16, RGB24};
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    let pixels = decoder.decode().map_err(|e| format!("broken JPEG: {e}"))?;
    match decoder.info().map(|info| info.pixel_format) {
        Some(RGB24) => Ok(pixels),
        Some(CMYK32) => Ok(pixels.chunks_exact(4).flat_map(paper_under_inks).collect()),
        Some(L8) => Ok(pixels.into_iter().flat_map(|x| [x; 3]).collect()),
        Some(L16) => Err("JPEG with 16-bit samples".into()),
        None => Err("broken JPEG: it has no size".into()),
    }
}

/// What inks (0: none, 255: full) leave of white light.
fn paper_under_inks(inks: &[u8]) -> [u8; 3] {
    let left = |ink: u8| u32::from(255 - ink) * u32::from(255 - inks[3]);
    [0, 1, 2].map(|c| ((left(inks[c]) + 127) / 255) as u8)
}
