//! The two halves of the paper's Figure 4: images with their five most probable classes, and
//! images with those nearest to them.

use plotters::prelude::*;

use super::format::percent;
use super::picture::{Align, Area, Drawn, FAINT_INK, INK, Picture};
use super::picture::{at, bold, shortened, text};
use crate::error::Result;

/// Pixels around the picture and between its cells.
const MARGIN: usize = 20;
const GAP: usize = 20;
/// Height of the title.
const HEAD: usize = 48;

/// Tints that black letters stay legible on.
const RIGHT: RGBColor = RGBColor(247, 166, 120);
const OTHER: RGBColor = RGBColor(158, 202, 232);
const TRACK: RGBColor = RGBColor(240, 242, 244);

/// An image and its most probable classes.
#[derive(Clone, Debug)]
pub struct Prediction {
    pub image: Picture,
    /// What stands under the image where its class is not known: the file's name.
    pub name: String,
    /// The true class, if it is known.
    pub truth: Option<String>,
    /// The most probable classes with their probabilities (0 to 1), best first; five are shown.
    pub classes: Vec<(String, f32)>,
}

/// A query image and the images nearest to it.
#[derive(Clone, Debug)]
pub struct Neighbours {
    pub image: Picture,
    pub name: String,
    /// Nearest first: the image, its name, and its distance in the units of the features.
    pub nearest: Vec<(Picture, String, f32)>,
}

/// Cells of an image over its class and five bars, as long as the classes are probable; the bar
/// of the true class has another colour. Four cells in a row.
///
/// # Errors
/// [`crate::error::Error::Data`] when the picture cannot be drawn.
pub fn predictions(title: &str, images: &[Prediction]) -> Result<Picture> {
    const ROW: usize = 4;
    let rows = images.len().div_ceil(ROW).max(1);
    let width = 2 * MARGIN + ROW * (Cell::WIDTH + GAP) - GAP;
    let height = HEAD + rows * (Cell::HEIGHT + GAP) + MARGIN / 2;
    let mut picture = Picture::white(width, height);
    let place = |index: usize| {
        let x = MARGIN + index % ROW * (Cell::WIDTH + GAP);
        (x, HEAD + index / ROW * (Cell::HEIGHT + GAP))
    };
    for (index, prediction) in images.iter().enumerate() {
        let (x, y) = place(index);
        paste_centred(
            &mut picture,
            &prediction.image,
            x,
            y,
            (Cell::WIDTH, Cell::IMAGE),
        );
    }
    picture.draw(|area| {
        heading(area, title, width)?;
        let known = images.iter().any(|prediction| prediction.truth.is_some());
        if known {
            legend(area, width as i32 - MARGIN as i32)?;
        }
        for (index, prediction) in images.iter().enumerate() {
            let (x, y) = place(index);
            Cell::draw(area, prediction, x as i32, (y + Cell::IMAGE) as i32)?;
        }
        Ok(())
    })?;
    Ok(picture)
}

/// What lies under an image.
struct Cell;

impl Cell {
    const WIDTH: usize = 200;
    const IMAGE: usize = 170;
    const CAPTION: usize = 28;
    const BAR: usize = 22;
    const HEIGHT: usize = Cell::IMAGE + Cell::CAPTION + 5 * Cell::BAR;

    fn draw(area: &Area, prediction: &Prediction, x: i32, y: i32) -> Drawn {
        let truth = prediction.truth.as_deref();
        let caption = shortened(truth.unwrap_or(&prediction.name), 14, Cell::WIDTH - 20);
        let middle = (x + Cell::WIDTH as i32 / 2, y + Cell::CAPTION as i32 / 2);
        bold(area, &caption, middle, 14, INK, Align::Centre)?;
        for (index, (name, probability)) in prediction.classes.iter().take(5).enumerate() {
            let top = y + (Cell::CAPTION + index * Cell::BAR) as i32;
            let colour = if truth == Some(name) { RIGHT } else { OTHER };
            Cell::bar(area, (x, top), colour, name, *probability)?;
        }
        Ok(())
    }

    fn bar(area: &Area, (x, y): (i32, i32), colour: RGBColor, name: &str, share: f32) -> Drawn {
        let bottom = y + Cell::BAR as i32 - 4;
        let bar = |end: i32, colour: RGBColor| {
            area.draw(&Rectangle::new(
                [at(x, y), at(end, bottom)],
                colour.filled(),
            ))
        };
        bar(x + Cell::WIDTH as i32, TRACK)?;
        let length = (Cell::WIDTH as f32 * share.clamp(0.0, 1.0)).round() as i32;
        if length > 0 {
            bar(x + length, colour)?;
        }
        let middle = y + (Cell::BAR as i32 - 4) / 2;
        let name = shortened(name, 12, Cell::WIDTH - 64);
        text(area, &name, (x + 5, middle), 12, INK, Align::Left)?;
        let number = percent(f64::from(share), 1);
        let right = x + Cell::WIDTH as i32 - 5;
        text(area, &number, (right, middle), 12, INK, Align::Right)
    }
}

fn legend(area: &Area, right: i32) -> Drawn {
    for (x, colour, name) in [
        (right - 172, RIGHT, "true class"),
        (right - 72, OTHER, "another"),
    ] {
        area.draw(&Rectangle::new(
            [at(x, 16), at(x + 14, 30)],
            colour.filled(),
        ))?;
        text(area, name, (x + 20, 23), 13, FAINT_INK, Align::Left)?;
    }
    Ok(())
}

/// One row per query: the image, a line, and up to six nearest images with the distances of their
/// features in `layer`.
///
/// # Errors
/// [`crate::error::Error::Data`] when the picture cannot be drawn.
pub fn neighbours(title: &str, layer: &str, queries: &[Neighbours]) -> Result<Picture> {
    const SHOWN: usize = 6;
    const TILE: usize = 108;
    const ROW: usize = TILE + 44;
    let width = 2 * MARGIN + (SHOWN + 1) * (TILE + 10) + 30;
    let top = HEAD + 22;
    let mut picture = Picture::white(width, top + queries.len().max(1) * ROW + MARGIN / 2);
    let left = |index: usize| MARGIN + index * (TILE + 10) + if index > 0 { 30 } else { 0 };
    for (row, query) in queries.iter().enumerate() {
        let y = top + row * ROW;
        paste_centred(&mut picture, &query.image, left(0), y, (TILE, TILE));
        for (index, (image, _, _)) in query.nearest.iter().take(SHOWN).enumerate() {
            paste_centred(&mut picture, image, left(index + 1), y, (TILE, TILE));
        }
    }
    picture.draw(|area| {
        heading(area, title, width)?;
        let label = |x: usize, y: usize, words: &str, colour, align| {
            text(area, words, (x as i32, y as i32), 13, colour, align)
        };
        label(left(0), HEAD + 4, "query", FAINT_INK, Align::Left)?;
        let nearest = format!("nearest first, with the distance of their {layer} features");
        label(left(1), HEAD + 4, &nearest, FAINT_INK, Align::Left)?;
        for (row, query) in queries.iter().enumerate() {
            let y = top + row * ROW;
            let line = left(1) - 20;
            let ends = vec![
                at(line as i32, y as i32),
                at(line as i32, (y + TILE) as i32),
            ];
            area.draw(&PathElement::new(ends, FAINT_INK.stroke_width(2)))?;
            let name = shortened(&query.name, 13, TILE);
            label(left(0) + TILE / 2, y + TILE + 12, &name, INK, Align::Centre)?;
            for (index, (_, name, distance)) in query.nearest.iter().take(SHOWN).enumerate() {
                let middle = left(index + 1) + TILE / 2;
                let name = shortened(name, 13, TILE);
                label(middle, y + TILE + 12, &name, INK, Align::Centre)?;
                let distance = format!("{distance:.2}");
                label(middle, y + TILE + 28, &distance, FAINT_INK, Align::Centre)?;
            }
        }
        Ok(())
    })?;
    Ok(picture)
}

fn heading(area: &Area, title: &str, width: usize) -> Drawn {
    let title = shortened(title, 20, width * 2 / 3);
    bold(area, &title, (MARGIN as i32, 23), 20, INK, Align::Left)
}

/// Fits an image into a box of (width, height) at (x, y), in its middle.
fn paste_centred(
    picture: &mut Picture,
    image: &Picture,
    x: usize,
    y: usize,
    (width, height): (usize, usize),
) {
    let image = image.fitted(width, height);
    let left = x + width.saturating_sub(image.width()) / 2;
    let top = y + height.saturating_sub(image.height()) / 2;
    picture.paste(&image, left, top, 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(truth: Option<&str>) -> Prediction {
        Prediction {
            image: Picture::new(100, 100, [10, 120, 10]),
            name: "a.jpg".into(),
            truth: truth.map(String::from),
            classes: [
                ("cat", 0.6),
                ("dog", 0.3),
                ("ant", 0.06),
                ("bee", 0.03),
                ("cow", 0.01),
            ]
            .map(|(name, probability)| (name.to_string(), probability))
            .to_vec(),
        }
    }

    fn bytes(colour: RGBColor) -> [u8; 3] {
        [colour.0, colour.1, colour.2]
    }

    #[test]
    fn bars_are_as_long_as_the_classes_are_probable() {
        let picture = predictions("", &[prediction(Some("cat")), prediction(Some("dog"))]).unwrap();
        let y = |bar: usize| HEAD + Cell::IMAGE + Cell::CAPTION + bar * Cell::BAR + 1;
        let first = |share: f64| MARGIN + (200.0 * share) as usize;
        let second = |share: f64| first(share) + Cell::WIDTH + GAP;
        assert_eq!(picture.pixel(first(0.58), y(0)), bytes(RIGHT));
        assert_eq!(picture.pixel(first(0.62), y(0)), bytes(TRACK));
        assert_eq!(picture.pixel(first(0.28), y(1)), bytes(OTHER));
        assert_eq!(picture.pixel(first(0.32), y(1)), bytes(TRACK));
        assert_eq!(picture.pixel(second(0.58), y(0)), bytes(OTHER));
        assert_eq!(picture.pixel(second(0.28), y(1)), bytes(RIGHT));
    }

    #[test]
    fn every_image_has_a_cell() {
        let images = vec![prediction(None); 9];
        let picture = predictions("nine images", &images).unwrap();
        assert_eq!(
            picture.height(),
            HEAD + 3 * (Cell::HEIGHT + GAP) + MARGIN / 2
        );
        for index in 0..9 {
            let x = MARGIN + index % 4 * (Cell::WIDTH + GAP) + Cell::WIDTH / 2;
            let y = HEAD + index / 4 * (Cell::HEIGHT + GAP) + Cell::IMAGE / 2;
            assert_eq!(picture.pixel(x, y), [10, 120, 10]);
        }
        assert!(predictions("none", &[]).is_ok());
    }

    #[test]
    fn the_nearest_images_follow_their_query() {
        let tile = |shade| Picture::new(50, 25, [shade, 0, 0]);
        let query = Neighbours {
            image: tile(250),
            name: "query.jpg".into(),
            nearest: (1..9u8)
                .map(|i| (tile(i * 20), format!("{i}"), f32::from(i)))
                .collect(),
        };
        let picture = neighbours("similar", "fc7", &[query.clone(), query]).unwrap();
        let y = HEAD + 22 + 54;
        assert_eq!(picture.pixel(MARGIN + 54, y), [250, 0, 0]);
        for index in 1..7 {
            let x = MARGIN + index * 118 + 30 + 54;
            assert_eq!(picture.pixel(x, y), [index as u8 * 20, 0, 0]);
            assert_eq!(picture.pixel(x, y + 152), [index as u8 * 20, 0, 0]);
        }
    }
}
