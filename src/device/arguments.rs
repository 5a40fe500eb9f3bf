//! What operations take beside buffers, and what devices answer.

use crate::network::op::{Activation, Dropout, Sgd};
use crate::precision::Precision;
use crate::random::Key;

/// Where a fully connected layer's weight gradient goes.
pub enum Sink<'a, B> {
    /// Into a buffer: replaced, or added to what is there.
    Gradient { into: &'a mut B, accumulate: bool },
    /// Straight into the update, so that the gradient never goes through memory.
    Update {
        weights: &'a mut B,
        momentum: &'a mut B,
        sgd: Sgd,
    },
}

/// Where the gradients of a convolution's parameters go: they replace what is there, or are added to it.
pub struct ConvGradients<'a, B> {
    pub weights: &'a mut B,
    /// Of the bias, `outputs` sums over images and pixels, with those of one part's weights.
    pub bias: Option<&'a mut B>,
    pub accumulate: bool,
}

/// What an activation gave, and with it the activation's derivative.
pub struct Activated<'a, B> {
    pub activation: Activation,
    pub y: &'a B,
}

/// Where a dropout mask comes from.
pub enum Mask<'a, B> {
    /// Unit u of image i is dropped where `key.word(i·all_units + u, lane, step)` is below the
    /// operation's threshold; i counts from `first_image` within the step's whole batch.
    Counter {
        key: Key,
        lane: u32,
        step: u64,
        first_image: usize,
    },
    /// As `Counter`, `step` read from two words of device memory, the lower first, when the
    /// operation runs.
    Later {
        key: Key,
        lane: u32,
        step: &'a B,
        first_image: usize,
    },
    /// Given, one per image and unit of this column, 0 dropped, 1 kept.
    Given(&'a B),
}

impl<B: std::ops::Deref<Target = [f32]>> Mask<'_, B> {
    /// This mask, a step that is to be read later read now, where memory is the host's.
    pub fn now(&self) -> Mask<'_, B> {
        match *self {
            Mask::Counter {
                key,
                lane,
                step,
                first_image,
            } => Mask::Counter {
                key,
                lane,
                step,
                first_image,
            },
            Mask::Later {
                key,
                lane,
                step,
                first_image,
            } => Mask::Counter {
                key,
                lane,
                step: u64::from(step[0].to_bits()) | u64::from(step[1].to_bits()) << 32,
                first_image,
            },
            Mask::Given(mask) => Mask::Given(mask),
        }
    }
}

/// Dropout of the outputs of the operation that it is given to.
pub struct Dropped<'a, B> {
    pub op: &'a Dropout,
    pub mask: Mask<'a, B>,
}

/// Where the constants of an update come from.
pub enum Rule<'a, B> {
    Now(&'a Sgd),
    /// Read from a table in device memory when the update runs: rate, momentum, decay of number
    /// `place`.
    Later {
        table: &'a B,
        place: usize,
    },
}

/// One array of parameters to be updated, and by what.
pub struct Update<'a, B> {
    pub rule: Rule<'a, B>,
    pub elements: usize,
    pub weights: &'a mut B,
    pub momentum: &'a mut B,
    /// ∂L/∂w.
    pub gradient: &'a B,
}

/// Sums over the images of one or more batches, as the loss operation adds them up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Sum of −ln p(label), natural logarithm.
    pub loss: f64,
    /// Images whose label is not the most probable class, nor among the five most probable.
    pub top1_errors: u64,
    pub top5_errors: u64,
}

/// What a device can do at most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// f32 operations a second, a fused multiply-add counting two.
    pub flops: f64,
    /// Bytes a second from and to its memory.
    pub bandwidth: f64,
    /// The same of products in 16 bits and in TF32 on tensor cores, 0 where there are none.
    pub tensor_flops: [f64; 2],
    /// Measured just now; else computed from the clocks the device states.
    pub measured: bool,
}

impl Peak {
    /// Operations a second of products in a precision.
    pub fn flops_in(&self, precision: Precision) -> f64 {
        let [short, tf32] = self.tensor_flops;
        let tensor = match precision {
            Precision::F32 => 0.0,
            Precision::Tf32 => tf32,
            Precision::Bf16 | Precision::F16 => short,
        };
        if tensor > 0.0 { tensor } else { self.flops }
    }
}

/// How messages travel between two devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// From device to device; else through the host.
    pub direct: bool,
    /// Why not, if not.
    pub reason: Option<String>,
    /// Whether direct copies were found to deliver wrong bytes.
    pub corrupt: bool,
    /// Bytes a second from the first device to the second, and back.
    pub bandwidth: [f64; 2],
}
