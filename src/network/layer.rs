//! The table of layers as a preset writes it: the network before it is split into steps.

use super::op::Activation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The `[network]` table: what holds for all layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// 1, or 2 as in the paper.
    pub columns: usize,
    /// Scales every hidden size: `max(2, 2·round(size·width / 2))`.
    pub width: f64,
    /// Side of the square crop the network sees, in pixels.
    pub image: usize,
    pub classes: usize,
    pub init: Init,
    pub activation: Activation,
    pub lrn: LrnRule,
    pub local_norm: LocalNormRule,
    pub pool: PoolRule,
    pub dropout: DropoutRule,
}

/// How the layers' standard deviations are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Init {
    /// σ as the table says.
    #[serde(rename = "paper")]
    Paper,
    /// σ · sqrt(fan-in at width 1 and image 224 / own fan-in).
    #[serde(rename = "fan-in")]
    FanIn,
}

/// Constants of [`super::op::Lrn`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LrnRule {
    pub k: f32,
    pub n: usize,
    pub alpha: f32,
    pub beta: f32,
    /// Whether α is divided by n before it multiplies the sum.
    pub divide_by_n: bool,
    pub scope: LrnScope,
}

/// The maps a normalisation may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LrnScope {
    Column,
    All,
}

/// Constants of [`super::op::LocalNorm`]; `alpha` multiplies the plain sum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalNormRule {
    pub size: usize,
    pub k: f32,
    pub alpha: f32,
    pub beta: f32,
}

/// The pooling window; overlapping where `size > stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRule {
    pub size: usize,
    pub stride: usize,
}

/// See [`super::op::Dropout`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropoutRule {
    pub rate: f32,
    pub rescale: bool,
}

/// What a layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reads {
    Image,
    /// The maps of its own column.
    Own,
    /// The maps of all columns: an exchange comes before it.
    All,
}

/// Which columns compute a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    Each,
    First,
}

/// What follows a layer's weighted sum, in the order listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    Activation,
    Lrn,
    LocalNorm,
    Pool,
    Dropout,
}

/// One `[layers.NAME]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Maps (units) over all columns at width 1; 0 in the last layer: one a class.
    pub maps: usize,
    /// Kernel side, stride and padding in pixels; absent in fully connected layers.
    #[serde(default)]
    pub kernel: usize,
    #[serde(default)]
    pub stride: usize,
    #[serde(default)]
    pub pad: usize,
    pub reads: Reads,
    pub on: On,
    pub then: Vec<Then>,
    /// Standard deviation of the initial weights, and the initial bias.
    pub sigma: f64,
    pub bias: f32,
    /// Factors of the learning rate and of the weight decay.
    pub rate: f64,
    pub bias_rate: f64,
    pub decay: f64,
    pub bias_decay: f64,
    /// Factors that replace 1 from an epoch on: `[epoch, factor]`, epochs ascending.
    pub rate_from: Vec<(f64, f64)>,
    pub bias_rate_from: Vec<(f64, f64)>,
}

impl Layer {
    pub fn is_convolution(&self) -> bool {
        self.kernel > 0
    }
}

/// The layers by name; names sort in the order of computation (conv1 … conv5, fc6 … fc8).
pub type Layers = BTreeMap<String, Layer>;

impl Network {
    /// A hidden size of `maps` at this width, even so that two columns can share it.
    pub fn scaled(&self, maps: usize) -> usize {
        (2 * (maps as f64 * self.width / 2.0).round() as usize).max(2)
    }

    /// LRN's factor of the plain sum of squares.
    pub fn lrn_alpha(&self) -> f32 {
        if self.lrn.divide_by_n {
            self.lrn.alpha / self.lrn.n as f32
        } else {
            self.lrn.alpha
        }
    }
}
