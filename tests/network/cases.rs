//! Small networks of every kind, with parameters and batches drawn for them.

use crate::layers::Maps;
use alexnet_mp::config::Config;
use alexnet_mp::network::op::{Activation, Shape};
use alexnet_mp::network::params::Tensors;
use alexnet_mp::network::plan::{Stage, Step};
use alexnet_mp::random::{Key, Purpose};

/// A network, its parameters and its batches.
pub struct Case {
    pub name: String,
    pub config: Config,
    pub parameters: Tensors,
    /// Images of a batch.
    pub images: usize,
}

/// Largest absolute value of the images' pixels.
const PIXEL: f32 = 40.0;

/// The same for tanh: larger pixels saturate conv1, and where all of a pool's window is within
/// rounding of ±1, f32 can tell neither its maximum nor `1 − y²`.
const TANH_PIXEL: f32 = 1.0;

/// Sides at which windows overhang: conv1 88 → 21 (20.25 rounded up), pool 10, pool 5 (4.5
/// rounded up), pool 2.
const SMALL: &[&str] = &[
    "network.width=0.1",
    "network.image=88",
    "network.classes=7",
    "train.learning_rate=0.001",
];

/// Smaller still, for the virtual GPU.
pub const TINY: &[&str] = &[
    "network.width=0.04",
    "network.image=64",
    "network.classes=5",
    "train.learning_rate=0.001",
];

impl Case {
    /// A preset at a small size with further overrides. Weights are uniform, of a size that
    /// keeps signals from layer to layer; biases are not all alike.
    pub fn new(preset: &str, size: &[&str], more: &[&str], images: usize) -> Self {
        let overrides: Vec<String> = size.iter().chain(more).map(ToString::to_string).collect();
        let mut config = Config::load(preset, &overrides).unwrap();
        config.train.batch = images;
        let plan = config.plan().unwrap();
        let mut parameters = Tensors::zeros(&plan.params);
        for (i, tensor) in parameters.0.iter_mut().enumerate() {
            let fan_in: usize = tensor.shape[1..].iter().product();
            let last = tensor.name.starts_with("fc8");
            let size = match tensor.shape.len() {
                1 => 0.5,
                _ if last => 0.2 / (fan_in as f32).sqrt(),
                _ => (6.0 / fan_in as f32).sqrt(),
            };
            tensor.values = uniform(i as u32, tensor.values.len(), size);
        }
        Case {
            name: format!("{preset} {more:?}"),
            config,
            parameters,
            images,
        }
    }

    pub fn small(preset: &str, more: &[&str]) -> Self {
        Case::new(preset, SMALL, more, 6)
    }

    pub fn tiny(preset: &str, more: &[&str]) -> Self {
        Case::new(preset, TINY, more, 2)
    }

    /// The images and labels of step `step`, `[images, 3, side, side]`.
    pub fn batch(&self, step: u32) -> (Vec<f32>, Vec<u32>) {
        let side = self.config.network.image;
        let size = match self.config.network.activation {
            Activation::Relu => PIXEL,
            Activation::Tanh => TANH_PIXEL,
        };
        let pixels = uniform(100 + step, self.images * 3 * side * side, size);
        let mut stream = Key::new(2, Purpose::Verify).stream(200 + step, 0);
        let classes = self.config.network.classes as u32;
        (
            pixels,
            (0..self.images).map(|_| stream.below(classes)).collect(),
        )
    }

    /// Images as the reference takes them.
    pub fn maps(&self, pixels: &[f32]) -> Maps {
        let values = pixels.iter().map(|&v| f64::from(v)).collect();
        Maps::new(self.images, 3, self.config.network.image, values)
    }

    /// The masks that the counter-based streams of update `step` draw, by their definition: unit
    /// u of image i is dropped where word i·units + u of lane `layer`, index `step` is below
    /// rate·2³². Units are counted column by column, in a column pixel by pixel.
    pub fn masks(&self, step: u64) -> Vec<Vec<f32>> {
        let key = Key::new(self.config.train.seed, Purpose::Dropout);
        let threshold = f64::from(self.config.network.dropout.rate) * 2f64.powi(32);
        let mask = |(lane, (shape, columns)): (usize, (Shape, usize))| {
            (0..self.images * columns * shape.len())
                .map(|i| key.word(i as u32, lane as u32, step))
                .map(|word| f32::from(u8::from(f64::from(word) >= threshold)))
                .collect()
        };
        self.dropped().into_iter().enumerate().map(mask).collect()
    }

    /// The same with every image's units map by map, as the reference has its values.
    pub fn masks_by_map(&self, step: u64) -> Vec<Vec<f32>> {
        let by_map = |(mask, (shape, _)): (Vec<f32>, (Shape, usize))| {
            let of_column = |units: &[f32]| -> Vec<f32> {
                let of_map = |map| units.iter().skip(map).step_by(shape.maps).copied();
                (0..shape.maps).flat_map(of_map).collect()
            };
            mask.chunks(shape.len()).flat_map(of_column).collect()
        };
        let masks = self.masks(step).into_iter();
        masks.zip(self.dropped()).map(by_map).collect()
    }

    /// Shape of one column's maps, and columns, of every dropout layer.
    fn dropped(&self) -> Vec<(Shape, usize)> {
        let plan = self.config.plan().unwrap();
        let of_stage = |stage: &Stage| match stage {
            Stage::Compute { steps, .. } if matches!(steps[0], Step::Dropout { .. }) => {
                Some((plan.slots[steps[0].output()].shape, steps.len()))
            }
            _ => None,
        };
        plan.stages.iter().filter_map(of_stage).collect()
    }
}

/// Numbers in ±size, the same for the same `stream`.
fn uniform(stream: u32, elements: usize, size: f32) -> Vec<f32> {
    let mut stream = Key::new(1, Purpose::Verify).stream(stream, 0);
    (0..elements).map(|_| stream.between(-size, size)).collect()
}
