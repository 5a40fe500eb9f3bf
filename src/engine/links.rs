//! The mailboxes between ranks: one per exchanged slot, direction and pass.

use super::rank::Rank;
use crate::device::Device;
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
}

impl<D: Device> Links<D> {
    pub(super) fn new(plan: &Plan, ranks: &mut [Rank<D>]) -> Result<Self> {
        let columns = plan.columns;
        let mut links = Links {
            columns,
            boxes: vec![],
        };
        links
            .boxes
            .resize_with(2 * plan.slots.len() * columns * columns, || None);
        if ranks.len() < 2 {
            return Ok(links);
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

    /// Releases everyone who waits: a rank has failed.
    pub(super) fn abandon(&self) {
        self.boxes.iter().flatten().for_each(D::abandon);
    }
}
