//! How a plan is derived from the table of layers; what follows a weighted sum is in `follow.rs`.

use super::follow::activation_before_pool;
use super::{Plan, Slot, SlotId, Stage, Step};
use crate::error::{Result, usage};
use crate::network::layer::{Layer, Layers, Network, On, Reads, Then};
use crate::network::op::{Activation, Conv, Linear, Shape, Window};
use crate::network::params::Param;
use crate::precision::Precision;

/// Builds a plan layer by layer.
pub(super) struct Builder<'a> {
    pub(super) network: &'a Network,
    params: Vec<Param>,
    pub(super) slots: Vec<Slot>,
    pub(super) stages: Vec<Stage>,
    batch: usize,
    pub(super) dropouts: u32,
}

impl<'a> Builder<'a> {
    pub(super) fn new(network: &'a Network, batch: usize) -> Self {
        Builder {
            network,
            params: vec![],
            slots: vec![],
            stages: vec![],
            batch,
            dropouts: 0,
        }
    }

    /// The plan of these layers.
    ///
    /// # Errors
    /// `Usage` where layers do not fit together.
    pub(super) fn build(mut self, layers: &Layers) -> Result<Plan> {
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
        if self.slots[current].columns > 1 {
            return Err(usage(format!(
                "layers.{last}.on: the last layer gives all classes and must be on \"first\""
            )));
        }
        Ok(Plan {
            columns,
            batch: self.batch,
            image: self.network.image,
            classes: self.network.classes,
            precision: Precision::F32,
            params: self.params,
            slots: self.slots,
            stages: self.stages,
            input: 0,
            logits: current,
        })
    }

    pub(super) fn slot(&mut self, name: String, shape: Shape, columns: usize) -> SlotId {
        let gradient = self.slots.len() % 2;
        self.slots.push(Slot {
            name,
            shape,
            columns,
            gradient,
            sloped: false,
        });
        self.slots.len() - 1
    }

    /// Adds an exchange of `slot` where several columns hold it, and gives the number of parts a reader sees.
    pub(super) fn exchange(&mut self, slot: SlotId, readers: usize) -> usize {
        let parts = self.slots[slot].columns;
        if parts > 1 {
            self.stages.push(Stage::Exchange { slot, readers });
        }
        parts
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
        if !total.is_multiple_of(columns) {
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
        if columns > self.slots[x].columns {
            return Err(usage(format!(
                "layers.{name}.on: it reads a layer on the first column alone and must be on \"first\", too"
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
            let before = if parts == 1 { self.take_back(x) } else { None };
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
                before,
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
                dropped: None,
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
}
