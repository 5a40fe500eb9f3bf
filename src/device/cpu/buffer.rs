//! Memory of f32 elements, aligned for vector loads.

use crate::error::{Result, device};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};

/// A cache line, and a vector register of 16 elements.
const LINE: usize = 64;

/// Zero-filled f32 memory, aligned to 64 bytes.
pub struct Buffer {
    start: *mut f32,
    elements: usize,
    memory: Memory,
}

/// Where a buffer's bytes are from, to be given back there.
enum Memory {
    None,
    Heap(Layout),
    #[cfg(target_os = "linux")]
    Pages(#[allow(dead_code, reason = "held to be dropped")] pages::Pages),
}

// SAFETY: a buffer owns its memory and gives access only through `&self` and `&mut self`.
unsafe impl Send for Buffer {}
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Memory for no elements.
    pub fn empty() -> Buffer {
        Buffer {
            start: std::ptr::without_provenance_mut(LINE),
            elements: 0,
            memory: Memory::None,
        }
    }

    /// Zero-filled memory.
    pub fn new(elements: usize) -> Result<Buffer> {
        if elements == 0 {
            return Ok(Buffer::empty());
        }
        let too_large = || device(format!("CPU: no memory for {elements} f32 elements"));
        let bytes = elements
            .checked_mul(4)
            .and_then(|b| b.checked_next_multiple_of(LINE))
            .ok_or_else(too_large)?;
        let (start, memory) = allocate(bytes).ok_or_else(too_large)?;
        Ok(Buffer {
            start,
            elements,
            memory,
        })
    }

    /// Bytes it occupies.
    pub fn bytes(&self) -> usize {
        (4 * self.elements).next_multiple_of(LINE)
    }
}

/// `bytes` (a multiple of [`LINE`], not 0) zero bytes.
fn allocate(bytes: usize) -> Option<(*mut f32, Memory)> {
    #[cfg(target_os = "linux")]
    if bytes >= pages::WORTH_WHILE {
        let pages = pages::Pages::new(bytes)?;
        return Some((pages.start(), Memory::Pages(pages)));
    }
    let layout = Layout::from_size_align(bytes, LINE).ok()?;
    // SAFETY: the layout's size is not zero.
    let start = unsafe { alloc_zeroed(layout) }.cast::<f32>();
    (!start.is_null()).then_some((start, Memory::Heap(layout)))
}

/// Large memory straight from the system: zero pages that exist only once they are written, huge
/// ones where there are any, which spares the weight matrices most of their address translations.
#[cfg(target_os = "linux")]
mod pages {
    /// A huge page.
    const PAGE: usize = 2 << 20;
    pub const WORTH_WHILE: usize = 2 * PAGE;

    /// A mapping, a huge page longer than asked for so that one can begin at its start.
    pub struct Pages {
        mapping: *mut libc::c_void,
        length: usize,
    }

    impl Pages {
        pub fn new(bytes: usize) -> Option<Pages> {
            let length = bytes.checked_add(PAGE)?;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            // SAFETY: a new private mapping at a place of the system's choice.
            let mapping =
                unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
            if mapping == libc::MAP_FAILED {
                return None;
            }
            // SAFETY: advice about memory we own; it changes no contents. Refusal does no harm.
            unsafe { libc::madvise(mapping, length, libc::MADV_HUGEPAGE) };
            Some(Pages { mapping, length })
        }

        pub fn start(&self) -> *mut f32 {
            let skip = self.mapping.cast::<u8>().align_offset(PAGE);
            self.mapping.cast::<u8>().wrapping_add(skip).cast()
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: mapped in `new` with this length, and nothing points there any more.
            unsafe { libc::munmap(self.mapping, self.length) };
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `start` points to `elements` initialised elements that we own.
        unsafe { std::slice::from_raw_parts(self.start, self.elements) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.elements) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Memory::Heap(layout) = self.memory {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.start.cast(), layout) };
        }
    }
}
