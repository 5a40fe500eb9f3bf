//! The built-in data set: ten classes of coloured gratings on cluttered backgrounds, computed
//! pixel by pixel from (seed, index).
//!
//! A class is one of five tilts and one of two colour pairs. Stripes tilted to the left and to the
//! right by the same angle are one class, so mirroring an image keeps its class. The place, phase,
//! wavelength, size and contrast of the stripes vary, and so do the blurred background, the shapes
//! and a grey grating behind them, and the noise: neither mean colour nor any single pixel tells
//! the class; an oriented, colour-opponent filter does.

mod pattern;

use crate::data::{Dataset, ReadOutcome, Skipped, Source};
use crate::error::{Result, usage};
use crate::random::{Key, Purpose};
use std::sync::Arc;

/// Tilt of the stripes from the vertical, in degrees.
const TILTS: [f32; 5] = [0.0, 22.5, 45.0, 67.5, 90.0];

/// Names of the colour pairs and the direction from the one to the other colour. Each sums to 0,
/// so that brightness says nothing, and both have the same length.
const PAIRS: [(&str, [f32; 3]); 2] = [
    ("red-green", [1.0, -1.0, 0.0]),
    ("blue-yellow", [-0.577, -0.577, 1.155]),
];

/// Sizes of the set unless others are asked for.
pub const TRAIN_IMAGES: usize = 8_000;
/// See [`TRAIN_IMAGES`].
pub const VAL_IMAGES: usize = 1_000;

/// The smallest side on which the stripes can be told apart.
const SMALLEST_SIDE: usize = 16;

/// One half of the built-in set. Image `i` has class `i mod 10`.
pub struct Builtin {
    key: Key,
    side: usize,
    len: usize,
    classes: Vec<String>,
    skipped: Skipped,
}

impl Builtin {
    /// Errors: `Usage` for a side below 16 pixels or an empty set.
    pub fn new(seed: u64, purpose: Purpose, side: usize, len: usize) -> Result<Self> {
        if side < SMALLEST_SIDE || len == 0 {
            return Err(usage(format!(
                "built-in data: expected data.side of at least {SMALLEST_SIDE} and at least one \
                 image, found side {side} and {len} images"
            )));
        }
        let name = |i: usize| format!("{}-{:02}", PAIRS[i / 5].0, TILTS[i % 5]);
        Ok(Builtin {
            key: Key::new(seed, purpose),
            side,
            len,
            classes: (0..10).map(name).collect(),
            skipped: Skipped::default(),
        })
    }
}

/// The built-in training and validation sets, of images of `side` pixels; they share no draw.
///
/// Errors: `Usage` as [`Builtin::new`].
pub fn dataset(seed: u64, side: usize, train: usize, val: usize) -> Result<Dataset> {
    Ok(Dataset {
        train: Arc::new(Builtin::new(seed, Purpose::BuiltinTrain, side, train)?),
        val: Some(Arc::new(Builtin::new(
            seed,
            Purpose::BuiltinVal,
            side,
            val,
        )?)),
        statistics: None,
    })
}

impl Source for Builtin {
    fn len(&self) -> usize {
        self.len
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, image: usize) -> u32 {
        (image % 10) as u32
    }

    fn name(&self, image: usize) -> String {
        format!("{}/{image}", self.classes[image % 10])
    }

    fn side(&self) -> usize {
        self.side
    }

    fn read(&self, image: usize, into: &mut [u8]) -> Result<ReadOutcome> {
        let class = image % 10;
        let mut stream = self.key.stream(0, image as u64);
        let colour = PAIRS[class / 5].1;
        pattern::paint(&mut stream, TILTS[class % 5], colour, self.side, into);
        Ok(ReadOutcome::Image)
    }

    fn skipped(&self) -> &Skipped {
        &self.skipped
    }
}
