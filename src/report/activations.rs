//! What the maps of a layer answer to an image: grey tiles, one block per column.

use super::kernels::column_name;
use super::picture::{Align, FAINT_INK, INK, Picture, bold, shortened, text};
use crate::error::{self, Result};

const MARGIN: usize = 20;
/// Width left for tiles.
const ROOM: usize = 860;
/// Room for the title with its note, and for each block's title.
const HEAD: usize = 62;
const BLOCK_HEAD: usize = 34;

/// Between and around tiles, so that white ones are seen too.
const GROUND: [u8; 3] = [176, 196, 214];

/// The activations of one column's share of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Maps<'a> {
    pub maps: usize,
    pub height: usize,
    pub width: usize,
    /// `[map][row][column]`
    pub values: &'a [f32],
}

/// One block per column, one tile per map, all on one scale, so that strong maps stand out. Units
/// of a fully connected layer (maps of 1 × 1) are small squares.
///
/// # Errors
/// [`crate::error::Error::Data`] when the number of values does not fit, or there are none.
pub fn activations(title: &str, columns: &[Maps]) -> Result<Picture> {
    check(columns)?;
    let scale = Scale::of(columns);
    let layouts: Vec<Layout> = columns.iter().map(Layout::new).collect();
    let tops: Vec<usize> = layouts
        .iter()
        .scan(HEAD, |next, layout| {
            let top = *next;
            *next += layout.height();
            Some(top)
        })
        .collect();
    let height: usize = layouts.iter().map(Layout::height).sum();
    let mut picture = Picture::white(ROOM + 2 * MARGIN, HEAD + height + MARGIN / 2);
    for ((maps, layout), &top) in columns.iter().zip(&layouts).zip(&tops) {
        let (width, height) = layout.tiles();
        let ground = Picture::new(width, height, GROUND);
        picture.paste(
            &ground,
            MARGIN - layout.gap,
            top + BLOCK_HEAD - layout.gap,
            1,
        );
        for (index, map) in maps.values.chunks(maps.height * maps.width).enumerate() {
            let tile = tile(map, maps, &scale)?.fitted(layout.width, layout.height);
            let (x, y) = layout.place(index);
            picture.paste(&tile, x, top + y, 1);
        }
    }
    picture.draw(|area| {
        let left = MARGIN as i32;
        bold(
            area,
            &shortened(title, 20, ROOM - 60),
            (left, 22),
            20,
            INK,
            Align::Left,
        )?;
        text(area, &scale.note(), (left, 46), 14, FAINT_INK, Align::Left)?;
        for (column, (maps, top)) in columns.iter().zip(&tops).enumerate() {
            let y = (top + BLOCK_HEAD / 2) as i32;
            let name = column_name(column, columns.len());
            bold(area, &name, (left, y), 15, INK, Align::Left)?;
            let right = (MARGIN + ROOM) as i32;
            text(area, &share_note(maps), (right, y), 14, INK, Align::Right)?;
        }
        Ok(())
    })?;
    Ok(picture)
}

fn check(columns: &[Maps]) -> Result<()> {
    let fits = |maps: &Maps| {
        let len = maps.maps * maps.height * maps.width;
        len > 0 && len == maps.values.len()
    };
    match columns.iter().find(|maps| !fits(maps)) {
        None if !columns.is_empty() => Ok(()),
        None => Err(error::data("a picture of activations needs a column")),
        Some(maps) => Err(error::data(format!(
            "{} activations are not {} maps of {}×{}",
            maps.values.len(),
            maps.maps,
            maps.height,
            maps.width
        ))),
    }
}

/// "48 maps of 55×55, 31 % of the values above 0"
fn share_note(maps: &Maps) -> String {
    let active = maps.values.iter().filter(|&&value| value > 0.0).count();
    let share = 100.0 * active as f64 / maps.values.len() as f64;
    let kind = match (maps.maps, maps.height, maps.width) {
        (units, 1, 1) => format!("{units} units"),
        (count, height, width) => format!("{count} maps of {height}×{width}"),
    };
    format!("{kind}, {share:.0} % of the values above 0")
}

/// From values to grey.
struct Scale {
    /// The size of value that reaches white (or black, if negative).
    full: f32,
    /// Whether negative values occur; grey is 0 then, else black is.
    signed: bool,
}

impl Scale {
    fn of(columns: &[Maps]) -> Self {
        let values = || {
            columns
                .iter()
                .flat_map(|maps| maps.values)
                .filter(|v| v.is_finite())
        };
        let mut sizes: Vec<f32> = values()
            .map(|value| value.abs())
            .filter(|&v| v > 0.0)
            .collect();
        // A few extreme values shall not leave all others dark.
        let rank = sizes.len().saturating_sub(1) * 995 / 1000;
        let full = if sizes.is_empty() {
            1.0
        } else {
            *sizes.select_nth_unstable_by(rank, f32::total_cmp).1
        };
        Scale {
            full,
            signed: values().any(|&value| value < 0.0),
        }
    }

    fn grey(&self, value: f32) -> u8 {
        let scaled = (value / self.full).clamp(-1.0, 1.0);
        let grey = if self.signed {
            127.5 + 127.5 * scaled
        } else {
            255.0 * scaled
        };
        grey.round() as u8
    }

    fn note(&self) -> String {
        let full = significant(self.full);
        if self.signed {
            format!("black: −{full} or less, grey: 0, white: {full} or more")
        } else {
            format!("black: 0, white: {full} or more")
        }
    }
}

/// Three significant digits.
fn significant(value: f32) -> String {
    let before = value.abs().log10().floor() as i32;
    format!("{value:.*}", (2 - before).clamp(0, 9) as usize)
}

/// Where the tiles of a block lie, in pixels.
struct Layout {
    width: usize,
    height: usize,
    gap: usize,
    per_row: usize,
    rows: usize,
}

impl Layout {
    fn new(maps: &Maps) -> Self {
        let single = maps.height * maps.width == 1;
        let (most, gap) = if single { (64, 1) } else { (16, 4) };
        let side = maps.width.max(maps.height);
        let room = ROOM / maps.maps.clamp(most / 2, most) - gap;
        // Whole pixels per value where tiles grow, so that all values look alike.
        let zoom = if room >= side {
            (room / side * side) as f64
        } else {
            room as f64
        } / side as f64;
        let size = |values: usize| ((values as f64 * zoom) as usize).max(1);
        let (width, height) = (size(maps.width), size(maps.height));
        let rows = maps.maps.div_ceil((ROOM + gap) / (width + gap));
        Layout {
            width,
            height,
            gap,
            // Rows of equal length where that is possible.
            per_row: maps.maps.div_ceil(rows),
            rows,
        }
    }

    /// Width and height of all tiles with the gaps around them.
    fn tiles(&self) -> (usize, usize) {
        (
            self.per_row * (self.width + self.gap) + self.gap,
            self.rows * (self.height + self.gap) + self.gap,
        )
    }

    /// Height of the block with its title.
    fn height(&self) -> usize {
        BLOCK_HEAD + self.rows * (self.height + self.gap) + 6
    }

    /// From the block's top left corner.
    fn place(&self, index: usize) -> (usize, usize) {
        let x = MARGIN + index % self.per_row * (self.width + self.gap);
        let y = BLOCK_HEAD + index / self.per_row * (self.height + self.gap);
        (x, y)
    }
}

fn tile(map: &[f32], maps: &Maps, scale: &Scale) -> Result<Picture> {
    let rgb = map
        .iter()
        .flat_map(|&value| [scale.grey(value); 3])
        .collect();
    Picture::from_rgb(maps.width, maps.height, rgb)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(maps: usize, side: usize, values: &[f32]) -> Maps<'_> {
        Maps {
            maps,
            height: side,
            width: side,
            values,
        }
    }

    #[test]
    fn each_map_is_a_tile_and_all_share_a_scale() {
        let strong: Vec<f32> = (0..48 * 169)
            .map(|i| if i < 169 { 4.0 } else { 0.0 })
            .collect();
        let weak = vec![1.0; 48 * 169];
        let columns = [maps(48, 13, &strong), maps(48, 13, &weak)];
        let picture = activations("conv5", &columns).unwrap();
        let layout = Layout::new(&columns[0]);
        assert_eq!((layout.width, layout.per_row, layout.rows), (39, 16, 3));
        let (x, y) = layout.place(0);
        assert_eq!(picture.pixel(x + 5, HEAD + y + 5), [255; 3]);
        let (x, y) = layout.place(1);
        assert_eq!(picture.pixel(x + 5, HEAD + y + 5), [0; 3]);
        let (x, y) = layout.place(47);
        let top = HEAD + layout.height();
        assert_eq!(picture.pixel(x + 38, top + y + 38), [64; 3]);
    }

    #[test]
    fn negative_activations_are_darker_than_grey() {
        let picture = activations("tanh", &[maps(2, 2, &[-1.0; 8])]).unwrap();
        let (x, y) = Layout::new(&maps(2, 2, &[0.0; 8])).place(1);
        assert_eq!(picture.pixel(x, HEAD + y), [0; 3]);
        let scale = Scale::of(&[maps(1, 2, &[0.0, 1.0, -1.0, f32::NAN])]);
        assert_eq!((scale.grey(0.0), scale.grey(1.0)), (128, 255));
    }

    #[test]
    fn scales_have_three_digits() {
        let texts = [381.64, 1.1402, 0.012345, 25600.0].map(significant);
        assert_eq!(texts, ["382", "1.14", "0.0123", "25600"]);
    }

    #[test]
    fn layers_of_every_size_stay_on_the_page() {
        for (count, side) in [(48, 55), (192, 13), (2048, 1), (3, 7), (1, 224), (500, 1)] {
            let values = vec![0.5; count * side * side];
            let columns = [maps(count, side, &values)];
            let picture = activations("layer", &columns).unwrap();
            let layout = Layout::new(&columns[0]);
            let (x, y) = layout.place(count - 1);
            assert!(
                HEAD + y + layout.height < picture.height(),
                "{count} maps of {side}"
            );
            let right = layout.place(layout.per_row - 1).0 + layout.width;
            assert!(
                x < right && right <= MARGIN + ROOM,
                "{count} maps of {side}"
            );
        }
        assert!(activations("none", &[]).is_err());
        assert!(activations("wrong", &[maps(2, 2, &[0.0; 7])]).is_err());
    }
}
