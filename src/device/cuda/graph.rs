//! CUDA graphs: a whole step of one or two devices, messages between them included, issued once and launched again and
//! again.
//!
//! A capture begins on the first device's compute stream and draws in all others but those that upload. Events order
//! what is inside; a launch as a whole comes after everything issued before, on all of these streams, and before
//! everything issued later ([`Event`] leaves out waits across that border). Uploads are ordered by the input they are
//! for, so that a batch arrives while the graph of the one before still runs.

use super::event::Event;
use super::failure::is_sticky;
use super::memory::Home;
use super::{CudaDevice, Input};
use crate::error::{Error, Result, device};
use cudarc::driver::{CudaGraph, CudaStream, sys};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of captures.
static CAPTURES: AtomicU64 = AtomicU64::new(1);

/// A captured step.
pub struct Graph {
    graph: CudaGraph,
    /// The device it is launched on.
    origin: Arc<Home>,
    /// The other streams in it, each with an event before a launch.
    others: Vec<(Arc<Home>, Arc<CudaStream>, Event)>,
    /// After a launch.
    done: Event,
}

// SAFETY: handles of the driver, which it allows any thread to use, one at a time.
unsafe impl Send for Graph {}

/// The streams of a capture beside the one it begins on.
fn others(devices: &[&mut CudaDevice]) -> Vec<(Arc<Home>, Arc<CudaStream>)> {
    let mut all = Vec::new();
    for (number, device) in devices.iter().enumerate() {
        let streams = &device.home.streams;
        if number > 0 {
            all.push((device.home.clone(), streams.compute.clone()));
        }
        all.push((device.home.clone(), streams.outgoing.clone()));
        all.push((device.home.clone(), streams.incoming.clone()));
    }
    all
}

/// From here on, what is issued on these devices is captured.
pub fn begin(devices: &mut [&mut CudaDevice]) -> Result<()> {
    use sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED as RELAXED;
    let number = CAPTURES.fetch_add(1, Ordering::Relaxed);
    let origin = devices[0].home.clone();
    let start = Event::new(&origin)?;
    let begun = origin.streams.compute.begin_capture(RELAXED);
    origin.check("beginning to capture a graph", begun)?;
    devices.iter().for_each(|d| d.home.set_capture(number));
    let drawn = start
        .record(&origin, &origin.streams.compute)
        .and_then(|()| {
            others(devices)
                .iter()
                .try_for_each(|(home, stream)| start.wait(home, stream))
        });
    if drawn.is_err() {
        abort(devices);
    }
    drawn
}

/// Ends a capture.
pub fn end(devices: &mut [&mut CudaDevice]) -> Result<Graph> {
    let origin = devices[0].home.clone();
    let joined = join(devices, &origin);
    devices.iter().for_each(|d| d.home.set_capture(0));
    let flags = sys::CUgraphInstantiate_flags(0);
    let captured = origin.streams.compute.end_capture(flags);
    joined?;
    let graph = origin.check("ending the capture of a graph", captured)?;
    let graph = graph.ok_or_else(|| nothing(&origin))?;
    let with_event = |(home, stream): (Arc<Home>, Arc<CudaStream>)| {
        let before = Event::new(&home)?;
        Ok((home, stream, before))
    };
    Ok(Graph {
        graph,
        others: others(devices)
            .into_iter()
            .map(with_event)
            .collect::<Result<_>>()?,
        done: Event::new(&origin)?,
        origin,
    })
}

fn join(devices: &[&mut CudaDevice], origin: &Arc<Home>) -> Result<()> {
    for (home, stream) in others(devices) {
        let last = Event::new(&home)?;
        last.record(&home, &stream)?;
        last.wait(origin, &origin.streams.compute)?;
    }
    Ok(())
}

/// Gives a capture up.
pub fn abort(devices: &mut [&mut CudaDevice]) {
    let _ = end(devices);
}

fn nothing(home: &Home) -> Error {
    device(format!("{}: an empty graph was captured", home.name))
}

impl Graph {
    /// Launches the graph, after all that was issued before and the upload of the inputs. The reason where the driver
    /// refuses (a graph takes memory of its own when it is first launched), unless the GPU itself has failed.
    pub fn launch(
        &self,
        first: (&mut CudaDevice, &Input),
        second: Option<(&mut CudaDevice, &Input)>,
    ) -> Result<Option<Error>> {
        let (one, other) = ((&*first.0, first.1), second.map(|(d, input)| (&*d, input)));
        let devices = || std::iter::once(one).chain(other);
        for (device, input) in devices() {
            device.wait_on_gpu(input)?;
        }
        let stream = &self.origin.streams.compute;
        for (home, other, before) in &self.others {
            before.record(home, other)?;
            before.wait(&self.origin, stream)?;
        }
        if let Err(error) = self.graph.launch() {
            let refused = self.origin.error("launching a graph", error);
            return match is_sticky(error) {
                true => Err(refused),
                false => Ok(Some(refused)),
            };
        }
        self.done.record(&self.origin, stream)?;
        for (home, other, _) in &self.others {
            self.done.wait(home, other)?;
        }
        for (device, input) in devices() {
            device.done_with(input)?;
        }
        Ok(None)
    }
}
