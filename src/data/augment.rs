//! What is drawn for each use of an image: crop, mirror, colour noise; and the views of a test.

use crate::batch::Draw;
use crate::data::Statistics;
use crate::error::{Result, usage};
use crate::nontemporal;
use crate::random::{Key, Purpose};
use serde::{Deserialize, Serialize};

/// How large the colour noise is along each principal axis of the training set's colours, with
/// α ~ N(0, `colour_noise`), λ the eigenvalues of the covariance on the 0–255 scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColourRule {
    /// α · √λ, added: the reading of the paper under which its 0.1 makes sense.
    #[default]
    Paper,
    /// The 2012 source's: α · √λ, added, and the sum divided by 1 + `colour_noise`.
    Source,
    /// α · λ, added: the paper's words taken literally.
    Literal,
}

/// What training draws for each use of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AugmentOptions {
    /// Side of the crops, in pixels.
    pub crop: usize,
    /// Mirror every second crop, by chance.
    pub flip: bool,
    /// Standard deviation of α; 0 for no colour noise.
    pub colour_noise: f32,
    pub colour_rule: ColourRule,
    /// No colour noise from this epoch on; 0: always noise.
    pub colour_noise_until: f64,
    /// So many uses in a row share one crop and mirror: 1 in the paper, 32 in the 2012 source.
    pub crop_shared: usize,
    /// Subtract the centre of the mean image whatever the crop, as the 2012 source.
    pub centre_mean: bool,
    /// Crop offsets per axis, counted from 0; 0: all, stored side − crop + 1.
    pub positions: usize,
}

impl Default for AugmentOptions {
    fn default() -> Self {
        AugmentOptions {
            crop: 224,
            flip: true,
            colour_noise: 0.1,
            colour_rule: ColourRule::default(),
            colour_noise_until: 0.0,
            crop_shared: 1,
            centre_mean: false,
            positions: 0,
        }
    }
}

impl AugmentOptions {
    /// Errors: `Usage` where a value is out of range for stored images of this side.
    pub fn check(&self, side: usize) -> Result<()> {
        check_crop(self.crop, side)?;
        let all = side - self.crop + 1;
        if self.positions > all {
            return Err(usage(format!(
                "data.positions: expected at most {all} (data.side {side} − crop {} + 1), found {}",
                self.crop, self.positions
            )));
        }
        if self.crop_shared == 0 {
            return Err(usage("data.crop_shared: expected 1 or more, found 0"));
        }
        if !(0.0..=10.0).contains(&self.colour_noise) {
            return Err(usage(format!(
                "data.colour_noise: expected 0 to 10, found {}",
                self.colour_noise
            )));
        }
        Ok(())
    }
}

/// Errors: `Usage` where crops of `crop` do not fit into stored images of `side`.
pub(crate) fn check_crop(crop: usize, side: usize) -> Result<()> {
    if crop == 0 || crop > side || side > usize::from(u16::MAX) {
        return Err(usage(format!(
            "network.image: expected a crop of 1 to {side} pixels (data.side), found {crop}"
        )));
    }
    Ok(())
}

/// A crop's place in the stored image, and what else was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    pub top: usize,
    pub left: usize,
    pub draw: Draw,
}

impl Placed {
    /// A crop without mirror or noise; its mean window is its own place.
    pub fn plain(top: usize, left: usize) -> Self {
        Placed {
            top,
            left,
            draw: Draw::plain(top as u16, left as u16),
        }
    }

    /// Copies the crop out of a stored image, both `[row][column][colour]`; past the caches, which a batch of crops
    /// would fill long before a device reads it.
    pub fn copy(&self, stored: &[u8], side: usize, crop: usize, into: &mut [u8]) {
        let rows = stored.chunks_exact(side * 3).skip(self.top);
        nontemporal::writing(|writer| {
            for (target, row) in into.chunks_exact_mut(crop * 3).zip(rows) {
                writer.copy(&row[self.left * 3..(self.left + crop) * 3], target);
            }
        });
    }
}

/// Draws for training; a pure function of seed, epoch and position in the epoch.
pub struct Augmenter {
    options: AugmentOptions,
    side: usize,
    crops: Key,
    colours: Key,
    /// Principal axes, each multiplied by the size its α has under the rule.
    axes: [[f32; 3]; 3],
    gain: f32,
}

impl Augmenter {
    /// Errors: `Usage` as [`AugmentOptions::check`].
    pub fn new(options: &AugmentOptions, statistics: &Statistics, seed: u64) -> Result<Self> {
        options.check(statistics.side)?;
        let size = |k: usize| {
            let eigenvalue = statistics.eigenvalues[k].max(0.0);
            options.colour_noise
                * match options.colour_rule {
                    ColourRule::Literal => eigenvalue,
                    ColourRule::Paper | ColourRule::Source => eigenvalue.sqrt(),
                }
        };
        let axis = |k: usize| statistics.eigenvectors[k].map(|x| x * size(k));
        Ok(Augmenter {
            options: options.clone(),
            side: statistics.side,
            crops: Key::new(seed, Purpose::Crop),
            colours: Key::new(seed, Purpose::Colour),
            axes: [axis(0), axis(1), axis(2)],
            gain: match options.colour_rule {
                ColourRule::Source => 1.0 / (1.0 + options.colour_noise),
                _ => 1.0,
            },
        })
    }

    /// What the use at `position` of `epoch` draws.
    pub fn draw(&self, epoch: u32, position: u64) -> Placed {
        let options = &self.options;
        let room = self.side - options.crop;
        let positions = match options.positions {
            0 => room as u32 + 1,
            n => n as u32,
        };
        let shared = position / options.crop_shared as u64;
        let mut stream = self.crops.stream(epoch, shared);
        let (top, left) = (stream.below(positions), stream.below(positions));
        let mut placed = Placed::plain(top as usize, left as usize);
        if options.centre_mean {
            (placed.draw.top, placed.draw.left) = ((room / 2) as u16, (room / 2) as u16);
        }
        placed.draw.mirror = options.flip && stream.word() >> 31 == 1;
        let until = options.colour_noise_until;
        if options.colour_noise > 0.0 && (until <= 0.0 || f64::from(epoch) < until) {
            placed.draw.shift = self.colour(epoch, position);
            placed.draw.gain = self.gain;
        }
        placed
    }

    fn colour(&self, epoch: u32, position: u64) -> [f32; 3] {
        let mut stream = self.colours.stream(epoch, position);
        let mut shift = [0.0; 3];
        for axis in &self.axes {
            let alpha = stream.normal();
            for (sum, x) in shift.iter_mut().zip(axis) {
                *sum += alpha * x;
            }
        }
        shift
    }
}

/// The crops of a test: 1, the centre; or the paper's 10, the four corners and the centre, then
/// the mirror images of these five in the same order.
///
/// Errors: `Usage` for another number, or a crop larger than the stored image.
pub fn views(count: usize, side: usize, crop: usize, centre_mean: bool) -> Result<Vec<Placed>> {
    check_crop(crop, side)?;
    let room = side - crop;
    let centre = (room / 2, room / 2);
    let places = match count {
        1 => vec![centre],
        10 => vec![(0, 0), (0, room), (room, 0), (room, room), centre],
        _ => return Err(usage(format!("views: expected 1 or 10, found {count}"))),
    };
    let mut views: Vec<Placed> = places
        .into_iter()
        .map(|(top, left)| Placed::plain(top, left))
        .collect();
    if count == 10 {
        views.extend_from_within(..);
        views[5..].iter_mut().for_each(|v| v.draw.mirror = true);
    }
    if centre_mean {
        for view in &mut views {
            (view.draw.top, view.draw.left) = (centre.0 as u16, centre.1 as u16);
        }
    }
    Ok(views)
}
