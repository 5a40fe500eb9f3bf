//! From the table of layers to the ordered steps of every column, exchanges among them explicit.
//!
//! There is one kind of exchange. Forward, a layer that reads all columns gets the other column's
//! maps; backward, the same exchange returns their gradients, which are added. A plan is derived
//! without any device and does no I/O.

use super::layer::{Init, Layer, Layers, LrnScope, Network, On, Reads, Then};
use super::op::{Activation, Conv, Dropout, Linear, LocalNorm, Lrn, Pool, Shape, Window};
use super::params::Param;
use crate::error::{Result, usage};

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
}

/// What one column computes in one step. `x` and `y` are slots; parameters are read from the
/// column's own share.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Conv {
        op: Conv,
        param: ParamId,
        x: SlotId,
        y: SlotId,
    },
    Linear {
        op: Linear,
        param: ParamId,
        x: SlotId,
        y: SlotId,
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
    /// `lane` tells the dropout layers' random streams apart.
    Dropout {
        op: Dropout,
        lane: u32,
        y: SlotId,
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

    /// The activation fused into a weighted sum.
    pub fn activation(&self) -> Option<Activation> {
        match self {
            Step::Conv { op, .. } => op.activation,
            Step::Linear { op, .. } => op.activation,
            _ => None,
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
            .map(|(slot, messages)| slot.shape.len() * messages * images * 4)
            .sum()
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

/// Builds a plan layer by layer.
struct Builder<'a> {
    network: &'a Network,
    params: Vec<Param>,
    slots: Vec<Slot>,
    stages: Vec<Stage>,
    batch: usize,
    dropouts: u32,
}

impl<'a> Builder<'a> {
    fn new(network: &'a Network, batch: usize) -> Self {
        Builder {
            network,
            params: vec![],
            slots: vec![],
            stages: vec![],
            batch,
            dropouts: 0,
        }
    }

    fn build(mut self, layers: &Layers) -> Result<Plan> {
        let columns = self.network.columns;
        let mut current = self.slot(
            "image".into(),
            Shape::new(3, self.network.image, self.network.image),
            columns,
        );
        let last = layers
            .keys()
            .next_back()
            .ok_or_else(|| usage("the table has no layers"))?;
        for (name, layer) in layers {
            let classes = (name == last).then_some(self.network.classes);
            current = self.layer(name, layer, classes, current)?;
        }
        Ok(Plan {
            columns,
            batch: self.batch,
            image: self.network.image,
            classes: self.network.classes,
            params: self.params,
            slots: self.slots,
            stages: self.stages,
            input: 0,
            logits: current,
        })
    }

    fn slot(&mut self, name: String, shape: Shape, columns: usize) -> SlotId {
        let gradient = self.slots.len() % 2;
        self.slots.push(Slot {
            name,
            shape,
            columns,
            gradient,
        });
        self.slots.len() - 1
    }

    /// Adds an exchange of `slot` and gives the number of parts a reader sees.
    fn exchange(&mut self, slot: SlotId, readers: usize) -> usize {
        if self.network.columns > 1 {
            self.stages.push(Stage::Exchange { slot, readers });
        }
        self.network.columns
    }

    /// Adds one layer reading slot `x`; gives the slot of its output.
    fn layer(
        &mut self,
        name: &str,
        layer: &Layer,
        classes: Option<usize>,
        x: SlotId,
    ) -> Result<SlotId> {
        let columns = if layer.on == On::First {
            1
        } else {
            self.network.columns
        };
        let total = classes.unwrap_or_else(|| self.network.scaled(layer.maps));
        if total % columns != 0 {
            return Err(usage(format!(
                "layers.{name}: {total} maps do not divide among {columns} columns"
            )));
        }
        if (layer.reads == Reads::Image) != (x == 0) {
            return Err(usage(format!(
                "layers.{name}.reads: the first layer reads \"image\", the others \"own\" or \"all\""
            )));
        }
        if columns < self.slots[x].columns && layer.reads != Reads::All {
            return Err(usage(format!(
                "layers.{name}.reads: a layer on the first column alone must read \"all\""
            )));
        }
        let parts = if layer.reads == Reads::All {
            self.exchange(x, columns)
        } else {
            1
        };
        let then = activation_before_pool(&layer.then);
        let fused = (then.first() == Some(&Then::Activation)).then_some(self.network.activation);
        let y = self.weighted(name, layer, x, parts, total / columns, columns, fused);
        let rest = &then[usize::from(fused.is_some())..];
        self.tail(name, rest, y, columns)
    }

    /// The weighted sum of a layer: convolution or fully connected.
    #[allow(clippy::too_many_arguments)]
    fn weighted(
        &mut self,
        name: &str,
        layer: &Layer,
        x: SlotId,
        parts: usize,
        outputs: usize,
        columns: usize,
        activation: Option<Activation>,
    ) -> SlotId {
        let input = self.slots[x].shape;
        let param = self.params.len();
        let window = Window::new(layer.kernel, layer.stride, layer.pad);
        let output = if layer.is_convolution() {
            window.output(input, outputs)
        } else {
            Shape::flat(outputs)
        };
        let y = self.slot(name.into(), output, columns);
        let step = if layer.is_convolution() {
            Step::Conv {
                op: Conv {
                    input,
                    parts,
                    output,
                    window,
                    activation,
                },
                param,
                x,
                y,
            }
        } else {
            Step::Linear {
                op: Linear {
                    input,
                    parts,
                    outputs,
                    activation,
                },
                param,
                x,
                y,
            }
        };
        self.params
            .push(Param::new(name, layer, columns, parts, input, output));
        self.stages.push(Stage::Compute {
            layer: name.into(),
            steps: vec![step; columns],
        });
        y
    }

    /// What follows the weighted sum, LRN and the pool after it fused into one step.
    fn tail(&mut self, name: &str, then: &[Then], mut y: SlotId, columns: usize) -> Result<SlotId> {
        let mut i = 0;
        while i < then.len() {
            let fuse = then[i] == Then::Lrn
                && then.get(i + 1) == Some(&Then::Pool)
                && self.lrn_parts() == 1;
            y = if fuse {
                self.lrn_pool(name, y, columns)?
            } else {
                self.follow(name, then[i], y, columns)?
            };
            i += if fuse { 2 } else { 1 };
        }
        Ok(y)
    }

    fn follow(&mut self, name: &str, then: Then, x: SlotId, columns: usize) -> Result<SlotId> {
        let shape = self.slots[x].shape;
        let layer = name.to_string();
        let (y, steps) = match then {
            Then::Activation => (
                x,
                vec![
                    Step::Activation {
                        activation: self.network.activation,
                        y: x
                    };
                    columns
                ],
            ),
            Then::Dropout => (x, self.dropout(shape, x, columns)),
            Then::Lrn => {
                if self.lrn_parts() > 1 {
                    self.exchange(x, columns);
                }
                let y = self.slot(format!("{name}.lrn"), shape, columns);
                (
                    y,
                    (0..columns)
                        .map(|c| Step::Lrn {
                            op: self.lrn(shape, c),
                            x,
                            y,
                        })
                        .collect(),
                )
            }
            Then::LocalNorm => {
                let rule = self.network.local_norm;
                let op = LocalNorm {
                    shape,
                    size: rule.size,
                    k: rule.k,
                    alpha: rule.alpha,
                    beta: rule.beta,
                };
                let y = self.slot(format!("{name}.local_norm"), shape, columns);
                (y, vec![Step::LocalNorm { op, x, y }; columns])
            }
            Then::Pool => {
                let op = self.pool(shape)?;
                let y = self.slot(format!("{name}.pool"), op.output, columns);
                (y, vec![Step::Pool { op, x, y }; columns])
            }
        };
        self.stages.push(Stage::Compute { layer, steps });
        Ok(y)
    }

    fn lrn_pool(&mut self, name: &str, x: SlotId, columns: usize) -> Result<SlotId> {
        let shape = self.slots[x].shape;
        let pool = self.pool(shape)?;
        let y = self.slot(format!("{name}.pool"), pool.output, columns);
        let steps = (0..columns)
            .map(|c| Step::LrnPool {
                lrn: self.lrn(shape, c),
                pool,
                x,
                y,
            })
            .collect();
        self.stages.push(Stage::Compute {
            layer: name.into(),
            steps,
        });
        Ok(y)
    }

    fn lrn_parts(&self) -> usize {
        if self.network.lrn.scope == LrnScope::All {
            self.network.columns
        } else {
            1
        }
    }

    fn lrn(&self, shape: Shape, column: usize) -> Lrn {
        let rule = &self.network.lrn;
        Lrn {
            shape,
            parts: self.lrn_parts(),
            column,
            size: rule.n,
            k: rule.k,
            alpha: self.network.lrn_alpha(),
            beta: rule.beta,
        }
    }

    fn pool(&self, input: Shape) -> Result<Pool> {
        let rule = self.network.pool;
        let window = Window::new(rule.size, rule.stride, 0);
        Ok(Pool {
            input,
            output: window.output(input, input.maps),
            window,
        })
    }

    fn dropout(&mut self, shape: Shape, y: SlotId, columns: usize) -> Vec<Step> {
        let lane = self.dropouts;
        self.dropouts += 1;
        let rule = self.network.dropout;
        let units = shape.len();
        (0..columns)
            .map(|c| {
                let op = Dropout {
                    units,
                    first_unit: c * units,
                    all_units: columns * units,
                    rate: rule.rate,
                    rescale: rule.rescale,
                };
                Step::Dropout { op, lane, y }
            })
            .collect()
    }
}

/// The operations of a layer with an activation that follows a pool put before it. Maximum and a
/// monotone function commute, in the gradient too, and a pool's output then stays what it wrote.
fn activation_before_pool(then: &[Then]) -> Vec<Then> {
    let mut ordered = then.to_vec();
    for i in 1..ordered.len() {
        if ordered[i - 1..=i] == [Then::Pool, Then::Activation] {
            ordered.swap(i - 1, i);
        }
    }
    ordered
}
