//! The mailboxes between ranks: one per exchanged slot, direction and pass.

use super::board::{Board, Doing};
use super::rank::Rank;
use crate::device::Device;
use crate::device::loss_scale::STATE;
use crate::device::rendezvous::Rendezvous;
use crate::error::{Result, device};
use crate::network::plan::{Plan, SlotId, Stage};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Which way an exchange goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    Backward,
}

/// A mailbox, and what it takes to check it.
pub(super) struct Link<D: Device> {
    mailbox: D::Mailbox,
    /// "the maps of conv2.pool", and from which device to which.
    what: String,
    ends: [usize; 2],
    /// The checksum of a checked message, which goes another way than the message.
    sum: Rendezvous<u64>,
}

/// How one rank exchanges in the step under way.
pub(super) struct Post {
    /// The rank's number.
    pub index: usize,
    pub board: Arc<Board>,
    /// Compare checksums of both sides.
    pub checked: bool,
    /// Messages to this rank arrive wrong (see [`crate::fault`]).
    pub corrupt: bool,
}

impl Post {
    /// From now on messages are neither checked nor damaged.
    pub(super) fn as_usual(&mut self) {
        (self.checked, self.corrupt) = (false, false);
    }

    /// Does something that may have to wait for another device.
    fn wait<T>(&self, work: impl FnOnce() -> T) -> T {
        self.board.set(self.index, Doing::Waiting);
        let result = work();
        self.board.set(self.index, Doing::Working);
        result
    }
}

impl<D: Device> Link<D> {
    /// Sends the start of `from`.
    pub(super) fn send(
        &self,
        device: &mut D,
        from: &D::Buffer,
        elements: usize,
        post: &Post,
    ) -> Result<()> {
        if post.checked {
            let sum = checksum(device, from, elements)?;
            post.wait(|| {
                self.sum.put(|slot| {
                    *slot = sum;
                    Ok(())
                })
            })?;
        }
        post.wait(|| device.send(from, elements, &self.mailbox))
    }

    /// Takes the next message, of `elements`, into `inbox`.
    ///
    /// # Errors
    /// `Device` where a checked message is not what was sent; what the device says.
    pub(super) fn receive(
        &self,
        device: &mut D,
        elements: usize,
        inbox: &mut D::Buffer,
        post: &Post,
    ) -> Result<()> {
        post.wait(|| device.receive(&self.mailbox, inbox))?;
        if post.corrupt {
            device.upload(&[0.25], inbox)?;
        }
        if post.checked {
            let sent = post.wait(|| self.sum.take(|sum| Ok(*sum)))?;
            let arrived = checksum(device, inbox, elements)?;
            if sent != arrived {
                return Err(self.arrived_wrong(&post.board, sent, arrived));
            }
        }
        Ok(())
    }

    /// Does what a captured message does on the host: swap its buffer with the mailbox's.
    pub(super) fn swap(&self, buffer: &mut D::Buffer) -> Result<()> {
        D::swap_message(&self.mailbox, buffer)
    }

    fn arrived_wrong(&self, board: &Board, sent: u64, arrived: u64) -> crate::error::Error {
        let [from, to] = self.ends.map(|device| board.name(device));
        device(format!(
            "{} from {from} arrived wrong at {to}: checksum {sent:016x} was sent, {arrived:016x} arrived; the copies between these devices cannot be trusted: run `alexnet-mp verify`, or train on one of them",
            self.what
        ))
    }
}

/// Checksum of the start of a buffer, taken on the host.
fn checksum<D: Device>(device: &mut D, buffer: &D::Buffer, elements: usize) -> Result<u64> {
    let mut values = vec![0.0f32; elements];
    device.download(buffer, &mut values)?;
    Ok(xxh3_64(bytemuck::cast_slice(&values)))
}

/// Links by (pass, slot, sending column, receiving column); none where both columns are on one
/// device.
pub(super) struct Links<D: Device> {
    columns: usize,
    boxes: Vec<Option<Link<D>>>,
    /// For the loss scale's state, with the sending and the receiving column.
    scales: Vec<(usize, usize, D::Mailbox)>,
}

impl<D: Device> Links<D> {
    /// No links.
    pub(super) fn none() -> Self {
        Links {
            columns: 0,
            boxes: vec![],
            scales: vec![],
        }
    }

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
                        let mailbox =
                            D::mailbox(&mut sender.device, &mut receiver.device, elements)?;
                        let kind = if pass == Pass::Forward {
                            "maps"
                        } else {
                            "gradient"
                        };
                        links.boxes[place] = Some(Link {
                            mailbox,
                            what: format!("the {kind} of {}", plan.slots[slot].name),
                            ends: [from, to],
                            sum: Rendezvous::new(0),
                        });
                    }
                }
            }
        }
        Ok(links)
    }

    fn place(&self, pass: Pass, slot: SlotId, from: usize, to: usize) -> usize {
        ((slot * 2 + usize::from(pass == Pass::Backward)) * self.columns + from) * self.columns + to
    }

    pub(super) fn get(&self, pass: Pass, slot: SlotId, from: usize, to: usize) -> Option<&Link<D>> {
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
        for link in self.boxes.iter().flatten() {
            D::abandon(&link.mailbox);
            link.sum.abandon();
        }
        let scales = self.scales.iter().map(|s| &s.2);
        scales.for_each(D::abandon);
    }
}
