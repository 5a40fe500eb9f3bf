//! Messages between two devices: whether every byte arrives, and how fast.

use super::Options;
use super::report::{Check, Recorder};
use crate::device::Device;
use crate::error::Result;
use crate::precision::Precision;
use crate::random::{Key, Purpose};
use std::time::Instant;

/// Elements of the messages that are checked: one, odd, around a page, large and odd.
const SIZES: [usize; 6] = [1, 3, 1023, 4096, 65_537, (1 << 20) + 3];
/// Messages of each size, so that memory is used again.
const MESSAGES: u32 = 3;
/// Elements of the messages that are timed, and their number.
const TIMED: usize = 4 << 20;
const LAPS: usize = 8;

/// Checks and times both directions, and reports which way the messages take. Messages are f32, whatever was computed in
/// before: what arrives must be what was sent, and not what it was rounded to.
pub(super) fn verify<D: Device>(
    first: &mut D,
    second: &mut D,
    options: &Options,
    recorder: &mut Recorder<'_>,
) -> Result<()> {
    for device in [&mut *first, &mut *second] {
        device.set_precision(Precision::F32)?;
    }
    if let Some(check) = way(first, second)? {
        recorder.add(check);
    }
    for back in [false, true] {
        let (from, to) = if back {
            (&mut *second, &mut *first)
        } else {
            (&mut *first, &mut *second)
        };
        let check = direction(from, to, options)?;
        recorder.add(check);
    }
    Ok(())
}

/// Whether direct copies work. Missing peer access is no fault; access that delivers wrong bytes
/// is one, though training goes around it.
fn way<D: Device>(first: &mut D, second: &mut D) -> Result<Option<Check>> {
    let Some(link) = D::link(first, second)? else {
        return Ok(None);
    };
    let [there, back] = link.bandwidth.map(|b| b / 1e9);
    let reason = link.reason.unwrap_or_default();
    let found = match (link.direct, link.corrupt) {
        (true, _) => "from GPU to GPU, proven by patterns".to_string(),
        (false, true) => format!(
            "expected the bytes that were sent, found: {reason}; training copies through the host"
        ),
        (false, false) => format!("through the host: {reason}"),
    };
    Ok(Some(Check {
        section: "exchange",
        name: "way of the messages".into(),
        device: format!("{} and {}", first.name(), second.name()),
        passed: !link.corrupt,
        detail: Some(format!(
            "{found}; {there:.2} GB/s there, {back:.2} GB/s back"
        )),
        ..Check::default()
    }))
}

fn direction<D: Device>(from: &mut D, to: &mut D, options: &Options) -> Result<Check> {
    let mut check = Check {
        section: "exchange",
        name: "messages".into(),
        device: format!("{} to {}", from.name(), to.name()),
        passed: true,
        ..Check::default()
    };
    let sizes = if options.quick {
        &SIZES[..5]
    } else {
        &SIZES[..]
    };
    check.shape = format!("1 to {} elements", sizes[sizes.len() - 1]);
    for &size in sizes {
        if let Some(wrong) = send_patterns(from, to, size)? {
            check.passed = false;
            check.detail = Some(format!("{}: {wrong}", check.device));
            return Ok(check);
        }
    }
    let elements = if options.quick { TIMED / 16 } else { TIMED };
    let seconds = time(from, to, elements)?;
    check.milliseconds = Some(seconds * 1e3);
    check.gigabytes_per_second = Some(4.0 * elements as f64 / seconds / 1e9);
    Ok(check)
}

/// Sends random bits; what arrived wrong, if anything did.
fn send_patterns<D: Device>(from: &mut D, to: &mut D, size: usize) -> Result<Option<String>> {
    let mailbox = D::mailbox(from, to, size)?;
    let (mut source, mut inbox) = (from.allocate(size)?, to.allocate(size)?);
    for message in 0..MESSAGES {
        let mut stream = Key::new(size as u64, Purpose::Verify).stream(message, 0);
        let sent: Vec<f32> = (0..size).map(|_| stream.between(-1.0, 1.0)).collect();
        from.upload(&sent, &mut source)?;
        from.send(&source, size, &mailbox)?;
        // The message must be what was sent, whatever happens to the source afterwards.
        from.scale(size, 0.0, &mut source)?;
        to.receive(&mailbox, &mut inbox)?;
        let mut arrived = vec![0.0; size];
        to.download(&inbox, &mut arrived)?;
        let differ = |i: &usize| sent[*i].to_bits() != arrived[*i].to_bits();
        if let Some(at) = (0..size).find(differ) {
            let wrong = (0..size).filter(differ).count();
            return Ok(Some(format!(
                "{wrong} of {size} elements arrive wrong; [{at}]: expected {:e}, found {:e}",
                sent[at], arrived[at]
            )));
        }
    }
    Ok(None)
}

/// Seconds of one message, many being sent in a row.
fn time<D: Device>(from: &mut D, to: &mut D, elements: usize) -> Result<f64> {
    let mailbox = D::mailbox(from, to, elements)?;
    let (source, mut inbox) = (from.allocate(elements)?, to.allocate(elements)?);
    let mut round = |messages: usize| -> Result<f64> {
        let start = Instant::now();
        for _ in 0..messages {
            from.send(&source, elements, &mailbox)?;
            to.receive(&mailbox, &mut inbox)?;
        }
        to.synchronize()?;
        Ok(start.elapsed().as_secs_f64() / messages as f64)
    };
    round(1)?;
    round(LAPS)
}
