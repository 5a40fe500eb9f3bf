//! Proof that copies between two devices work. Some machines report peer access and deliver wrong bytes, so a pattern
//! is sent both ways, in several sizes, while kernels run; what fails is replaced by copies through the host.

use super::buffer::{Buffer, Element};
use super::exchange::Mailbox;
use super::geometry::int;
use super::module::{Grid, arguments};
use super::probe::can_access;
use super::{CudaDevice, Memory};
use crate::error::{Result, device};
use cudarc::driver::{result, sys};
use std::time::Instant;

/// Words of the messages that prove a way: one, odd, around a page, large and odd.
const SIZES: [usize; 6] = [1, 3, 1023, 4096, 65_537, (1 << 20) + 3];
/// Words of the messages whose time is taken, and their number.
const TIMED_WORDS: usize = 4 << 20;
const TIMED_MESSAGES: usize = 4;
/// What the reason says where copies deliver wrong bytes.
const WRONG: &str = "arrive wrong";

/// What was found out about copies between two devices.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerReport {
    /// Whether copies go straight from GPU to GPU; else through the host.
    pub direct: bool,
    /// Why not, if not.
    pub reason: Option<String>,
    /// Bytes per second from the first device to the second, and back, over the way chosen.
    pub bandwidth: [f64; 2],
}

impl PeerReport {
    /// Whether direct copies reported success and delivered wrong bytes, rather than being refused.
    pub fn is_corrupt(&self) -> bool {
        self.reason.as_deref().is_some_and(|r| r.contains(WRONG))
    }

    fn turned(&self) -> Self {
        let [there, back] = self.bandwidth;
        PeerReport {
            bandwidth: [back, there],
            ..self.clone()
        }
    }
}

/// Finds, proves and times the way between two devices; what was found before is not tried again. Warns where copies
/// have to go through the host.
pub fn prove(first: &mut CudaDevice, second: &mut CudaDevice) -> Result<PeerReport> {
    if let Some((_, known)) = first
        .peers
        .iter()
        .find(|(ordinal, _)| *ordinal == second.ordinal())
    {
        return Ok(known.clone());
    }
    let reason = match open_access(first, second)? {
        Some(reason) => Some(reason),
        None => find_obstacle(first, second)?,
    };
    let direct = reason.is_none();
    if !direct && let Some(fault) = find_fault(first, second, false)? {
        return Err(device(format!(
            "{} and {}: copies through the host arrive wrong as well: {fault}; run `alexnet-mp verify`",
            first.home.name, second.home.name
        )));
    }
    let bandwidth = [
        bandwidth(first, second, direct)?,
        bandwidth(second, first, direct)?,
    ];
    let report = PeerReport {
        direct,
        reason,
        bandwidth,
    };
    if let Some(reason) = &report.reason {
        let [there, back] = bandwidth.map(|b| b / 1e9);
        tracing::warn!(
            "{} and {} exchange through the host, at {there:.1} and {back:.1} GB/s: {reason}",
            first.home.name,
            second.home.name
        );
    }
    second.peers.push((first.ordinal(), report.turned()));
    first.peers.push((second.ordinal(), report.clone()));
    Ok(report)
}

/// Opens the memory of each device to the other; the reason where that cannot be.
fn open_access(first: &CudaDevice, second: &CudaDevice) -> Result<Option<String>> {
    for (from, to) in [(first, second), (second, first)] {
        // Two devices on one GPU share its context.
        if from.ordinal() == to.ordinal() {
            continue;
        }
        let can = can_access(from.ordinal(), to.ordinal());
        if !from.home.check("asking for peer access", can)? {
            return Ok(Some(format!(
                "GPU {} has no peer access to GPU {}",
                from.ordinal(),
                to.ordinal()
            )));
        }
        from.home.bind()?;
        // SAFETY: both contexts live as long as their devices.
        match unsafe { sys::cuCtxEnablePeerAccess(to.home.context.cu_ctx(), 0) } {
            sys::cudaError_enum::CUDA_SUCCESS
            | sys::cudaError_enum::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => {}
            error => {
                return Ok(Some(format!(
                    "peer access from GPU {} to GPU {} is refused: {error:?}",
                    from.ordinal(),
                    to.ordinal()
                )));
            }
        }
    }
    Ok(None)
}

/// Why direct copies are not to be used: they arrive wrong, or are refused though access was granted. An error where a
/// device itself has failed.
fn find_obstacle(first: &mut CudaDevice, second: &mut CudaDevice) -> Result<Option<String>> {
    match find_fault(first, second, true) {
        Err(refused) if !first.home.has_failed() && !second.home.has_failed() => {
            Ok(Some(refused.to_string()))
        }
        found => found,
    }
}

/// Sends patterns both ways; what arrived wrong, if anything did.
fn find_fault(
    first: &mut CudaDevice,
    second: &mut CudaDevice,
    direct: bool,
) -> Result<Option<String>> {
    for words in SIZES {
        for back in [false, true] {
            let (from, to) = if back {
                (&mut *second, &mut *first)
            } else {
                (&mut *first, &mut *second)
            };
            // Two messages, so that a slot is used again.
            for wrong in send_patterns(from, to, words, direct)? {
                if wrong > 0 {
                    return Ok(Some(format!(
                        "of {words} words copied from GPU {} to GPU {}, {wrong} {WRONG}",
                        from.ordinal(),
                        to.ordinal()
                    )));
                }
            }
        }
    }
    Ok(None)
}

/// Sends three patterns of `words` while kernels run on both devices; how many words of each arrive wrong.
fn send_patterns(
    from: &mut CudaDevice,
    to: &mut CudaDevice,
    words: usize,
    direct: bool,
) -> Result<[u32; 3]> {
    let mailbox = Mailbox::over(from, to, words, Element::F32, direct)?;
    let mut source = Buffer::new(&from.home, words, Element::F32)?;
    let mut inbox = Buffer::new(&to.home, words, Element::F32)?;
    let mut busy = [
        Buffer::new(&from.home, words, Element::F32)?,
        Buffer::new(&to.home, words, Element::F32)?,
    ];
    let wrong = Memory::new(&to.home, 3 * 4)?;
    for message in 0..3 {
        let seed = (words as u32).wrapping_mul(31) + message;
        from.fill_pattern(&mut source, words, seed)?;
        from.fill_pattern(&mut busy[0], words, !seed)?;
        to.fill_pattern(&mut busy[1], words, !seed)?;
        from.send_message(&source, words, &mailbox)?;
        to.receive_message(&mailbox, &mut inbox)?;
        to.check_pattern(&inbox, words, seed, &wrong, message as usize)?;
    }
    from.finish()?;
    // The copy below is of pageable memory and waits inside the driver, without end if this GPU hangs.
    to.finish()?;
    let mut counts = [0u32; 3];
    // SAFETY: both sides hold three numbers; the host reads them after the wait below.
    let read = unsafe {
        result::memcpy_dtoh_async(
            &mut counts,
            wrong.pointer().0,
            to.home.streams.compute.cu_stream(),
        )
    };
    to.home.check("reading what arrived", read)?;
    to.finish()?;
    Ok(counts)
}

/// Bytes per second from one device to another.
fn bandwidth(from: &mut CudaDevice, to: &mut CudaDevice, direct: bool) -> Result<f64> {
    let mailbox = Mailbox::over(from, to, TIMED_WORDS, Element::F32, direct)?;
    let source = Buffer::new(&from.home, TIMED_WORDS, Element::F32)?;
    let mut inbox = Buffer::new(&to.home, TIMED_WORDS, Element::F32)?;
    let mut round = |messages: usize| -> Result<f64> {
        let start = Instant::now();
        for _ in 0..messages {
            from.send_message(&source, TIMED_WORDS, &mailbox)?;
            to.receive_message(&mailbox, &mut inbox)?;
        }
        to.finish()?;
        Ok(start.elapsed().as_secs_f64())
    };
    round(1)?;
    let seconds = round(TIMED_MESSAGES)?;
    Ok((TIMED_MESSAGES * TIMED_WORDS * 4) as f64 / seconds.max(1e-9))
}

/// A few blocks that stride over the words: what is proven is the copy, not the kernel.
fn pattern_grid(words: usize) -> Grid {
    Grid::for_each(words.min(256 * 64))
}

impl CudaDevice {
    fn fill_pattern(&mut self, to: &mut Buffer, words: usize, seed: u32) -> Result<()> {
        let (to, count) = (self.output(to, words)?, int(words)?);
        // SAFETY: the buffer was checked to hold `words`.
        unsafe {
            self.launch(
                &self.kernels.pattern_fill,
                pattern_grid(words),
                arguments![to, count, seed],
            )
        }
    }

    /// Counts wrong words into number `place` of `wrong`.
    fn check_pattern(
        &mut self,
        from: &Buffer,
        words: usize,
        seed: u32,
        wrong: &Memory,
        place: usize,
    ) -> Result<()> {
        let (from, count, wrong) = (
            self.input(from, words)?,
            int(words)?,
            wrong.pointer().offset(place * 4),
        );
        // SAFETY: the buffer was checked to hold `words`, `wrong` has a number for each message.
        unsafe {
            self.launch(
                &self.kernels.pattern_check,
                pattern_grid(words),
                arguments![from, wrong, count, seed],
            )
        }
    }
}
