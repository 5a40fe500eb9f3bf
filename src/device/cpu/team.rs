//! The threads of a CPU device and their work space.
//!
//! Operations are cut into tasks whose number and extent depend on the operation only, and no
//! two tasks add to the same element: so results do not depend on the number of threads.

use super::buffer::Buffer;
use super::simd::Isa;
use crate::error::{Result, device};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

/// Elements of one task of an element-wise operation.
pub const CHUNK: usize = 1 << 16;

/// Threads, each with its own work space.
pub struct Workers {
    pub isa: Isa,
    /// None: the calling thread does everything.
    pool: Option<rayon::ThreadPool>,
    own: Vec<Mutex<Buffer>>,
}

/// Workers, and work space that they share.
pub struct Team {
    pub workers: Workers,
    pub shared: Buffer,
}

impl Team {
    pub fn new(threads: usize, isa: Isa) -> Result<Team> {
        let threads = threads.max(1);
        let pool = (threads > 1)
            .then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build())
            .transpose()
            .map_err(|e| device(format!("CPU: cannot start {threads} threads: {e}")))?;
        let own = (0..threads).map(|_| Mutex::new(Buffer::empty())).collect();
        Ok(Team {
            workers: Workers { isa, pool, own },
            shared: Buffer::empty(),
        })
    }

    /// Makes the work space at least this large: `shared` elements, and `own` for each thread.
    /// Allocates only where an operation asks for more than any before.
    pub fn reserve(&mut self, shared: usize, own: usize) -> Result<()> {
        grow(&mut self.shared, shared)?;
        for buffer in &mut self.workers.own {
            grow(
                buffer.get_mut().unwrap_or_else(PoisonError::into_inner),
                own,
            )?;
        }
        Ok(())
    }

    pub fn threads(&self) -> usize {
        self.workers.own.len()
    }

    /// Bytes of work space.
    pub fn bytes(&self) -> usize {
        let own = self.workers.own.iter();
        let own = own.map(|b| b.lock().unwrap_or_else(PoisonError::into_inner).bytes());
        self.shared.bytes() + own.sum::<usize>()
    }
}

fn grow(buffer: &mut Buffer, elements: usize) -> Result<()> {
    if buffer.len() < elements {
        *buffer = Buffer::empty(); // first, so that the two never coexist
        *buffer = Buffer::new(elements)?;
    }
    Ok(())
}

impl Workers {
    /// Runs `task(number, own work space)` for every number below `tasks`.
    pub fn run(&self, tasks: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
        match &self.pool {
            None => {
                let mut own = self.own[0].lock().unwrap_or_else(PoisonError::into_inner);
                (0..tasks).for_each(|t| task(t, &mut own));
            }
            Some(pool) => pool.install(|| {
                (0..tasks)
                    .into_par_iter()
                    .with_max_len(1)
                    .for_each(|t| self.with_own(|own| task(t, own)));
            }),
        }
    }

    /// Runs `task(number, chunk, own work space)` for every chunk of `target`.
    pub fn chunks(
        &self,
        target: &mut [f32],
        chunk: usize,
        task: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        match &self.pool {
            None => {
                let mut own = self.own[0].lock().unwrap_or_else(PoisonError::into_inner);
                let chunks = target.chunks_mut(chunk).enumerate();
                chunks.for_each(|(t, c)| task(t, c, &mut own));
            }
            Some(pool) => pool.install(|| {
                let chunks = target.par_chunks_mut(chunk).enumerate();
                chunks.for_each(|(t, c)| self.with_own(|own| task(t, c, own)));
            }),
        }
    }

    /// As [`chunks`](Workers::chunks), for two targets cut alike.
    pub fn chunk_pairs(
        &self,
        (a, chunk_a): (&mut [f32], usize),
        (b, chunk_b): (&mut [f32], usize),
        task: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        match &self.pool {
            None => {
                let chunks = a.chunks_mut(chunk_a).zip(b.chunks_mut(chunk_b));
                chunks.enumerate().for_each(|(t, (a, b))| task(t, a, b));
            }
            Some(pool) => pool.install(|| {
                let chunks = a.par_chunks_mut(chunk_a).zip(b.par_chunks_mut(chunk_b));
                chunks.enumerate().for_each(|(t, (a, b))| task(t, a, b));
            }),
        }
    }

    fn with_own(&self, task: impl FnOnce(&mut [f32])) {
        // Never contended: a thread takes its own, and tasks do not nest.
        let own = &self.own[rayon::current_thread_index().unwrap_or(0)];
        task(&mut own.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A slice whose disjoint parts are written by different tasks.
pub struct Shared<'a> {
    start: *mut f32,
    elements: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: access goes through `part`, whose callers promise that parts are disjoint.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub fn new(slice: &'a mut [f32]) -> Self {
        Shared {
            start: slice.as_mut_ptr(),
            elements: slice.len(),
            slice: PhantomData,
        }
    }

    /// Elements `start..start + len`.
    ///
    /// # Safety
    /// No other part in use may overlap it.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start + len <= self.elements);
        // SAFETY: in bounds; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// Where element `start` lies; `start..start + len` is in bounds. Writing through it is
    /// only right to elements that no other task touches.
    pub fn pointer(&self, start: usize, len: usize) -> *mut f32 {
        assert!(start + len <= self.elements);
        self.start.wrapping_add(start)
    }
}
