//! How numbers are stored and multiplied on a device.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Sums are f32, and so are the weights that are updated, their momentum and the loss; what
/// differs is how maps, their gradients and the operands of products are held.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Precision {
    /// f32 throughout; the only one on the CPU
    #[default]
    F32,
    /// f32 in memory, products of operands rounded to 10 bits of mantissa, on tensor cores
    Tf32,
    /// bfloat16 in memory and in products: 7 bits of mantissa, the range of f32
    Bf16,
    /// Half precision in memory and in products: 10 bits of mantissa; the loss is scaled
    F16,
}

impl Precision {
    pub const ALL: [Precision; 4] = [Self::F32, Self::Tf32, Self::Bf16, Self::F16];

    /// As configurations and flags name it.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        }
    }

    /// Bytes of one element of a map or its gradient in memory and in messages.
    pub const fn map_bytes(self) -> usize {
        match self {
            Precision::F32 | Precision::Tf32 => 4,
            Precision::Bf16 | Precision::F16 => 2,
        }
    }

    /// Whether the loss is scaled so that small gradients do not vanish.
    pub const fn scales_loss(self) -> bool {
        matches!(self, Precision::F16)
    }

    /// A number as maps hold it.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Precision::F32 | Precision::Tf32 => value,
            Precision::Bf16 => bf16::from_f32(value).to_f32(),
            Precision::F16 => f16::from_f32(value).to_f32(),
        }
    }

    /// The largest relative error of rounding an operand of a product: half a unit in the last
    /// place.
    pub const fn rounding(self) -> f64 {
        match self {
            Precision::F32 => 1.0 / (1u64 << 24) as f64,
            Precision::Tf32 | Precision::F16 => 1.0 / (1u64 << 11) as f64,
            Precision::Bf16 => 1.0 / (1u64 << 8) as f64,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
