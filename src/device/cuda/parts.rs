//! Operands in parts, one buffer per column, the own column's first; and a convolution over them in as many launches as
//! messages ask for.

use super::buffer::Element;
use super::geometry::{Pointer, argument_types};
use super::{Buffer, CudaDevice};
use crate::error::{Result, device};
use std::ops::Range;

/// `kernels/conv.cuh`'s: where a launch's sums begin, and where they stay for the next one; null for neither.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct PartialSums {
    from: Pointer,
    to: Pointer,
}
argument_types!(PartialSums);

/// One of a convolution's launches.
pub(super) struct Turn {
    /// The parts that it multiplies.
    pub parts: Range<usize>,
    pub partial: PartialSums,
}

impl Turn {
    fn new(parts: Range<usize>, from: Pointer, to: Pointer) -> Self {
        let partial = PartialSums { from, to };
        Turn { parts, partial }
    }
}

impl CudaDevice {
    /// The launches of a convolution of `x`, whose sums are so many bytes: one; or, where its second part is on its way
    /// from another GPU, one of the first part, whose sums go to the work space, and one of the second part, before
    /// which the message is waited for. A copy within a GPU is too quick for that.
    pub(super) fn turns(&mut self, parts: usize, x: &[&Buffer], bytes: usize) -> Result<Vec<Turn>> {
        self.expect_parts(parts, x)?;
        let is_late = |peer: &&Buffer| peer.arrives_from_elsewhere(&self.home);
        if !x.get(1).is_some_and(is_late) {
            return Ok(vec![Turn::new(0..parts, Pointer::NULL, Pointer::NULL)]);
        }
        let sums = self.workspace(bytes)?;
        Ok(vec![
            Turn::new(0..1, Pointer::NULL, sums),
            Turn::new(1..2, sums, Pointer::NULL),
        ])
    }

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

#[cfg(test)]
mod tests {
    use super::super::conv::Variant;
    use super::super::tensor_tile::{Number, Tile};

    /// As the engine tells of work space (`engine/footprint.rs`).
    #[test]
    fn no_tiles_leave_more_columns_idle_than_those_of_48() {
        for (columns, maps) in (1..=400usize).flat_map(|c| [3, 4, 8].map(|maps| (c, maps))) {
            let most = 4 * 256 * columns.next_multiple_of(48);
            let plain = Variant::choose(columns, maps);
            assert!(plain.sums(plain.tiles(200, columns)) <= most, "{columns}");
            for number in [Number::Bf16, Number::F16, Number::Tf32] {
                let tile = Tile::choose(number, columns, maps);
                assert!(tile.sums(tile.tiles(200, columns)) <= most, "{columns}");
            }
        }
    }
}
