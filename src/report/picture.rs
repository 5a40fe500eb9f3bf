//! An RGB picture in memory: drawn on with plotters, saved as PNG.

use std::io::Cursor;
use std::path::Path;
use std::sync::OnceLock;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::error::{self, Result};

/// The family name of the embedded fonts (DejaVu Sans, cut down to Latin, Greek and signs).
const FONT: &str = "sans-serif";

/// Pixels of a plotters area per pixel of the picture, in both directions.
pub(super) const FINE: i32 = 2;

/// A length in pixels of the area.
pub(super) fn px(size: u32) -> u32 {
    size * FINE as u32
}

/// A position in pixels of the area.
pub(super) fn at(x: i32, y: i32) -> (i32, i32) {
    (x * FINE, y * FINE)
}

pub(super) const INK: RGBColor = RGBColor(33, 37, 41);
pub(super) const FAINT_INK: RGBColor = RGBColor(108, 117, 125);
pub(super) const GRID: RGBColor = RGBColor(225, 228, 232);

/// Colours that stay apart for colour-blind readers as well (Okabe and Ito).
pub(super) const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

/// What drawing gives; its errors become [`crate::error::Error`] in [`Picture::draw`].
pub(super) type Drawn<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A plotters drawing area on a [`Picture`].
pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// Pixels, rows from the top, 3 bytes (RGB) each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    /// `width` × `height` pixels of one colour.
    pub fn new(width: usize, height: usize, colour: [u8; 3]) -> Self {
        Picture {
            width,
            height,
            rgb: colour.repeat(width * height),
        }
    }

    /// A white picture.
    pub(super) fn white(width: usize, height: usize) -> Self {
        Picture::new(width, height, [255; 3])
    }

    /// A picture from its bytes, `width · height · 3` of them.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the number of bytes does not fit.
    pub fn from_rgb(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self> {
        if rgb.len() != width * height * 3 {
            let (found, expected) = (rgb.len(), width * height * 3);
            return Err(error::data(format!(
                "a {width}×{height} picture has {expected} bytes, not {found}"
            )));
        }
        Ok(Picture { width, height, rgb })
    }

    /// Pixels across.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Pixels down.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All bytes, `[row][column][channel]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The colour at column `x`, row `y`; the picture must have them.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let start = (y * self.width + x) * 3;
        [self.rgb[start], self.rgb[start + 1], self.rgb[start + 2]]
    }

    /// Copies `tile` to column `x`, row `y`, each of its pixels as a `zoom` × `zoom` square; what
    /// lies outside is cut off.
    pub fn paste(&mut self, tile: &Picture, x: usize, y: usize, zoom: usize) {
        let width = (tile.width * zoom).min(self.width.saturating_sub(x));
        let height = (tile.height * zoom).min(self.height.saturating_sub(y));
        for row in 0..height {
            for column in 0..width {
                let colour = tile.pixel(column / zoom, row / zoom);
                let start = ((y + row) * self.width + x + column) * 3;
                self.rgb[start..start + 3].copy_from_slice(&colour);
            }
        }
    }

    /// The picture scaled to fit `width` × `height`, its proportions kept: smooth when it
    /// shrinks or grows by little, square pixels when it grows to three times or more.
    pub fn fitted(&self, width: usize, height: usize) -> Picture {
        let across = width as f64 / self.width.max(1) as f64;
        let scale = across.min(height as f64 / self.height.max(1) as f64);
        let size = |pixels: usize| ((pixels as f64 * scale).round() as u32).max(1);
        let filter = if scale >= 3.0 {
            image::imageops::FilterType::Nearest
        } else {
            image::imageops::FilterType::Triangle
        };
        let source = self.clone().into_image();
        let scaled = source.map(|source| {
            image::imageops::resize(&source, size(self.width), size(self.height), filter)
        });
        scaled.map_or_else(
            || Picture::white(width, height),
            |scaled| Picture {
                width: scaled.width() as usize,
                height: scaled.height() as usize,
                rgb: scaled.into_raw(),
            },
        )
    }

    /// The PNG file's bytes.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the picture has no pixels.
    pub fn png(&self) -> Result<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        PngEncoder::new(&mut bytes)
            .write_image(
                &self.rgb,
                self.width as u32,
                self.height as u32,
                ExtendedColorType::Rgb8,
            )
            .map_err(|cause| error::data(format!("cannot encode a picture: {cause}")))?;
        Ok(bytes.into_inner())
    }

    /// Writes a PNG file.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.png()?)
            .map_err(|cause| error::data(format!("cannot write {}: {cause}", path.display())))
    }

    /// Draws on the picture with plotters, on an area [`FINE`] times as large that is then
    /// averaged back: lines and letters come out smooth, what was there stays as it was.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&Area) -> Drawn) -> Result<()> {
        register_fonts();
        let fine = FINE as usize;
        let mut large = Picture::white(self.width * fine, self.height * fine);
        large.paste(self, 0, 0, fine);
        let size = (large.width as u32, large.height as u32);
        let area = BitMapBackend::with_buffer(&mut large.rgb, size).into_drawing_area();
        draw(&area).map_err(|cause| error::data(format!("cannot draw a picture: {cause}")))?;
        drop(area);
        if let Some(large) = large.into_image() {
            let (width, height) = (self.width as u32, self.height as u32);
            self.rgb = image::imageops::thumbnail(&large, width, height).into_raw();
        }
        Ok(())
    }

    fn into_image(self) -> Option<image::RgbImage> {
        image::RgbImage::from_raw(self.width as u32, self.height as u32, self.rgb)
    }
}

/// Makes the embedded fonts known to plotters, once.
fn register_fonts() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        // A font that failed to register shows as an error of the first text drawn.
        let regular = include_bytes!("../../assets/DejaVuSans.ttf");
        let bold = include_bytes!("../../assets/DejaVuSans-Bold.ttf");
        let _ = register_font(FONT, FontStyle::Normal, regular);
        let _ = register_font(FONT, FontStyle::Bold, bold);
    });
}

/// Where a text lies from its point: to the right of it, around it, to the left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Centre,
    Right,
}

/// The embedded font, `size` pixels of the picture high.
pub(super) fn font(size: u32, style: FontStyle) -> FontDesc<'static> {
    FontDesc::new(FontFamily::SansSerif, f64::from(px(size)), style)
}

/// Text whose vertical middle is at `at.1`, `size` pixels high.
pub(super) fn text(
    area: &Area,
    text: &str,
    at: (i32, i32),
    size: u32,
    colour: RGBColor,
    align: Align,
) -> Drawn {
    let font = font(size, FontStyle::Normal);
    styled(area, text, at, font.color(&colour), align)
}

/// As [`text`], bold.
pub(super) fn bold(
    area: &Area,
    text: &str,
    at: (i32, i32),
    size: u32,
    colour: RGBColor,
    align: Align,
) -> Drawn {
    let font = font(size, FontStyle::Bold);
    styled(area, text, at, font.color(&colour), align)
}

fn styled(area: &Area, text: &str, (x, y): (i32, i32), style: TextStyle, align: Align) -> Drawn {
    let across = match align {
        Align::Left => HPos::Left,
        Align::Centre => HPos::Center,
        Align::Right => HPos::Right,
    };
    let style = style.pos(Pos::new(across, VPos::Center));
    // plotters centres the line with its descenders; letters look centred a little lower.
    let lower = (style.font.get_size() / 9.0) as i32;
    let (x, y) = at(x, y);
    area.draw_text(text, &style, (x, y + lower))?;
    Ok(())
}

/// Width of a text of this size, in pixels of the picture.
pub(super) fn text_width(text: &str, size: u32) -> usize {
    register_fonts();
    let width = font(size, FontStyle::Normal).box_size(text);
    width.map_or(0, |(width, _)| width.div_ceil(FINE as u32) as usize)
}

/// The text, its end replaced by "…" where it would be wider than `width` pixels.
pub(super) fn shortened(text: &str, size: u32, width: usize) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let mut kept: Vec<char> = text.chars().collect();
    loop {
        kept.pop();
        let short: String = kept.iter().chain(&['…']).collect();
        if kept.is_empty() || text_width(&short, size) <= width {
            return short;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_drawn_with_the_embedded_font() {
        let mut picture = Picture::white(200, 40);
        picture
            .draw(|area| bold(area, "ε ÷ 10 ≤ ∂", (100, 20), 16, INK, Align::Centre))
            .unwrap();
        let dark = picture
            .rgb()
            .chunks(3)
            .filter(|pixel| pixel[0] < 128)
            .count();
        assert!((100..2000).contains(&dark), "{dark} dark pixels");
    }

    #[test]
    fn a_saved_picture_reads_back_with_the_same_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.png");
        let mut picture = Picture::new(7, 5, [1, 2, 3]);
        picture.paste(&Picture::new(2, 2, [200, 0, 0]), 5, 3, 2);
        picture.save(&path).unwrap();
        let read = image::open(&path).unwrap().to_rgb8();
        assert_eq!(read.dimensions(), (7, 5));
        assert_eq!(read.into_raw(), picture.rgb());
        assert_eq!(picture.pixel(6, 4), [200, 0, 0]);
        assert_eq!(picture.pixel(4, 3), [1, 2, 3]);
    }

    #[test]
    fn a_wrong_number_of_bytes_is_refused() {
        let message = Picture::from_rgb(2, 2, vec![0; 11])
            .unwrap_err()
            .to_string();
        assert_eq!(message, "a 2×2 picture has 12 bytes, not 11");
    }

    #[test]
    fn fitting_keeps_the_proportions() {
        let fitted = Picture::new(10, 20, [9; 3]).fitted(64, 64);
        assert_eq!((fitted.width(), fitted.height()), (32, 64));
    }

    #[test]
    fn long_text_is_shortened_to_its_room() {
        assert_eq!(shortened("short", 14, 200), "short");
        let short = shortened("a very long class name that cannot fit", 14, 120);
        assert!(
            short.ends_with('…') && text_width(&short, 14) <= 120,
            "{short}"
        );
    }
}
