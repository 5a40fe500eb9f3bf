//! Messages between two CPU devices.

use super::buffer::Buffer;
use crate::device::rendezvous::Rendezvous;
use crate::error::Result;

/// Sends the start of `from`, waiting until the last message was taken.
pub fn send(from: &Buffer, elements: usize, to: &Rendezvous<Buffer>) -> Result<()> {
    to.put(|message| {
        message[..elements].copy_from_slice(&from[..elements]);
        Ok(())
    })
}

/// Takes the next message. Memory changes hands, so there is no second copy.
pub fn receive(from: &Rendezvous<Buffer>, inbox: &mut Buffer) -> Result<()> {
    from.take(|message| {
        debug_assert_eq!(message.len(), inbox.len());
        std::mem::swap(message, inbox);
        Ok(())
    })
}
