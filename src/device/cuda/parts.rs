//! Operands in parts, one buffer per column, the own column's first.

use super::buffer::Element;
use super::geometry::Pointer;
use super::{Buffer, CudaDevice};
use crate::error::{Result, device};

impl CudaDevice {
    /// The type that the buffers of every part, and another one, have.
    pub(super) fn parts_type(&self, parts: &[&Buffer], other: &Buffer) -> Result<Element> {
        for part in parts {
            self.type_of(&[part, other])?;
        }
        Ok(other.element())
    }

    /// Type and place of one operand per part, as [`parts`](Self::parts).
    pub(super) fn operands(
        &self,
        parts: usize,
        buffers: &[&Buffer],
        elements: usize,
    ) -> Result<[(Element, Pointer); 2]> {
        self.parts(parts, buffers, elements)?;
        let first = buffers[0].operand(&self.home, elements)?;
        match buffers.get(1) {
            None => Ok([first, (first.0, Pointer::NULL)]),
            Some(second) => Ok([first, second.operand(&self.home, elements)?]),
        }
    }

    /// The places of one buffer per part, the second one null if there is one part.
    pub(super) fn parts(
        &self,
        parts: usize,
        buffers: &[&Buffer],
        elements: usize,
    ) -> Result<[Pointer; 2]> {
        self.expect_parts(parts, buffers)?;
        let peer = buffers.get(1).map(|peer| self.input(peer, elements));
        Ok([
            self.input(buffers[0], elements)?,
            peer.unwrap_or(Ok(Pointer::NULL))?,
        ])
    }

    /// Checks that there is a buffer for each part.
    pub(super) fn expect_parts(&self, parts: usize, buffers: &[&Buffer]) -> Result<()> {
        if (1..=2).contains(&parts) && buffers.len() == parts {
            return Ok(());
        }
        Err(device(format!(
            "{}: an operation of {parts} parts was given {} buffers (1 or 2 columns are possible)",
            self.home.name,
            buffers.len()
        )))
    }
}
