//! Proof on the user's own devices that they compute what they should: every operation against
//! [`plain`], copies between devices, the network on these devices against the same on one other,
//! and a short training run.

mod network;
mod operations;
mod peers;
pub mod plain;
mod report;
mod training;

pub use report::{Check, Report};

use crate::device::Device;
use crate::error::Result;
use crate::precision::Precision;
use report::Recorder;
use std::time::Instant;

/// How much is verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// A small network's shapes instead of the paper's: for slow devices and for tests.
    pub quick: bool,
    /// What the devices compute in.
    pub precision: Precision,
}

/// Verifies every operation of one device; see [`verify`].
///
/// # Errors
/// `Device`, naming the operation.
pub fn operations<D: Device>(
    device: &mut D,
    options: &Options,
    each: &mut dyn FnMut(&Check),
) -> Result<()> {
    operations::verify(device, options, &mut Recorder::new(each))
}

/// Verifies the devices of a network of two columns: one for both, or one for each. `each` is
/// shown every check as soon as it is made. What the devices do wrong is in the report; an error
/// means that the verification itself could not go on.
///
/// # Errors
/// `Device`, naming the operation.
pub fn verify<D: Device>(
    mut devices: Vec<D>,
    options: &Options,
    each: &mut dyn FnMut(&Check),
) -> Result<Report> {
    let start = Instant::now();
    let names: Vec<String> = devices.iter().map(Device::name).collect();
    let mut recorder = Recorder::new(each);
    for (index, name) in names.iter().enumerate() {
        // Two columns on one device, or on alike ones, are verified once.
        if !names[..index].contains(name) {
            operations::verify(&mut devices[index], options, &mut recorder)?;
        }
    }
    if let [first, second] = &mut devices[..] {
        peers::verify(first, second, options, &mut recorder)?;
    }
    let devices = network::verify(devices, options, &mut recorder)?;
    training::verify(devices, options, &mut recorder)?;
    Ok(Report {
        devices: names,
        seconds: start.elapsed().as_secs_f64(),
        checks: recorder.into_checks(),
    })
}
