//! The picture of conv1's kernels, one block per column (paper, Figure 3).

use super::colour::{ColumnColour, colour_specialisation, kernel_size};
use super::picture::{Align, FAINT_INK, INK, Picture, bold, text};
use crate::error::Result;

/// Kernels in a row at most, as in the paper's figure.
const ROW: usize = 16;
/// Pixels between tiles, around the picture, and of the widest picture.
const GAP: usize = 5;
const MARGIN: usize = 20;
const WIDTH: usize = 900;
/// Width that the titles need.
const NARROWEST: usize = 760;
/// Room for the picture's title with its note, and for each block's title.
const HEAD: usize = 62;
const BLOCK_HEAD: usize = 34;

/// One block of tiles per column from conv1's `weights`, `[maps, 3, k, k]` in RGB, column 0's
/// maps first. Each tile shows one kernel, its three channels scaled together so that its largest
/// weight reaches black or white; grey is zero. Block titles give the column's colour index
/// ([`colour_specialisation`]).
///
/// # Errors
/// [`crate::error::Error::Checkpoint`] when the weights are no such tensor.
pub fn kernels(title: &str, weights: &[f32], maps: usize, columns: usize) -> Result<Picture> {
    let side = kernel_size(weights, maps, columns)?;
    let colours = colour_specialisation(weights, maps, columns)?;
    let per_column = maps / columns;
    let layout = Layout::new(side, per_column);
    let width = (layout.per_row * layout.pitch - GAP + 2 * MARGIN).max(NARROWEST);
    let mut picture = Picture::white(width, HEAD + columns * layout.block + MARGIN / 2);
    for (map, kernel) in weights.chunks(weights.len() / maps).enumerate() {
        let (x, y) = layout.place(map / per_column, map % per_column);
        picture.paste(&tile(kernel, side), x, y, layout.zoom);
    }
    picture.draw(|area| {
        let left = MARGIN as i32;
        bold(area, title, (left, 22), 20, INK, Align::Left)?;
        let note = format!(
            "{maps} kernels of {side}×{side}×3, each scaled by its own largest weight; grey is zero"
        );
        text(area, &note, (left, 46), 14, FAINT_INK, Align::Left)?;
        for (column, colour) in colours.iter().enumerate() {
            let y = (HEAD + column * layout.block + BLOCK_HEAD / 2) as i32;
            let name = column_name(column, columns);
            bold(area, &name, (left, y), 15, INK, Align::Left)?;
            let right = (width - MARGIN) as i32;
            text(area, &index_note(colour), (right, y), 14, INK, Align::Right)?;
        }
        Ok(())
    })?;
    Ok(picture)
}

/// What a column is called in pictures and tables.
pub fn column_name(column: usize, columns: usize) -> String {
    if columns == 1 {
        "one column".into()
    } else {
        format!("column {column} (GPU {} in the paper)", column + 1)
    }
}

fn index_note(colour: &ColumnColour) -> String {
    format!(
        "colour index {:.2} (0 grey, 1 colour only, 0.67 untrained)",
        colour.energy_share
    )
}

/// Where the tiles lie.
struct Layout {
    /// Edge of the square that shows one weight, and of a tile with its gap.
    zoom: usize,
    pitch: usize,
    per_row: usize,
    /// Height of a block with its title.
    block: usize,
}

impl Layout {
    fn new(side: usize, per_column: usize) -> Self {
        // Rows of equal length where that is possible without short rows.
        let rows = per_column.div_ceil(ROW);
        let per_row = per_column.div_ceil(rows);
        let room = (WIDTH - 2 * MARGIN) / per_row.max(8) - GAP;
        let zoom = (room / side).max(1);
        let pitch = zoom * side + GAP;
        Layout {
            zoom,
            pitch,
            per_row,
            block: BLOCK_HEAD + rows * pitch + GAP,
        }
    }

    fn place(&self, column: usize, index: usize) -> (usize, usize) {
        let x = MARGIN + index % self.per_row * self.pitch;
        let y = HEAD + column * self.block + BLOCK_HEAD + index / self.per_row * self.pitch;
        (x, y)
    }
}

/// One kernel `[3, k, k]` as k × k pixels.
fn tile(kernel: &[f32], side: usize) -> Picture {
    let largest = kernel
        .iter()
        .filter(|weight| weight.is_finite())
        .fold(0.0f32, |largest, weight| largest.max(weight.abs()));
    let byte = |weight: f32| {
        let scaled = if largest > 0.0 { weight / largest } else { 0.0 };
        (127.5 + 127.5 * scaled).round() as u8
    };
    let mut rgb = vec![0; kernel.len()];
    for (channel, map) in kernel.chunks(side * side).enumerate() {
        for (pixel, &weight) in map.iter().enumerate() {
            rgb[pixel * 3 + channel] = byte(weight);
        }
    }
    // The length is that of the kernel, so this cannot fail; a grey tile stands in regardless.
    Picture::from_rgb(side, side, rgb).unwrap_or_else(|_| Picture::new(side, side, [128; 3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `maps` kernels of one colour each: red in column 0, green in column 1.
    fn weights(maps: usize, side: usize) -> Vec<f32> {
        let pixels = side * side;
        (0..maps)
            .flat_map(|map| {
                let on = if map < maps / 2 { 0 } else { 1 };
                (0..3 * pixels).map(move |i| if i / pixels == on { 0.5 } else { 0.0 })
            })
            .collect()
    }

    #[test]
    fn every_kernel_has_a_tile_in_its_columns_block() {
        let picture = kernels("conv1", &weights(96, 11), 96, 2).unwrap();
        let layout = Layout::new(11, 48);
        assert_eq!(layout.per_row, 16);
        assert!((800..=WIDTH).contains(&picture.width()) && picture.height() < 600);
        for map in 0..96 {
            let (x, y) = layout.place(map / 48, map % 48);
            let expected = if map < 48 {
                [255, 128, 128]
            } else {
                [128, 255, 128]
            };
            let last = layout.zoom * 11 - 1;
            assert_eq!(picture.pixel(x, y), expected);
            assert_eq!(picture.pixel(x + last, y + last), expected);
            assert_eq!(picture.pixel(x + last + 1, y + last), [255; 3]);
        }
    }

    #[test]
    fn a_kernel_is_scaled_about_grey_with_its_channels_together() {
        let tile = tile(
            &[1.0, 0.0, -0.5, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0],
            2,
        );
        assert_eq!(tile.pixel(0, 0), [191, 0, 128]);
        assert_eq!(tile.pixel(1, 1), [128, 128, 255]);
        assert_eq!(tile.pixel(0, 1), [96, 128, 128]);
    }

    #[test]
    fn small_and_odd_networks_are_drawn_too() {
        for (maps, columns, side) in [(2, 2, 3), (10, 2, 5), (34, 1, 11), (200, 2, 14)] {
            let picture = kernels("conv1", &weights(maps, side), maps, columns).unwrap();
            let layout = Layout::new(side, maps / columns);
            let (x, y) = layout.place(columns - 1, maps / columns - 1);
            assert!(
                x + layout.pitch <= WIDTH,
                "{maps} maps reach beyond the edge"
            );
            assert!(y + layout.pitch <= picture.height());
        }
        assert!(kernels("conv1", &[0.0; 10], 1, 1).is_err());
    }
}
