//! Messages between devices: copies on streams of their own, ordered by events at both ends, so that neither the
//! hosts nor the computing wait for more than they must.
//!
//! A mailbox owns one buffer on the receiver, the slot. A message is copied into the slot; receiving swaps the slot
//! with the receiver's inbox. Two hosts hand over in turn ([`Rendezvous`]), so every event is recorded before it is
//! waited for. Of the events of one message
//! - `produced`: the sender's computing has written what is sent; the copy waits for it;
//! - `free`: the receiver's computing is done with the memory that is now the slot; the copy waits for it;
//! - `arrived`: the copy is done; the receiver's computing waits for it where it first uses what it received, and the
//!   sender's next write to the source.
//!
//! Where devices cannot reach each other, the copy goes through pinned host memory, chunk by chunk, so that the way
//! out of one GPU and the way into the other overlap.

use super::buffer::Element;
use super::event::Event;
use super::memory::{Home, Pinned};
use super::peer::prove;
use super::{Buffer, CudaDevice};
use crate::batch::HostMemory;
use crate::device::rendezvous::Rendezvous;
use crate::error::{Result, device};
use cudarc::driver::result;
use std::sync::Arc;

/// Chunks of a staged message, at most, and bytes of a chunk, at least.
const CHUNKS: usize = 8;
const LEAST_CHUNK: usize = 1 << 20;

/// A one-way channel between two devices.
pub struct Mailbox {
    turn: Rendezvous<Message>,
    sender: Arc<Home>,
    receiver: Arc<Home>,
}

/// The message on its way, or its memory.
struct Message {
    slot: Buffer,
    elements: usize,
    produced: Arc<Event>,
    free: Arc<Event>,
    arrived: Arc<Event>,
    staging: Option<Staging>,
}

/// Pinned host memory that a message passes through.
struct Staging {
    host: Pinned,
    /// Per chunk: it has left the sender.
    left: Vec<Arc<Event>>,
}

impl Mailbox {
    /// A mailbox over the way that was proven to work between the two devices.
    pub(super) fn new(
        sender: &mut CudaDevice,
        receiver: &mut CudaDevice,
        elements: usize,
        element: Element,
    ) -> Result<Self> {
        let direct = prove(sender, receiver)?.direct;
        Mailbox::over(sender, receiver, elements, element, direct)
    }

    /// A mailbox over the way that is asked for.
    pub(super) fn over(
        sender: &mut CudaDevice,
        receiver: &mut CudaDevice,
        elements: usize,
        element: Element,
        direct: bool,
    ) -> Result<Self> {
        let staging = if direct {
            None
        } else {
            let left = (0..CHUNKS).map(|_| sender.event()).collect::<Result<_>>()?;
            Some(Staging {
                host: Pinned::new(&sender.home, elements * element.bytes())?,
                left,
            })
        };
        let message = Message {
            slot: Buffer::new(&receiver.home, elements, element)?,
            elements: 0,
            produced: sender.event()?,
            free: receiver.event()?,
            // Recorded where the last copy of a message runs.
            arrived: if direct {
                sender.event()?
            } else {
                receiver.event()?
            },
            staging,
        };
        Ok(Mailbox {
            turn: Rendezvous::new(message),
            sender: sender.home.clone(),
            receiver: receiver.home.clone(),
        })
    }

    /// Whether `device` is the receiving end.
    pub(super) fn is_for(&self, device: &CudaDevice) -> bool {
        Arc::ptr_eq(&self.receiver, &device.home)
    }

    /// Changes `inbox` and the slot over, as receiving a message does.
    pub(super) fn swap(&self, inbox: &mut Buffer) -> Result<()> {
        self.turn.put(|_| Ok(()))?;
        self.turn.take(|message| {
            if inbox.elements() == message.slot.elements() {
                std::mem::swap(inbox, &mut message.slot);
            }
            Ok(())
        })
    }

    pub(super) fn abandon(&self) {
        self.turn.abandon();
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // A copy that the sender's stream still runs writes into the slot, which is freed next.
        if !self.sender.is_quiet() {
            self.receiver.give_up();
        }
    }
}

impl CudaDevice {
    pub(super) fn send_message(
        &mut self,
        from: &Buffer,
        elements: usize,
        to: &Mailbox,
    ) -> Result<()> {
        let source = self.input(from, elements)?.0;
        to.turn.put(|message| {
            let room = message.slot.elements();
            if elements > room {
                return Err(device(format!(
                    "{}: a message of {elements} elements for a mailbox of {room}",
                    self.home.name
                )));
            }
            self.type_of(&[from, &message.slot])?;
            message.elements = elements;
            self.record(&message.produced, &self.home.streams.compute)?;
            self.wait(&self.home.streams.outgoing, &message.produced)?;
            let done = match &message.staging {
                None => self.copy_directly(source, message, to)?,
                Some(staging) => self.copy_through_host(source, message, staging, to)?,
            };
            from.read_until(&done);
            Ok(())
        })
    }

    /// Copies into the slot; the event after which the source may be overwritten.
    fn copy_directly(&self, source: u64, message: &Message, to: &Mailbox) -> Result<Arc<Event>> {
        self.wait(&self.home.streams.outgoing, &message.free)?;
        self.home.bind()?;
        let slot = message.slot.memory.pointer().0;
        let bytes = message.elements * message.slot.element().bytes();
        let stream = self.home.streams.outgoing.cu_stream();
        // Addresses are unified, and each GPU's memory is open to the other: an ordinary copy, which a
        // capture takes as a copy node; of `cuMemcpyPeerAsync` nothing says so.
        // SAFETY: the message was checked to fit both ends; events order the copy with what else uses them.
        let copied = unsafe { result::memcpy_dtod_async(slot, source, bytes, stream) };
        self.home
            .check(&format!("copying to {}", to.receiver.name), copied)?;
        self.record(&message.arrived, &self.home.streams.outgoing)?;
        Ok(message.arrived.clone())
    }

    /// Copies to host memory and from there into the slot, as chunks that leave and arrive side by side.
    fn copy_through_host(
        &self,
        source: u64,
        message: &Message,
        staging: &Staging,
        to: &Mailbox,
    ) -> Result<Arc<Event>> {
        let (bytes, slot) = (
            message.elements * message.slot.element().bytes(),
            message.slot.memory.pointer().0,
        );
        let chunk = bytes.div_ceil(CHUNKS).max(LEAST_CHUNK).next_multiple_of(4);
        // The message before has left the host memory when it has arrived.
        self.wait(&self.home.streams.outgoing, &message.arrived)?;
        self.home.bind()?;
        for (first, left) in (0..bytes).step_by(chunk).zip(&staging.left) {
            let length = chunk.min(bytes - first);
            // SAFETY: the chunk lies within the pinned memory, which only these copies use; events order them.
            let host = unsafe {
                std::slice::from_raw_parts_mut(staging.host.address().add(first), length)
            };
            // SAFETY: the chunk lies within the source, which is not written before `left` happens.
            let copied = unsafe {
                result::memcpy_dtoh_async(
                    host,
                    source + first as u64,
                    self.home.streams.outgoing.cu_stream(),
                )
            };
            self.home.check("copying to the host", copied)?;
            self.record(left, &self.home.streams.outgoing)?;
        }
        let receiver = &to.receiver;
        message.free.wait(receiver, &receiver.streams.incoming)?;
        for (first, left) in (0..bytes).step_by(chunk).zip(&staging.left) {
            left.wait(receiver, &receiver.streams.incoming)?;
            let length = chunk.min(bytes - first);
            let host = &staging.host.bytes()[first..first + length];
            // SAFETY: the chunk lies within the slot; events order the copy with what else uses it.
            let copied = unsafe {
                result::memcpy_htod_async(
                    slot + first as u64,
                    host,
                    to.receiver.streams.incoming.cu_stream(),
                )
            };
            receiver.check("copying from the host", copied)?;
        }
        message
            .arrived
            .record(receiver, &receiver.streams.incoming)?;
        let last = bytes.div_ceil(chunk).clamp(1, CHUNKS) - 1;
        Ok(staging.left[last].clone())
    }

    pub(super) fn receive_message(&mut self, from: &Mailbox, inbox: &mut Buffer) -> Result<()> {
        from.turn.take(|message| {
            // Also orders copies that still read the inbox before what is issued from here on.
            self.output(inbox, message.elements)?;
            self.type_of(&[inbox, &message.slot])?;
            if inbox.elements() == message.slot.elements() {
                std::mem::swap(inbox, &mut message.slot);
                inbox.arrives_with(&message.arrived, &from.sender);
            } else {
                message.slot.arrives_with(&message.arrived, &from.sender);
                self.copy_elements(message.elements, &message.slot, inbox)?;
            }
            self.record(&message.free, &self.home.streams.compute)
        })
    }
}
