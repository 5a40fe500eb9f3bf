//! Events between streams, inside and outside of the capture of a graph.

use super::memory::Home;
use crate::error::Result;
use cudarc::driver::{CudaEvent, CudaStream};
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that happens in a stream.
///
/// While a graph is captured, an event stands for a place in that graph, and means nothing outside of it: what was
/// recorded elsewhere the graph's launch comes after as a whole (see [`super::graph`]). So a wait is issued only where
/// the event was last recorded in the same capture, or both were outside of any.
pub struct Event {
    event: CudaEvent,
    /// The capture it was last recorded in, 0 outside of any.
    capture: AtomicU64,
}

impl Event {
    pub fn new(home: &Home) -> Result<Self> {
        Ok(Event {
            event: home.check("creating an event", home.context.new_event(None))?,
            capture: AtomicU64::new(0),
        })
    }

    /// Lets it happen when what was issued to `stream`, of GPU `home`, is done.
    pub fn record(&self, home: &Home, stream: &CudaStream) -> Result<()> {
        self.capture.store(home.capture(), Ordering::Relaxed);
        home.check("recording an event", self.event.record(stream))
    }

    /// Whether it means anything to what is issued to GPU `home` now.
    pub fn counts(&self, home: &Home) -> bool {
        self.capture.load(Ordering::Relaxed) == home.capture()
    }

    /// Makes what is issued to `stream`, of GPU `home`, later wait for it.
    pub fn wait(&self, home: &Home, stream: &CudaStream) -> Result<()> {
        if !self.counts(home) {
            return Ok(());
        }
        home.check("waiting for an event", stream.wait(&self.event))
    }

    /// Lets the host wait until it has happened.
    pub fn finish(&self, home: &Home) -> Result<()> {
        home.finish_event(&self.event)
    }
}
