//! Memory of f32 elements, aligned for vector loads.

use crate::error::{Result, device};
use std::alloc::{Layout, alloc, dealloc};
use std::ops::{Deref, DerefMut};

/// A cache line, and a vector register of 16 elements.
const LINE: usize = 64;
/// A huge page where the system has them.
const PAGE: usize = 2 << 20;

/// Zero-filled f32 memory, aligned to 64 bytes; large ones ask for huge pages, which spare the
/// weight matrices most of their address translations.
pub struct Buffer {
    start: *mut f32,
    elements: usize,
    layout: Layout,
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
            layout: Layout::new::<()>(),
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
        let align = if bytes >= 2 * PAGE { PAGE } else { LINE };
        let layout = Layout::from_size_align(bytes, align).map_err(|_| too_large())?;
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(layout) }.cast::<f32>();
        if start.is_null() {
            return Err(too_large());
        }
        prefer_huge_pages(start.cast(), layout);
        // SAFETY: `bytes` bytes were just allocated there; zero bytes are the f32 zero.
        unsafe { start.cast::<u8>().write_bytes(0, bytes) };
        Ok(Buffer {
            start,
            elements,
            layout,
        })
    }

    /// Bytes it occupies.
    pub fn bytes(&self) -> usize {
        self.layout.size()
    }
}

#[cfg(target_os = "linux")]
fn prefer_huge_pages(start: *mut u8, layout: Layout) {
    if layout.align() == PAGE {
        // SAFETY: advice about memory we own; it changes no contents. Refusal does no harm.
        unsafe { libc::madvise(start.cast(), layout.size(), libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn prefer_huge_pages(_start: *mut u8, _layout: Layout) {}

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
        if self.layout.size() > 0 {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.start.cast(), self.layout) };
        }
    }
}
