//! Faults on purpose, for testers: `ALEXNET_MP_FAULT=KIND:WHERE:stepN[,…]` makes a run fail in a
//! chosen way at a chosen moment, so that what the program then does can be seen on any machine.
//!
//! | fault | what happens in step N (from 1) |
//! |---|---|
//! | `panic:device1:step3` | the thread of device 1 panics |
//! | `fail:device1:step3` | device 1 reports an error, as a driver would |
//! | `hang:device1:step3` | device 1 never ends the step |
//! | `oom:device1:step3` | device 1 has no memory left; `step0`: while the network is set up |
//! | `peer-corrupt:device1:step3` | messages to device 1 report success and arrive wrong |
//! | `nan:conv3.weight:step3` | after the step the tensor holds a NaN; also `conv3.weight.column1`, `conv3.bias`, `conv3.momentum` |
//!
//! Each happens once in a process. Without the variable the training loop tests one empty option
//! a step.

use crate::error::{Error, Result, usage};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The variable that names faults.
pub const VARIABLE: &str = "ALEXNET_MP_FAULT";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Panic,
    Fail,
    Hang,
    OutOfMemory,
    PeerCorrupt,
    Nan,
}

const KINDS: [(&str, Kind); 6] = [
    ("panic", Kind::Panic),
    ("fail", Kind::Fail),
    ("hang", Kind::Hang),
    ("oom", Kind::OutOfMemory),
    ("peer-corrupt", Kind::PeerCorrupt),
    ("nan", Kind::Nan),
];

/// Where it goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Device(usize),
    /// "conv3.weight", "conv3.bias" or "conv3.momentum" (of the weights), of a column.
    Tensor {
        layer: String,
        part: String,
        column: usize,
    },
}

/// One fault.
#[derive(Debug)]
pub struct Fault {
    pub kind: Kind,
    pub place: Place,
    /// Steps count from 1; 0 is the set-up.
    pub step: u64,
    happened: AtomicBool,
}

/// The faults a process was asked for.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

static ACTIVE: OnceLock<Faults> = OnceLock::new();

/// Reads the variable, once, at the start of the program. Whether it names a fault.
///
/// # Errors
/// `Usage` for a text that is no list of faults.
pub fn install() -> Result<bool> {
    let Some(text) = std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) else {
        return Ok(false);
    };
    let faults = Faults::parse(&text.to_string_lossy())?;
    Ok(ACTIVE.set(faults).is_ok())
}

/// The faults that were installed, if any were.
pub fn active() -> Option<&'static Faults> {
    ACTIVE.get()
}

impl Faults {
    /// Faults of a text such as `panic:device1:step3,nan:conv3.weight:step5`.
    ///
    /// # Errors
    /// `Usage`, with the part that is wrong and what can stand there.
    pub fn parse(text: &str) -> Result<Faults> {
        text.split(',')
            .map(Fault::parse)
            .collect::<Result<_>>()
            .map(Faults)
    }

    /// Whether this happens now; a fault that has happened does not happen again.
    pub fn strikes(&self, kind: Kind, device: usize, step: u64) -> bool {
        self.0.iter().any(|fault| {
            (fault.kind, fault.step) == (kind, step)
                && fault.place == Place::Device(device)
                && fault.happens()
        })
    }

    /// The tensors that get a NaN after this step: layer, part of it, column.
    pub fn nans(&self, step: u64) -> impl Iterator<Item = (&str, &str, usize)> {
        self.0.iter().filter_map(move |fault| match &fault.place {
            Place::Tensor {
                layer,
                part,
                column,
            } if fault.step == step && fault.happens() => Some((&layer[..], &part[..], *column)),
            _ => None,
        })
    }

    /// What happens in a device's thread as a step begins (`step` 0: as it is set up).
    ///
    /// # Errors
    /// `Device`, where that is the fault; or it panics, or never returns.
    pub fn at_device(&self, device: usize, step: u64) -> Result<()> {
        let on_purpose = |what: &str| -> Error {
            crate::error::device(format!("{what} (on purpose: {VARIABLE})"))
        };
        if self.strikes(Kind::Panic, device, step) {
            panic!("a panic on purpose ({VARIABLE})");
        }
        if self.strikes(Kind::Hang, device, step) {
            loop {
                std::thread::park();
            }
        }
        if self.strikes(Kind::Fail, device, step) {
            return Err(on_purpose("the device failed"));
        }
        if self.strikes(Kind::OutOfMemory, device, step) {
            return Err(on_purpose("out of memory; take a smaller --batch"));
        }
        Ok(())
    }
}

impl Fault {
    fn happens(&self) -> bool {
        !self.happened.swap(true, Ordering::Relaxed)
    }

    fn parse(text: &str) -> Result<Fault> {
        let wrong = |what: String| {
            usage(format!(
                "{VARIABLE}={text}: {what}; expected KIND:WHERE:stepN such as panic:device1:step3 or nan:conv3.weight:step3"
            ))
        };
        let parts: Vec<&str> = text.split(':').collect();
        let [kind, place, step] = parts[..] else {
            return Err(wrong(format!("{} parts", parts.len())));
        };
        let kinds = || KINDS.map(|(name, _)| name).join(", ");
        let kind = KINDS
            .iter()
            .find(|(name, _)| *name == kind)
            .map(|(_, kind)| *kind)
            .ok_or_else(|| wrong(format!("unknown fault \"{kind}\", known: {}", kinds())))?;
        let place = if kind == Kind::Nan {
            tensor(place).ok_or_else(|| wrong(format!("\"{place}\" is not a tensor")))?
        } else {
            let number = place.strip_prefix("device").and_then(|n| n.parse().ok());
            Place::Device(number.ok_or_else(|| wrong(format!("\"{place}\" is not a device")))?)
        };
        let number = step.strip_prefix("step").and_then(|n| n.parse().ok());
        Ok(Fault {
            kind,
            place,
            step: number.ok_or_else(|| wrong(format!("\"{step}\" is not a step")))?,
            happened: AtomicBool::new(false),
        })
    }
}

/// `LAYER.weight`, `LAYER.bias` or `LAYER.momentum`, and perhaps `.columnN`.
fn tensor(text: &str) -> Option<Place> {
    let mut parts = text.split('.');
    let (layer, part) = (parts.next()?, parts.next()?);
    let column = match parts.next() {
        None => 0,
        Some(column) => column.strip_prefix("column")?.parse().ok()?,
    };
    let known = ["weight", "bias", "momentum"].contains(&part);
    (known && !layer.is_empty() && parts.next().is_none()).then(|| Place::Tensor {
        layer: layer.into(),
        part: part.into(),
        column,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_strikes_its_device_in_its_step_once() {
        let faults = Faults::parse("fail:device1:step3,peer-corrupt:device0:step3").unwrap();
        for (device, step) in [(0, 3), (1, 2), (1, 4)] {
            assert!(faults.at_device(device, step).is_ok(), "{device} {step}");
        }
        assert_eq!(faults.at_device(1, 3).unwrap_err().exit_code(), 5);
        assert!(faults.at_device(1, 3).is_ok(), "it happens once");
        assert!(faults.strikes(Kind::PeerCorrupt, 0, 3));
    }

    #[test]
    fn a_nan_names_a_tensor_and_a_column() {
        let faults = Faults::parse("nan:conv3.weight.column1:step2,nan:fc8.bias:step2").unwrap();
        let found: Vec<_> = faults.nans(2).collect();
        assert_eq!(found, [("conv3", "weight", 1), ("fc8", "bias", 0)]);
        assert_eq!(faults.nans(2).count(), 0);
    }

    #[test]
    fn what_is_no_fault_is_refused_with_what_it_could_be() {
        for (text, word) in [
            ("", "parts"),
            ("panic", "parts"),
            ("explode:device0:step1", "peer-corrupt"),
            ("panic:gpu0:step1", "gpu0"),
            ("panic:device0:3", "\"3\" is not a step"),
            ("panic:device0:step-1", "step-1"),
            ("nan:device0:step1", "tensor"),
            ("nan:conv3.weights:step1", "conv3.weights"),
            ("nan:conv3.weight.column:step1", "column"),
            ("panic:device0:step1,", "parts"),
        ] {
            let error = Faults::parse(text).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }
}
