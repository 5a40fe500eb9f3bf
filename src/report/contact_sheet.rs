//! A look at a data set: its mean image, and some images of some of its classes.

use super::picture::{Align, FAINT_INK, INK, Picture, bold, shortened, text};
use crate::error::Result;

/// One class's images.
pub struct ClassRow {
    pub name: String,
    pub images: Vec<Picture>,
}

/// Pixels of a tile, and around it.
const TILE: usize = 96;
const GAP: usize = 6;
const NAMES: usize = 190;
const TOP: usize = 44;

/// Draws the mean image and a row for each class.
///
/// # Errors
/// `Data` when it cannot be drawn.
pub fn contact_sheet(title: &str, mean: &Picture, rows: &[ClassRow]) -> Result<Picture> {
    let most = rows.iter().map(|row| row.images.len()).max().unwrap_or(0);
    let width = NAMES + most.max(4) * (TILE + GAP) + GAP;
    let height = TOP + (rows.len() + 1) * (TILE + GAP) + GAP;
    let mut sheet = Picture::white(width, height);
    let top = |row: usize| TOP + row * (TILE + GAP);
    sheet.paste(&mean.fitted(TILE, TILE), NAMES, top(0), 1);
    for (number, row) in rows.iter().enumerate() {
        for (column, image) in row.images.iter().enumerate() {
            let left = NAMES + column * (TILE + GAP);
            sheet.paste(&image.fitted(TILE, TILE), left, top(number + 1), 1);
        }
    }
    sheet.draw(|area| {
        bold(area, title, (GAP as i32, 20), 16, INK, Align::Left)?;
        let middle = |row: usize| (GAP as i32, (top(row) + TILE / 2) as i32);
        text(area, "mean image", middle(0), 13, FAINT_INK, Align::Left)?;
        for (number, row) in rows.iter().enumerate() {
            let name = shortened(&row.name, 13, NAMES - 2 * GAP);
            text(area, &name, middle(number + 1), 13, INK, Align::Left)?;
        }
        Ok(())
    })?;
    Ok(sheet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_shows_the_mean_and_every_image() {
        let tile = |colour| Picture::new(32, 32, colour);
        let row = |name: &str, colour| ClassRow {
            name: name.into(),
            images: vec![tile(colour), tile([0, 0, 250])],
        };
        let rows = [row("first", [250, 0, 0]), row("second", [0, 250, 0])];
        let sheet = contact_sheet("three", &tile([120; 3]), &rows).unwrap();
        let at = |column: usize, row: usize| {
            let middle = |n: usize| n * (TILE + GAP) + TILE / 2;
            sheet.pixel(NAMES + middle(column), TOP + middle(row))
        };
        assert_eq!(at(0, 0), [120; 3]);
        assert_eq!((at(0, 1), at(0, 2)), ([250, 0, 0], [0, 250, 0]));
        assert_eq!((at(1, 1), at(1, 2)), ([0, 0, 250], [0, 0, 250]));
        assert_eq!(at(2, 1), [255; 3]);
    }
}
