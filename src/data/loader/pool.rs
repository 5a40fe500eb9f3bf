//! Numbered pieces of work, done by threads and handed out in order, in memory that goes round.
//!
//! A worker takes an empty buffer, then the next number, fills the buffer and sends it on; whoever
//! holds a number holds memory too, so the piece that is waited for always goes ahead. The buffers
//! in existence bound the memory.

use crate::error::{Error, Result, data, panic_text};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::channel::{Receiver, Sender, bounded};
use crate::sync::{Arc, thread};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a worker does: fills the buffer of a piece; it may leave it unfinished once the flag is set.
pub trait Fill<B>: FnMut(u64, &mut B, &AtomicBool) -> Result<()> + Send + 'static {}
impl<B, F: FnMut(u64, &mut B, &AtomicBool) -> Result<()> + Send + 'static> Fill<B> for F {}

/// The threads and what is on its way.
pub struct Pool<B> {
    /// `None` once stopped.
    empty: Option<Sender<B>>,
    full: Option<Receiver<(u64, Result<B>)>>,
    stop: Arc<AtomicBool>,
    workers: Vec<thread::JoinHandle<()>>,
    early: BTreeMap<u64, Result<B>>,
    next: u64,
    /// One past the last piece, if there is a last.
    end: Option<u64>,
    in_use: usize,
    buffers: usize,
}

impl<B: Send + 'static> Pool<B> {
    /// Starts one thread for each of `fills`; pieces are numbered from `first` to before `end`.
    ///
    /// # Errors
    /// `Data` where a thread cannot be started.
    pub fn start(
        buffers: Vec<B>,
        fills: Vec<impl Fill<B>>,
        first: u64,
        end: Option<u64>,
    ) -> Result<Self> {
        let count = buffers.len();
        let (empty, take_empty) = bounded(count);
        let (give_full, full) = bounded(count);
        for buffer in buffers {
            // There is room, and both ends are here.
            let _ = empty.send(buffer);
        }
        let mut pool = Pool {
            empty: Some(empty),
            full: Some(full),
            stop: Arc::new(AtomicBool::new(false)),
            workers: Vec::with_capacity(fills.len()),
            early: BTreeMap::new(),
            next: first,
            end,
            in_use: 0,
            buffers: count,
        };
        let ticket = Arc::new(AtomicU64::new(first));
        for (number, fill) in fills.into_iter().enumerate() {
            let worker = Worker {
                ticket: ticket.clone(),
                end,
                stop: pool.stop.clone(),
                empty: take_empty.clone(),
                full: give_full.clone(),
            };
            let thread = thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || worker.run(fill))
                .map_err(|e| data(format!("loader: cannot start a worker thread: {e}")))?;
            pool.workers.push(thread);
        }
        Ok(pool)
    }

    /// The next piece, waited for if need be; `None` after the last one. Its buffer is to be given
    /// back.
    ///
    /// # Errors
    /// What the piece's `fill` said, or `Data` where it panicked; then the pool has ended.
    pub fn take(&mut self) -> Result<Option<B>> {
        if self.end.is_some_and(|end| self.next >= end) {
            return Ok(None);
        }
        let piece = self.in_order()?;
        self.next += 1;
        self.in_use += 1;
        Ok(Some(piece))
    }

    fn in_order(&mut self) -> Result<B> {
        loop {
            if let Some(piece) = self.early.remove(&self.next) {
                // The failed worker has ended and its piece will not come again.
                return piece.inspect_err(|_| self.stop());
            }
            if self.in_use == self.buffers {
                return Err(data(format!(
                    "internal error: all {} batches of the loader are in use, none was recycled",
                    self.buffers
                )));
            }
            let received = self.full.as_ref().and_then(|full| full.recv().ok());
            let (number, piece) =
                received.ok_or_else(|| data("internal error: the loader's workers have ended"))?;
            self.early.insert(number, piece);
        }
    }

    /// Gives a buffer back, to be filled again.
    pub fn give_back(&mut self, buffer: B) {
        self.in_use = self.in_use.saturating_sub(1);
        if let Some(empty) = &self.empty {
            // Fails only where the workers have ended, which the next piece reports.
            let _ = empty.try_send(buffer);
        }
    }

    /// Number of the piece that is taken next.
    pub fn next(&self) -> u64 {
        self.next
    }
}

impl<B> Pool<B> {
    /// Stops the workers; each finishes the image it is reading.
    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.empty = None;
        self.full = None;
        self.early.clear();
        for worker in self.workers.drain(..) {
            // It catches panics of the work itself.
            let _ = worker.join();
        }
    }
}

impl<B> Drop for Pool<B> {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker<B> {
    ticket: Arc<AtomicU64>,
    end: Option<u64>,
    stop: Arc<AtomicBool>,
    empty: Receiver<B>,
    full: Sender<(u64, Result<B>)>,
}

impl<B> Worker<B> {
    fn run(self, mut fill: impl FnMut(u64, &mut B, &AtomicBool) -> Result<()>) {
        while let Ok(mut buffer) = self.empty.recv() {
            let number = self.ticket.fetch_add(1, Ordering::Relaxed);
            if self.end.is_some_and(|end| number >= end) {
                return;
            }
            let filled = catch_unwind(AssertUnwindSafe(|| fill(number, &mut buffer, &self.stop)))
                .unwrap_or_else(|panic| Err(panicked(number, &*panic)));
            let failed = filled.is_err();
            let sent = self.full.send((number, filled.map(|()| buffer)));
            if failed || sent.is_err() || self.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

fn panicked(number: u64, panic: &(dyn std::any::Any + Send)) -> Error {
    data(format!(
        "internal error: a loader worker failed at step {number}: {}",
        panic_text(panic)
    ))
}
