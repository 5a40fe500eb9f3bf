//! Numbers in a GPU's memory, in one of the types that kernels know.

use super::CudaDevice;
use super::event::Event;
use super::geometry::Pointer;
use super::memory::{Home, Memory};
use crate::error::{Result, device};
use crate::precision::Precision;
use cudarc::driver::result;
use half::{bf16, f16};
use std::cell::RefCell;
use std::sync::Arc;

/// What numbers are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32,
    Bf16,
    F16,
}

impl Element {
    /// What maps are stored as.
    pub fn of_maps(precision: Precision) -> Self {
        match precision {
            Precision::F32 | Precision::Tf32 => Element::F32,
            Precision::Bf16 => Element::Bf16,
            Precision::F16 => Element::F16,
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 | Element::F16 => 2,
        }
    }

    /// Numbers as they stand in memory.
    fn encode(self, values: &[f32]) -> Vec<u16> {
        match self {
            Element::F32 => unreachable!("copied as it is"),
            Element::Bf16 => values
                .iter()
                .map(|&v| bf16::from_f32(v).to_bits())
                .collect(),
            Element::F16 => values.iter().map(|&v| f16::from_f32(v).to_bits()).collect(),
        }
    }

    fn decode(self, bits: &[u16], values: &mut [f32]) {
        for (value, &bits) in values.iter_mut().zip(bits) {
            *value = match self {
                Element::F32 => unreachable!("copied as it is"),
                Element::Bf16 => bf16::from_bits(bits).to_f32(),
                Element::F16 => f16::from_bits(bits).to_f32(),
            };
        }
    }
}

/// Elements on a GPU.
pub struct Buffer {
    pub memory: Memory,
    element: Element,
    elements: usize,
    /// The same numbers in 16 bits, as operands of products: of weights, which are f32 themselves.
    copy: Option<(Element, Memory)>,
    /// A byte for every element, which the operation that made them leaves for the one that goes back.
    marks: Option<Memory>,
    /// Copies to other devices that may still be reading: the next write waits for them.
    readers: RefCell<Vec<Arc<Event>>>,
    /// A message that may still be on its way here: the next use waits for it, and nothing before that.
    arrival: RefCell<Option<Arrival>>,
}

/// A message on its way.
struct Arrival {
    arrived: Arc<Event>,
    /// From another GPU.
    from_elsewhere: bool,
}

impl Buffer {
    pub fn new(home: &Arc<Home>, elements: usize, element: Element) -> Result<Self> {
        Ok(Buffer {
            memory: Memory::new(home, elements * element.bytes())?,
            element,
            elements,
            copy: None,
            marks: None,
            readers: RefCell::default(),
            arrival: RefCell::default(),
        })
    }

    /// f32 with a copy in `element`, if that is another type.
    pub fn with_copy(home: &Arc<Home>, elements: usize, element: Element) -> Result<Self> {
        let mut buffer = Buffer::new(home, elements, Element::F32)?;
        if element != Element::F32 {
            buffer.copy = Some((element, Memory::new(home, elements * element.bytes())?));
        }
        Ok(buffer)
    }

    pub fn elements(&self) -> usize {
        self.elements
    }

    pub fn element(&self) -> Element {
        self.element
    }

    /// Notes that a copy reads this buffer until `done`.
    pub fn read_until(&self, done: &Arc<Event>) {
        let mut readers = self.readers.borrow_mut();
        if !readers.iter().any(|reader| Arc::ptr_eq(reader, done)) {
            readers.push(done.clone());
        }
    }

    /// Hands out the copies that may still be reading, and forgets them.
    pub fn take_readers(&mut self) -> std::vec::Drain<'_, Arc<Event>> {
        self.readers.get_mut().drain(..)
    }

    /// Notes that the elements are those of a message from GPU `sender` that is here once `arrived` has happened.
    pub fn arrives_with(&mut self, arrived: &Arc<Event>, sender: &Home) {
        *self.arrival.get_mut() = Some(Arrival {
            arrived: arrived.clone(),
            from_elsewhere: sender.ordinal != self.memory.home.ordinal,
        });
    }

    /// Whether the next use on GPU `home` waits for a message from another GPU.
    pub fn arrives_from_elsewhere(&self, home: &Home) -> bool {
        let waits = |arrival: &Arrival| arrival.from_elsewhere && arrival.arrived.counts(home);
        self.arrival.borrow().as_ref().is_some_and(waits)
    }

    /// Where the elements are, after a look at whether `elements` of them are there on this GPU. What is issued to its
    /// compute stream from here on comes after a message that was on its way.
    pub fn checked(&self, home: &Home, elements: usize) -> Result<Pointer> {
        if elements > self.elements {
            return Err(device(format!(
                "{}: an operation on {elements} elements was given a buffer of {}",
                home.name, self.elements
            )));
        }
        if self.memory.home.context.cu_ctx() != home.context.cu_ctx() {
            return Err(device(format!(
                "{}: an operation was given memory of {}",
                home.name, self.memory.home.name
            )));
        }
        if let Some(Arrival { arrived, .. }) = self.arrival.take() {
            arrived.wait(home, &home.streams.compute)?;
        }
        Ok(self.memory.pointer())
    }

    /// The copy's type and place, or f32 and null.
    pub fn copy(&self) -> (Element, Pointer) {
        match &self.copy {
            Some((element, memory)) => (*element, memory.pointer()),
            None => (Element::F32, Pointer::NULL),
        }
    }

    /// Where the marks of `elements` elements are.
    pub fn marked(&self, home: &Home, elements: usize) -> Result<Pointer> {
        self.checked(home, elements)?;
        let marks = self.marks.as_ref().map(Memory::pointer);
        marks.ok_or_else(|| device(format!("{}: a way back without the way there", home.name)))
    }

    /// As an operand of a product: the copy's type and place, else its own.
    pub fn operand(&self, home: &Home, elements: usize) -> Result<(Element, Pointer)> {
        let own = self.checked(home, elements)?;
        Ok(match &self.copy {
            Some((element, memory)) => (*element, memory.pointer()),
            None => (self.element, own),
        })
    }
}

impl CudaDevice {
    /// Where to leave a mark for every element of `buffer`.
    pub(super) fn marks(&mut self, buffer: &mut Buffer) -> Result<Pointer> {
        if let Some(marks) = &buffer.marks {
            return Ok(marks.pointer());
        }
        let marks = Memory::new(&self.home, buffer.elements)?;
        self.generation += 1;
        Ok(buffer.marks.insert(marks).pointer())
    }

    /// Copies numbers to the start of a buffer, and of its copy; done when it returns.
    pub(super) fn upload_numbers(&mut self, source: &[f32], target: &mut Buffer) -> Result<()> {
        let to = self.output(target, source.len())?;
        self.upload_as(target.element, source, to)?;
        if let Some((element, memory)) = &target.copy {
            self.upload_as(*element, source, memory.pointer())?;
        }
        Ok(())
    }

    fn upload_as(&self, element: Element, source: &[f32], to: Pointer) -> Result<()> {
        // Copies of pageable memory wait inside the driver, without end for a GPU that hangs: so the waiting is done here.
        self.finish()?;
        let stream = self.home.streams.compute.cu_stream();
        let encoded = match element {
            Element::F32 => vec![],
            _ => element.encode(source),
        };
        // SAFETY: the target was checked to hold the source, which outlives the wait below.
        let copied = unsafe {
            match element {
                Element::F32 => result::memcpy_htod_async(to.0, source, stream),
                _ => result::memcpy_htod_async(to.0, &encoded, stream),
            }
        };
        self.home.check("uploading", copied)?;
        self.finish()
    }

    /// Copies numbers from the start of a buffer; waits for everything issued before.
    pub(super) fn download_numbers(&mut self, source: &Buffer, target: &mut [f32]) -> Result<()> {
        let from = self.input(source, target.len())?.0;
        // As above: once everything issued is done, the copy alone is waited for in the driver.
        self.finish()?;
        let stream = self.home.streams.compute.cu_stream();
        let mut bits = match source.element {
            Element::F32 => vec![],
            _ => vec![0u16; target.len()],
        };
        // SAFETY: the source was checked to hold as much as the targets, which outlive the wait below.
        let copied = unsafe {
            match source.element {
                Element::F32 => result::memcpy_dtoh_async(target, from, stream),
                _ => result::memcpy_dtoh_async(&mut bits, from, stream),
            }
        };
        self.home.check("downloading", copied)?;
        self.finish()?;
        if source.element != Element::F32 {
            source.element.decode(&bits, target);
        }
        Ok(())
    }

    /// The type that all of these buffers have.
    pub(super) fn type_of(&self, buffers: &[&Buffer]) -> Result<Element> {
        let first = buffers.first().map_or(Element::F32, |b| b.element);
        match buffers.iter().find(|b| b.element != first) {
            None => Ok(first),
            Some(other) => Err(device(format!(
                "{}: an operation was given buffers of {first:?} and {:?}",
                self.home.name, other.element
            ))),
        }
    }

    /// Checks that a buffer is f32.
    pub(super) fn expect_f32(&self, buffers: &[&Buffer]) -> Result<()> {
        match buffers.iter().find(|b| b.element != Element::F32) {
            None => Ok(()),
            Some(other) => Err(device(format!(
                "{}: an operation on f32 was given a buffer of {:?}",
                self.home.name, other.element
            ))),
        }
    }
}
