//! From the table of layers to the ordered steps of every column, exchanges among them explicit.
//!
//! There is one kind of exchange. Forward, a layer that reads all columns gets the other column's
//! maps; backward, the same exchange returns their gradients, which are added. A plan is derived
//! without any device and does no I/O.

mod derive;
mod follow;

use super::layer::{Init, Layers, Network};
use super::op::{Activation, Conv, Dropout, Linear, LocalNorm, Lrn, Pool, Shape};
use super::params::Param;
use crate::error::{Result, usage};
use crate::precision::Precision;
use derive::Builder;

/// Bytes of the message by which a column tells the other whether its gradients are finite.
const LOSS_SCALE_BYTES: usize = 16;

/// Index into [`Plan::slots`].
pub type SlotId = usize;
/// Index into [`Plan::params`].
pub type ParamId = usize;

/// One tensor of maps per column, with room for the plan's batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// "conv1", "conv1.pool": the layer and what made it.
    pub name: String,
    /// One image of one column.
    pub shape: Shape,
    /// Columns that hold it: 0..columns.
    pub columns: usize,
    /// Which of the two alternating gradient buffers holds its gradient.
    pub gradient: usize,
    /// Whether that is the gradient before the activation already: what comes next, a pool, a convolution or dropout,
    /// includes the derivative.
    pub sloped: bool,
}

/// What one column computes in one step. `x` and `y` are slots; parameters are read from the
/// column's own share.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// `before`: the activation that `x` is the output of, where going back includes its derivative.
    Conv {
        op: Conv,
        param: ParamId,
        x: SlotId,
        y: SlotId,
        before: Option<Activation>,
    },
    /// `dropped`: the dropout that follows and its lane, which training includes in the forward pass.
    Linear {
        op: Linear,
        param: ParamId,
        x: SlotId,
        y: SlotId,
        dropped: Option<(Dropout, u32)>,
    },
    Activation {
        activation: Activation,
        y: SlotId,
    },
    Lrn {
        op: Lrn,
        x: SlotId,
        y: SlotId,
    },
    LocalNorm {
        op: LocalNorm,
        x: SlotId,
        y: SlotId,
    },
    Pool {
        op: Pool,
        x: SlotId,
        y: SlotId,
    },
    LrnPool {
        lrn: Lrn,
        pool: Pool,
        x: SlotId,
        y: SlotId,
    },
    /// The same values in a slot of their own, for an operation in place: going back, `x` is needed as it was.
    Copy {
        x: SlotId,
        y: SlotId,
    },
    /// `lane` tells the dropout layers' random streams apart; `before` as in `Conv`, of `y` before dropout; `included`:
    /// in the forward pass the step before does it in training.
    Dropout {
        op: Dropout,
        lane: u32,
        y: SlotId,
        before: Option<Activation>,
        included: bool,
    },
}

impl Step {
    /// The slot it writes.
    pub fn output(&self) -> SlotId {
        match *self {
            Step::Conv { y, .. }
            | Step::Linear { y, .. }
            | Step::Activation { y, .. }
            | Step::Lrn { y, .. }
            | Step::LocalNorm { y, .. }
            | Step::Pool { y, .. }
            | Step::LrnPool { y, .. }
            | Step::Copy { y, .. }
            | Step::Dropout { y, .. } => y,
        }
    }

    /// Parts of its input: columns whose maps it reads.
    pub fn parts(&self) -> usize {
        match self {
            Step::Conv { op, .. } => op.parts,
            Step::Linear { op, .. } => op.parts,
            Step::Lrn { op, .. } => op.parts,
            _ => 1,
        }
    }

    /// The activation of its output: fused into a weighted sum, or the step itself.
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Step::Conv { op, .. } => op.activation,
            Step::Linear { op, .. } => op.activation,
            Step::Activation { activation, .. } => Some(*activation),
            _ => None,
        }
    }

    /// Whether going back it reads what it wrote.
    pub fn reads_output_back(&self) -> bool {
        match self {
            Step::Pool { .. } | Step::LrnPool { .. } => true,
            Step::Dropout { before, .. } => before.is_some(),
            _ => self.activation().is_some(),
        }
    }
}

/// A stage of the plan, walked forward and then backward.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Columns 0..readers get `slot` of every other column; backward, its gradient goes back.
    Exchange { slot: SlotId, readers: usize },
    /// One step per column, columns 0..steps.len().
    Compute { layer: String, steps: Vec<Step> },
}

/// A network made ready for a batch size: what a device needs to know, and nothing of devices.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub columns: usize,
    /// Images of one step, at most.
    pub batch: usize,
    /// Side of the input crop, in pixels.
    pub image: usize,
    pub classes: usize,
    /// What maps are held in.
    pub precision: Precision,
    pub params: Vec<Param>,
    pub slots: Vec<Slot>,
    pub stages: Vec<Stage>,
    /// The slot of the input images, and of the logits (column 0).
    pub input: SlotId,
    pub logits: SlotId,
}

impl Plan {
    /// Derives the plan of a network for batches of `batch` images.
    ///
    /// # Errors
    /// `Usage` where the table does not fit together (a layer that reads the image in the middle,
    /// a pool of stride above its size, …).
    pub fn derive(network: &Network, layers: &Layers, batch: usize) -> Result<Plan> {
        let mut plan = Builder::new(network, batch).build(layers)?;
        if network.init == Init::FanIn {
            let full = Network {
                width: 1.0,
                image: 224,
                init: Init::Paper,
                ..network.clone()
            };
            let reference = Builder::new(&full, batch).build(layers)?;
            for (own, at_width_1) in plan.params.iter_mut().zip(&reference.params) {
                own.sigma *= (at_width_1.fan_in() as f64 / own.fan_in() as f64).sqrt();
            }
        }
        Ok(plan)
    }

    /// Weights and biases of the whole network.
    pub fn parameters(&self) -> usize {
        self.params.iter().map(Param::elements).sum()
    }

    /// The exchanged slots with the messages of each: `(slot, readers · other columns)`.
    pub fn exchanges(&self) -> impl Iterator<Item = (&Slot, usize)> {
        self.stages.iter().filter_map(|stage| match *stage {
            Stage::Exchange { slot, readers } => {
                Some((&self.slots[slot], readers * (self.columns - 1)))
            }
            Stage::Compute { .. } => None,
        })
    }

    /// Bytes that cross between the columns in the forward pass of `images`, and again backward.
    pub fn exchanged_bytes(&self, images: usize) -> usize {
        self.exchanges()
            .map(|(slot, messages)| {
                slot.shape.len() * messages * images * self.precision.map_bytes()
            })
            .sum()
    }

    /// Bytes that cross between the columns at an update, beside maps: the loss scale's state.
    pub fn exchanged_bytes_per_update(&self) -> usize {
        if self.precision.scales_loss() {
            self.columns * (self.columns - 1) * LOSS_SCALE_BYTES
        } else {
            0
        }
    }

    /// This plan in another precision.
    ///
    /// # Errors
    /// `Usage` where something follows the last layer's weighted sum: the loss is f32, and nothing
    /// but a plain fully connected layer makes f32 from 16 bits.
    pub fn in_precision(self, precision: Precision) -> Result<Plan> {
        let last = self.stages.iter().rev().find_map(|stage| match stage {
            Stage::Compute { layer, steps } => Some((layer, steps)),
            Stage::Exchange { .. } => None,
        });
        if precision.map_bytes() < 4
            && let Some((layer, steps)) = last
            && !steps
                .iter()
                .all(|s| matches!(s, Step::Linear { op, .. } if op.activation.is_none()))
        {
            return Err(usage(format!(
                "train.precision = {precision}: the last layer, {layer}, must be fully connected, with nothing after it"
            )));
        }
        Ok(Plan { precision, ..self })
    }

    /// Multiply-adds of one image, forward, all columns.
    pub fn multiply_adds(&self) -> usize {
        self.params.iter().map(Param::multiply_adds).sum()
    }

    /// Elements of the two alternating gradient buffers of a column. The images need none.
    pub fn gradient_buffers(&self, column: usize) -> [usize; 2] {
        let mut sizes = [0; 2];
        let slots = self.slots.iter().enumerate();
        for (_, slot) in slots.filter(|&(id, s)| id != self.input && column < s.columns) {
            let size = &mut sizes[slot.gradient];
            *size = (*size).max(slot.shape.len() * self.batch);
        }
        sizes
    }
}
