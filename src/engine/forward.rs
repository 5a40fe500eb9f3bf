//! The forward pass of one rank.

use super::Dropping;
use super::links::{Links, Pass};
use super::rank::{Column, Parts, Rank, slice_of};
use crate::device::{Device, Dropped, Mask};
use crate::error::Result;
use crate::network::plan::{Plan, SlotId, Stage, Step};
use crate::random::Key;

impl<D: Device> Rank<D> {
    /// Computes every slot of this rank's columns from the loaded input.
    pub(super) fn forward(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        images: usize,
        dropping: Dropping,
        first_image: usize,
    ) -> Result<()> {
        for stage in &plan.stages {
            self.send_forward(plan, links, images, stage)?;
            self.stage_forward(plan, links, images, stage, dropping, first_image)?;
        }
        Ok(())
    }

    /// One stage, after every rank's [`send_forward`](Rank::send_forward).
    pub(super) fn stage_forward(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        images: usize,
        stage: &Stage,
        dropping: Dropping,
        first_image: usize,
    ) -> Result<()> {
        match stage {
            Stage::Exchange { slot, readers } => {
                self.receive_forward(plan, links, images, *slot, *readers)
            }
            Stage::Compute { steps, .. } => {
                for local in 0..self.columns.len() {
                    if let Some(step) = steps.get(self.columns[local].index) {
                        self.step_forward(plan, local, images, step, dropping, first_image)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// In an exchange, sends this rank's maps to readers elsewhere.
    pub(super) fn send_forward(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        images: usize,
        stage: &Stage,
    ) -> Result<()> {
        let Stage::Exchange { slot, readers } = *stage else {
            return Ok(());
        };
        let elements = plan.slots[slot].shape.len() * images;
        for column in &self.columns {
            for reader in (0..readers).filter(|&r| r != column.index) {
                if let Some(link) = links.get(Pass::Forward, slot, column.index, reader) {
                    let maps = column.slots[slot]
                        .as_ref()
                        .expect("a column holds its maps");
                    link.send(&mut self.device, maps, elements, &self.post)?;
                    self.sent += (plan.precision.map_bytes() * elements) as u64;
                }
            }
        }
        Ok(())
    }

    /// Takes the maps of `slot` that other ranks sent.
    fn receive_forward(
        &mut self,
        plan: &Plan,
        links: &Links<D>,
        images: usize,
        slot: SlotId,
        readers: usize,
    ) -> Result<()> {
        let elements = plan.slots[slot].shape.len() * images;
        for column in self.columns.iter_mut().filter(|c| c.index < readers) {
            for source in (0..plan.columns).filter(|&s| s != column.index) {
                if let Some(link) = links.get(Pass::Forward, slot, source, column.index) {
                    let inbox = column.inboxes[slot]
                        .as_mut()
                        .expect("a reader has an inbox");
                    link.receive(&mut self.device, elements, inbox, &self.post)?;
                }
            }
        }
        Ok(())
    }

    fn step_forward(
        &mut self,
        plan: &Plan,
        local: usize,
        images: usize,
        step: &Step,
        dropping: Dropping,
        first_image: usize,
    ) -> Result<()> {
        let (key, later) = (self.dropout_key, self.later.take());
        let result = self.write_slot(local, step.output(), |device, columns, y| {
            let given = &columns[local].masks;
            let mask = |lane| mask(key, dropping, lane, first_image, given, later.as_ref());
            match step {
                Step::Dropout { op, .. } if dropping == Dropping::Off => {
                    device.scale(op.units * images, op.test_scale(), y)
                }
                Step::Dropout { included: true, .. } => Ok(()),
                Step::Dropout { op, lane, .. } => {
                    device.dropout_forward(op, images, &mask(*lane), y)
                }
                Step::Activation {
                    activation,
                    y: slot,
                } => device.activation_forward(
                    *activation,
                    plan.slots[*slot].shape.len() * images,
                    y,
                ),
                Step::Linear { x, dropped, .. } => {
                    let dropped = dropped.as_ref().filter(|_| dropping != Dropping::Off);
                    let dropped = dropped.map(|(op, lane)| Dropped {
                        op,
                        mask: mask(*lane),
                    });
                    compute(device, columns, plan, local, images, step, *x, dropped, y)
                }
                Step::Conv { x, .. }
                | Step::Lrn { x, .. }
                | Step::LocalNorm { x, .. }
                | Step::Pool { x, .. }
                | Step::Copy { x, .. }
                | Step::LrnPool { x, .. } => {
                    compute(device, columns, plan, local, images, step, *x, None, y)
                }
            }
        });
        self.later = later;
        result
    }
}

/// The steps that read slot `x` and write another slot's buffer `y`; `dropped`: of a fully connected layer.
#[allow(clippy::too_many_arguments)]
fn compute<D: Device>(
    device: &mut D,
    columns: &[Column<D::Buffer>],
    plan: &Plan,
    local: usize,
    images: usize,
    step: &Step,
    x: SlotId,
    dropped: Option<Dropped<'_, D::Buffer>>,
    y: &mut D::Buffer,
) -> Result<()> {
    let parts = Parts::of(columns, plan, local, x, step.parts());
    let inputs = parts.slice();
    match step {
        Step::Conv { op, param, .. } => {
            let share = columns[local].share(*param);
            device.conv_forward(
                op,
                images,
                inputs,
                &slice_of(&share.weights)[..op.parts],
                &share.bias,
                y,
            )
        }
        Step::Linear { op, param, .. } => {
            let share = columns[local].share(*param);
            let weights = &slice_of(&share.weights)[..op.parts];
            device.linear_forward(op, images, inputs, weights, &share.bias, dropped, y)
        }
        Step::Lrn { op, .. } => device.lrn_forward(op, images, inputs, y),
        Step::LocalNorm { op, .. } => device.local_norm_forward(op, images, inputs[0], y),
        Step::Pool { op, .. } => device.pool_forward(op, images, inputs[0], y),
        Step::LrnPool { lrn, pool, .. } => device.lrn_pool_forward(lrn, pool, images, inputs[0], y),
        Step::Copy { .. } => device.copy(plan.slots[x].shape.len() * images, inputs[0], y),
        Step::Activation { .. } | Step::Dropout { .. } => unreachable!("done in place"),
    }
}

/// The mask of a dropout step in training; `later` holds the step where it is to be read from the
/// device's memory.
pub(super) fn mask<'a, B>(
    key: Key,
    dropping: Dropping,
    lane: u32,
    first_image: usize,
    given: &'a [B],
    later: Option<&'a B>,
) -> Mask<'a, B> {
    match (dropping, later) {
        (Dropping::Counter { .. }, Some(step)) => Mask::Later {
            key,
            lane,
            step,
            first_image,
        },
        (Dropping::Counter { step }, None) => Mask::Counter {
            key,
            lane,
            step,
            first_image,
        },
        (Dropping::Given | Dropping::Off, _) => Mask::Given(&given[lane as usize]),
    }
}
