//! The operations of the network and their geometry. Devices know these and nothing else of it.
//!
//! Every operation works on a batch of images in one layout: images outermost, maps innermost
//! (`[image][row][column][map]`, "NHWC"). A layer that reads both columns gets its input as
//! *parts*, one buffer per column, its own column's first; its weights are one matrix per part.

use std::fmt;

/// Extent of one image in one column: maps × height × width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub maps: usize,
    pub height: usize,
    pub width: usize,
}

impl Shape {
    pub const fn new(maps: usize, height: usize, width: usize) -> Self {
        Shape {
            maps,
            height,
            width,
        }
    }

    /// A vector of units, as between fully connected layers.
    pub const fn flat(units: usize) -> Self {
        Shape::new(units, 1, 1)
    }

    /// Elements of one image.
    pub const fn len(self) -> usize {
        self.maps * self.height * self.width
    }

    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Pixels of one map.
    pub const fn pixels(self) -> usize {
        self.height * self.width
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pixels() == 1 {
            write!(f, "{}", self.maps)
        } else {
            write!(f, "{}×{}×{}", self.maps, self.height, self.width)
        }
    }
}

/// A square sliding window: size, stride and symmetric padding, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    pub size: usize,
    pub stride: usize,
    pub pad: usize,
}

impl Window {
    pub const fn new(size: usize, stride: usize, pad: usize) -> Self {
        Window { size, stride, pad }
    }

    /// Positions along an edge of `input` pixels, by the ceiling rule of the 2012 source:
    /// `1 + ceil((input + 2·pad − size) / stride)`. The last window may overhang the right or
    /// bottom edge; a convolution reads zeros there, a pool only what is inside.
    pub const fn positions(self, input: usize) -> usize {
        let padded = input + 2 * self.pad;
        if padded <= self.size {
            1
        } else {
            1 + (padded - self.size).div_ceil(self.stride)
        }
    }

    /// Output of `maps` maps for an input of shape `input`.
    pub const fn output(self, input: Shape, maps: usize) -> Shape {
        Shape::new(
            maps,
            self.positions(input.height),
            self.positions(input.width),
        )
    }
}

/// The non-linearity of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    Relu,
    Tanh,
}

/// Convolution with bias, and the activation that directly follows it, of one column.
///
/// Weights: per part a matrix of `depth()` rows × `output.maps` columns, rows in the order
/// (kernel row, kernel column, input map).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv {
    /// Shape of one part of the input.
    pub input: Shape,
    /// Parts of the input: 1 where the layer reads its own maps, 2 where it reads all.
    pub parts: usize,
    pub output: Shape,
    pub window: Window,
    pub activation: Option<Activation>,
}

impl Conv {
    /// Rows of one part's weight matrix: size² · input maps.
    pub const fn depth(&self) -> usize {
        self.window.size * self.window.size * self.input.maps
    }

    /// Multiply-adds of one image, forward, all parts.
    pub const fn multiply_adds(&self) -> usize {
        self.parts * self.depth() * self.output.len()
    }
}

/// Fully connected layer with bias, and the activation that directly follows it, of one column.
///
/// Weights: per part a matrix of `input.len()` rows × `outputs` columns, rows in the order of
/// the input's layout (row, column, map).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Linear {
    /// Shape of one part of the input.
    pub input: Shape,
    pub parts: usize,
    pub outputs: usize,
    pub activation: Option<Activation>,
}

impl Linear {
    /// Rows of one part's weight matrix.
    pub const fn depth(&self) -> usize {
        self.input.len()
    }

    /// Multiply-adds of one image, forward, all parts.
    pub const fn multiply_adds(&self) -> usize {
        self.parts * self.depth() * self.outputs
    }
}

/// Local response normalisation over neighbouring maps (paper §3.3):
/// `b_i = a_i / (k + alpha · Σ a_j²)^beta`, the sum over the `size` maps around `i`, that is
/// `i − size/2 ..= i + (size − 1)/2`, clipped to the maps it may see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lrn {
    /// Shape of one part; the output has this shape.
    pub shape: Shape,
    /// 1: the sum sees this column's maps only. 2: it sees all maps, column 0's first.
    pub parts: usize,
    /// This column's place among all maps; the input parts still come own column first.
    pub column: usize,
    pub size: usize,
    pub k: f32,
    /// Factor of the plain sum of squares (already divided by `size` where the preset says so).
    pub alpha: f32,
    pub beta: f32,
}

impl Lrn {
    /// Whether normalisation over `size` maps and max pooling in windows of `pool` × `pool` pixels are done in one pass:
    /// what a warp and the shared memory of a GPU have room for.
    pub const fn fuses(size: usize, pool: usize) -> bool {
        size <= 16 && pool <= 15
    }
}

/// Response normalisation within each map over a `size` × `size` square of pixels, clipped to
/// the map (the 2012 source's `rnorm` after conv2's LRN): `b = a / (k + alpha · Σ a²)^beta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalNorm {
    pub shape: Shape,
    pub size: usize,
    pub k: f32,
    pub alpha: f32,
    pub beta: f32,
}

/// Max pooling, overlapping where the window's size exceeds its stride (paper §3.4).
/// The gradient goes to the first maximum of a window in row-major order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    pub input: Shape,
    pub output: Shape,
    pub window: Window,
    /// The activation whose output the input is, where going back includes its derivative.
    pub activated: Option<Activation>,
}

/// Dropout of a fully connected layer's outputs (paper §4.2). A unit is dropped when its random
/// word (see [`crate::random`]) is below `rate`·2³².
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Units of this column, the first one's number among all units, and all units.
    pub units: usize,
    pub first_unit: usize,
    pub all_units: usize,
    pub rate: f32,
    /// False (the paper): kept outputs pass unchanged in training, all are multiplied by
    /// `1 − rate` at test time. True (Caffe): divided by `1 − rate` in training.
    pub rescale: bool,
}

impl Dropout {
    /// Factor of the kept outputs in training.
    pub fn training_scale(&self) -> f32 {
        if self.rescale {
            1.0 / (1.0 - self.rate)
        } else {
            1.0
        }
    }

    /// Factor of all outputs at test time.
    pub fn test_scale(&self) -> f32 {
        if self.rescale { 1.0 } else { 1.0 - self.rate }
    }

    /// A random word at or above this keeps its unit.
    pub fn threshold(&self) -> u32 {
        (f64::from(self.rate) * 4_294_967_296.0) as u32
    }
}

/// The constants of one parameter's update (paper §5), learning rate inside the momentum:
/// `v ← momentum·v − decay·rate·w − rate·∂L/∂w; w ← w + v`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sgd {
    pub rate: f32,
    pub momentum: f32,
    pub decay: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spatial_sizes_are_the_papers() {
        let conv1 = Window::new(11, 4, 0);
        let pool = Window::new(3, 2, 0);
        let sizes = [
            conv1.positions(224),
            pool.positions(55),
            pool.positions(27),
            pool.positions(13),
        ];
        assert_eq!(sizes, [55, 27, 13, 6]);
        assert_eq!(Window::new(5, 1, 2).positions(27), 27);
        assert_eq!(Window::new(3, 1, 1).positions(13), 13);
    }

    #[test]
    fn a_window_larger_than_its_input_has_one_position() {
        assert_eq!(Window::new(3, 2, 0).positions(1), 1);
    }
}
