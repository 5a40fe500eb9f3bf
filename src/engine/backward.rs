//! The backward pass and the update of one rank.

use super::forward::mask;
use super::links::{Links, Pass};
use super::rank::{Column, Parts, Rank, Share};
use super::{Dropping, StepContext};
use crate::device::{Activated, ConvGradients, Device, Sink};
use crate::error::Result;
use crate::network::op::{Activation, Dropout, Sgd};
use crate::network::plan::{ParamId, Plan, SlotId, Stage, Step};

impl<D: Device> Rank<D> {
    /// Gradients of every parameter from the logits' down, and the update where one is asked for.
    pub(super) fn backward(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        images: usize,
        context: &StepContext<'_>,
    ) -> Result<()> {
        self.loss_gradient(plan, images, context.whole_batch)?;
        for stage in plan.stages.iter().rev() {
            self.stage_backward(plan, links, images, stage, context)?;
        }
        match context.update {
            Some(rates) => {
                self.check_gradients(links)?;
                self.update(links, rates)
            }
            None => Ok(()),
        }
    }

    /// One stage; what other ranks read it has sent when it returns.
    pub(super) fn stage_backward(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        images: usize,
        stage: &Stage,
        context: &StepContext<'_>,
    ) -> Result<()> {
        match stage {
            Stage::Exchange { slot, readers } => {
                self.exchange_backward(plan, links, images, *slot, *readers)
            }
            Stage::Compute { steps, .. } => {
                for local in 0..self.columns.len() {
                    if let Some(step) = steps.get(self.columns[local].index) {
                        self.step_backward(plan, links, local, images, step, context)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Adds what the readers computed of this rank's maps' gradients. Those on another device
    /// sent it as soon as they had it.
    fn exchange_backward(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        images: usize,
        slot: SlotId,
        readers: usize,
    ) -> Result<()> {
        let place = plan.slots[slot].gradient;
        for local in 0..self.columns.len() {
            let mut gradient = self.columns[local].gradients[place]
                .take()
                .expect("not in use");
            let result =
                self.take_gradients(plan, links, local, images, slot, readers, &mut gradient);
            // Put back in any case: a run may go on from a checkpoint.
            self.columns[local].gradients[place] = Some(gradient);
            result?;
        }
        Ok(())
    }

    /// The readers' share of the gradient of one column's maps.
    #[allow(clippy::too_many_arguments)]
    fn take_gradients(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        local: usize,
        images: usize,
        slot: SlotId,
        readers: usize,
        gradient: &mut D::Buffer,
    ) -> Result<()> {
        let elements = plan.slots[slot].shape.len() * images;
        let index = self.columns[local].index;
        for reader in (0..readers).filter(|&r| r != index) {
            if let Some(link) = links.get(Pass::Backward, slot, reader, index) {
                let returned = self.columns[local].returns[slot]
                    .as_mut()
                    .expect("a read column has a return box");
                link.receive(&mut self.device, elements, returned, &self.post)?;
            }
            let from = match self.columns.iter().find(|c| c.index == reader) {
                Some(here) => &here.outboxes[slot],
                None => &self.columns[local].returns[slot],
            };
            let from = from.as_ref().expect("the reader's gradient is here");
            // A column that did not read the slot itself has no gradient of its own yet.
            if index < readers {
                self.device.add(elements, from, gradient)?;
            } else {
                self.device.copy(elements, from, gradient)?;
            }
        }
        Ok(())
    }

    fn step_backward(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        local: usize,
        images: usize,
        step: &Step,
        context: &StepContext<'_>,
    ) -> Result<()> {
        let place = plan.slots[step.output()].gradient;
        let mut dy = self.columns[local].gradients[place]
            .take()
            .expect("not in use");
        let result = match step {
            Step::Dropout {
                op,
                lane,
                y,
                before,
                ..
            } => self.dropout_backward(local, images, op, *lane, *y, *before, context, &mut dy),
            Step::Activation { y, .. } if plan.slots[*y].sloped => Ok(()),
            Step::Activation { activation, y } => {
                let elements = plan.slots[*y].shape.len() * images;
                let y = self.columns[local].slots[*y]
                    .as_ref()
                    .expect("a column holds its maps");
                self.device
                    .activation_backward(*activation, elements, y, &mut dy)
            }
            Step::Conv { param, x, .. } | Step::Linear { param, x, .. } => self.weighted_backward(
                plan, links, local, images, step, *param, *x, context, &mut dy,
            ),
            Step::Lrn { x, .. }
            | Step::LocalNorm { x, .. }
            | Step::Pool { x, .. }
            | Step::Copy { x, .. }
            | Step::LrnPool { x, .. } => {
                self.map_backward(plan, links, local, images, step, *x, &dy)
            }
        };
        self.columns[local].gradients[place] = Some(dy);
        result
    }

    #[allow(clippy::too_many_arguments)]
    fn dropout_backward(
        &mut self,
        local: usize,
        images: usize,
        op: &Dropout,
        lane: u32,
        y: SlotId,
        before: Option<Activation>,
        context: &StepContext<'_>,
        dy: &mut D::Buffer,
    ) -> Result<()> {
        let elements = op.units * images;
        if context.dropping == Dropping::Off {
            return self.write_slot(local, y, |device, _, y| {
                // The activation's derivative is told from its output without the test-time factor.
                device.scale(elements, 1.0 / op.test_scale(), y)?;
                device.scale(elements, op.test_scale(), dy)?;
                match before {
                    Some(activation) => device.activation_backward(activation, elements, y, dy),
                    None => Ok(()),
                }
            });
        }
        let column = &self.columns[local];
        let mask = mask(
            self.dropout_key,
            context.dropping,
            lane,
            context.first_image,
            &column.masks,
            self.later.as_ref(),
        );
        let before = activated(before, &column.slots[y]);
        self.device.dropout_backward(op, images, &mask, before, dy)
    }

    /// Convolution and fully connected layers: the activation where no reader has done it, the gradient of the other
    /// column's maps (sent at once), of the own maps, of the weights, of the bias.
    #[allow(clippy::too_many_arguments)]
    fn weighted_backward(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        local: usize,
        images: usize,
        step: &Step,
        param: ParamId,
        x: SlotId,
        context: &StepContext<'_>,
        dy: &mut D::Buffer,
    ) -> Result<()> {
        let output = &plan.slots[step.output()];
        let shape = output.shape;
        if let Some(activation) = step.activation().filter(|_| !output.sloped) {
            let y = self.columns[local].slots[step.output()]
                .as_ref()
                .expect("a column holds its maps");
            self.device
                .activation_backward(activation, shape.len() * images, y, dy)?;
        }
        if x != plan.input {
            if step.parts() > 1 {
                self.data_gradient(plan, local, images, step, param, x, 1, dy)?;
                self.send_gradient(plan, links, local, images, x)?;
            }
            self.data_gradient(plan, local, images, step, param, x, 0, dy)?;
        }
        let mut share = self.columns[local].shares[param]
            .take()
            .expect("a column holds its share");
        let fused = context.update.map(|rates| rates[param].0);
        let result = self.share_gradients(
            plan,
            local,
            images,
            step,
            x,
            dy,
            context.accumulate,
            fused,
            &mut share,
        );
        // Put back in any case: where this was a capture, the step is done again without.
        self.columns[local].shares[param] = Some(share);
        result
    }

    /// Gradients of one layer's weights and bias from that of its output.
    #[allow(clippy::too_many_arguments)]
    fn share_gradients(
        &mut self,
        plan: &Plan,
        local: usize,
        images: usize,
        step: &Step,
        x: SlotId,
        dy: &D::Buffer,
        accumulate: bool,
        fused: Option<Sgd>,
        share: &mut Share<D::Buffer>,
    ) -> Result<()> {
        let parts = Parts::of(&self.columns, plan, local, x, step.parts());
        let device = &mut self.device;
        for (part, x) in parts.slice().iter().enumerate() {
            weight_gradient(device, images, step, part, x, dy, share, accumulate, fused)?;
        }
        match step {
            Step::Linear { op, .. } => {
                let into = &mut share.bias_gradient;
                device.bias_backward(images, op.outputs, dy, accumulate, into)
            }
            _ => Ok(()),
        }
    }

    /// Gradient of one part of the input: part 0 into the column's gradient buffer, the other
    /// column's into the outbox.
    #[allow(clippy::too_many_arguments)]
    fn data_gradient(
        &mut self,
        plan: &Plan,
        local: usize,
        images: usize,
        step: &Step,
        param: ParamId,
        x: SlotId,
        part: usize,
        dy: &D::Buffer,
    ) -> Result<()> {
        let device = &mut self.device;
        let Column {
            outboxes,
            gradients,
            shares,
            slots,
            ..
        } = &mut self.columns[local];
        let weights = &shares[param]
            .as_ref()
            .expect("a column holds its share")
            .weights[part];
        let dx = if part == 0 {
            &mut gradients[plan.slots[x].gradient]
        } else {
            &mut outboxes[x]
        };
        let dx = dx.as_mut().expect("not in use");
        match step {
            Step::Conv { op, before, .. } => {
                let before = activated(*before, &slots[x]);
                device.conv_backward_data(op, images, dy, weights, before, dx)
            }
            Step::Linear { op, .. } => device.linear_backward_data(op, images, dy, weights, dx),
            _ => unreachable!("only weighted steps have weights"),
        }
    }

    /// Sends the outbox of slot `x` to the column whose maps it concerns, if that is elsewhere.
    fn send_gradient(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        local: usize,
        images: usize,
        x: SlotId,
    ) -> Result<()> {
        let elements = plan.slots[x].shape.len() * images;
        let column = &self.columns[local];
        for owner in (0..plan.columns).filter(|&o| o != column.index) {
            if let Some(link) = links.get(Pass::Backward, x, column.index, owner) {
                let outbox = column.outboxes[x].as_ref().expect("a reader has an outbox");
                link.send(&mut self.device, outbox, elements, &self.post)?;
                self.sent += (plan.precision.map_bytes() * elements) as u64;
            }
        }
        Ok(())
    }

    /// Normalisations, pools and copies: the gradient of slot `x` from that of the output.
    #[allow(clippy::too_many_arguments)]
    fn map_backward(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        local: usize,
        images: usize,
        step: &Step,
        x: SlotId,
        dy: &D::Buffer,
    ) -> Result<()> {
        let place = plan.slots[x].gradient;
        let mut dx = self.columns[local].gradients[place]
            .take()
            .expect("not in use");
        let mut outbox = self.columns[local].outboxes[x].take();
        let result = self.map_gradient(plan, local, images, step, x, dy, &mut dx, outbox.as_mut());
        // Put back in any case, as above.
        self.columns[local].gradients[place] = Some(dx);
        self.columns[local].outboxes[x] = outbox;
        result?;
        if step.parts() > 1 {
            self.send_gradient(plan, links, local, images, x)
        } else {
            Ok(())
        }
    }

    /// The gradient `dx` of one column's slot `x`, and of the other column's into the outbox where the step reads both.
    #[allow(clippy::too_many_arguments)]
    fn map_gradient(
        &mut self,
        plan: &Plan,
        local: usize,
        images: usize,
        step: &Step,
        x: SlotId,
        dy: &D::Buffer,
        dx: &mut D::Buffer,
        outbox: Option<&mut D::Buffer>,
    ) -> Result<()> {
        let parts = Parts::of(&self.columns, plan, local, x, step.parts());
        let inputs = parts.slice();
        let y = self.columns[local].slots[step.output()]
            .as_ref()
            .expect("a column holds its maps");
        let device = &mut self.device;
        match (step, outbox) {
            (Step::Lrn { op, .. }, Some(outbox)) if op.parts > 1 => {
                device.lrn_backward(op, images, inputs, dy, &mut [dx, outbox])
            }
            (Step::Lrn { op, .. }, _) => device.lrn_backward(op, images, inputs, dy, &mut [dx]),
            (Step::LocalNorm { op, .. }, _) => {
                device.local_norm_backward(op, images, inputs[0], dy, dx)
            }
            (Step::Pool { op, .. }, _) => device.pool_backward(op, images, inputs[0], y, dy, dx),
            (Step::LrnPool { lrn, pool, .. }, _) => {
                device.lrn_pool_backward(lrn, pool, images, inputs[0], y, dy, dx)
            }
            (Step::Copy { .. }, _) => device.copy(plan.slots[x].shape.len() * images, dy, dx),
            _ => unreachable!("not a step over maps"),
        }
    }
}

/// An activation with the maps of a column that it made.
fn activated<B>(activation: Option<Activation>, maps: &Option<B>) -> Option<Activated<'_, B>> {
    activation.map(|activation| Activated {
        activation,
        y: maps.as_ref().expect("a column holds its maps"),
    })
}

/// Gradient of one part of a layer's weights: into its buffer, or straight into the update where
/// it has none. With a convolution's first part goes the gradient of its bias.
#[allow(clippy::too_many_arguments)]
fn weight_gradient<D: Device>(
    device: &mut D,
    images: usize,
    step: &Step,
    part: usize,
    x: &D::Buffer,
    dy: &D::Buffer,
    share: &mut Share<D::Buffer>,
    accumulate: bool,
    fused: Option<Sgd>,
) -> Result<()> {
    let sink = match (&mut share.gradients, fused) {
        (Some(gradients), _) => Sink::Gradient {
            into: &mut gradients[part],
            accumulate,
        },
        (None, Some(sgd)) => Sink::Update {
            weights: &mut share.weights[part],
            momentum: &mut share.momentum[part],
            sgd,
        },
        (None, None) => unreachable!("an engine without gradient memory always updates"),
    };
    match (step, sink) {
        (Step::Conv { op, .. }, Sink::Gradient { into, accumulate }) => {
            let to = ConvGradients {
                weights: into,
                bias: (part == 0).then_some(&mut share.bias_gradient),
                accumulate,
            };
            device.conv_backward_weights(op, images, x, dy, to)
        }
        (Step::Linear { op, .. }, sink) => device.linear_backward_weights(op, images, x, dy, sink),
        _ => unreachable!("only fully connected layers fuse their update"),
    }
}
