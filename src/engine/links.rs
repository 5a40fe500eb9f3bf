//! The mailboxes between ranks: one per exchanged slot, direction and pass.

use super::rank::Rank;
use crate::device::Device;
use crate::device::loss_scale::STATE;
use crate::error::Result;
use crate::network::plan::{Plan, SlotId, Stage};

/// Which way an exchange goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    Backward,
}

/// Mailboxes by (pass, slot, sending column, receiving column); none where both columns are on
/// one device.
pub(super) struct Links<D: Device> {
    columns: usize,
    boxes: Vec<Option<D::Mailbox>>,
    /// For the loss scale's state, with the sending and the receiving column.
    scales: Vec<(usize, usize, D::Mailbox)>,
}

impl<D: Device> Links<D> {
    pub(super) fn new(plan: &Plan, ranks: &mut [Rank<D>]) -> Result<Self> {
        let columns = plan.columns;
        let mut links = Links {
            columns,
            boxes: vec![],
            scales: vec![],
        };
        links
            .boxes
            .resize_with(2 * plan.slots.len() * columns * columns, || None);
        if ranks.len() < 2 {
            return Ok(links);
        }
        if plan.precision.scales_loss() {
            for (from, to) in [(0, 1), (1, 0)] {
                let [sender, receiver] = ranks
                    .get_disjoint_mut([from, to])
                    .expect("a rank per column");
                let (sender, receiver) = (&mut sender.device, &mut receiver.device);
                let mailbox = D::mailbox_f32(sender, receiver, STATE)?;
                links.scales.push((from, to, mailbox));
            }
        }
        for stage in &plan.stages {
            let Stage::Exchange { slot, readers } = *stage else {
                continue;
            };
            let elements = plan.slots[slot].shape.len() * plan.batch;
            for reader in 0..readers {
                for source in (0..columns).filter(|&c| c != reader) {
                    for (pass, from, to) in [
                        (Pass::Forward, source, reader),
                        (Pass::Backward, reader, source),
                    ] {
                        let place = links.place(pass, slot, from, to);
                        let [sender, receiver] = ranks
                            .get_disjoint_mut([from, to])
                            .expect("a rank per column");
                        links.boxes[place] = Some(D::mailbox(
                            &mut sender.device,
                            &mut receiver.device,
                            elements,
                        )?);
                    }
                }
            }
        }
        Ok(links)
    }

    fn place(&self, pass: Pass, slot: SlotId, from: usize, to: usize) -> usize {
        ((slot * 2 + usize::from(pass == Pass::Backward)) * self.columns + from) * self.columns + to
    }

    pub(super) fn get(
        &self,
        pass: Pass,
        slot: SlotId,
        from: usize,
        to: usize,
    ) -> Option<&D::Mailbox> {
        self.boxes[self.place(pass, slot, from, to)].as_ref()
    }

    /// The mailboxes by which a column's rank tells the loss scale's state.
    pub(super) fn scales_from(&self, column: usize) -> impl Iterator<Item = &D::Mailbox> {
        let from = move |s: &&(usize, usize, D::Mailbox)| s.0 == column;
        self.scales.iter().filter(from).map(|s| &s.2)
    }

    /// Those by which it is told.
    pub(super) fn scales_to(&self, column: usize) -> impl Iterator<Item = &D::Mailbox> {
        let to = move |s: &&(usize, usize, D::Mailbox)| s.1 == column;
        self.scales.iter().filter(to).map(|s| &s.2)
    }

    /// Releases everyone who waits: a rank has failed.
    pub(super) fn abandon(&self) {
        let scales = self.scales.iter().map(|s| &s.2);
        self.boxes
            .iter()
            .flatten()
            .chain(scales)
            .for_each(D::abandon);
    }
}
