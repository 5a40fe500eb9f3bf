//! The whole network: the columns on the devices against both columns in one piece elsewhere.

use super::Options;
use super::plain::Plain;
use super::report::{Check, Recorder, relative_error, worst};
use crate::config::{Config, Train};
use crate::device::Device;
use crate::device::cpu::CpuDevice;
use crate::engine::{Dropping, Engine, StepContext};
use crate::error::{Result, device as device_error};
use crate::network::params::Tensors;
use crate::optimizer::{Plateau, rates};
use crate::precision::Precision;
use crate::random::{Key, Purpose};

/// Updates that are compared.
const STEPS: u64 = 3;

/// Allowed relative L2 errors: of the logits, the parameters, and the gradients and momentum.
///
/// Where two values of a pooling window, or a value and the ReLU's corner, are nearer than f32
/// resolves, the gradient may take another way; in the paper's network a few of its 400,000
/// windows do, hence the wide tolerance for gradients there.
struct Tolerances {
    logits: f64,
    parameters: f64,
    gradients: f64,
}

impl Tolerances {
    /// In fewer bits every layer rounds its maps, and near values change places in more windows.
    fn of(small: bool, precision: Precision) -> Self {
        let base = if small { SMALL } else { FULL };
        let rounding = match precision {
            Precision::F32 => return base,
            _ => precision.rounding(),
        };
        Tolerances {
            logits: base.logits + 16.0 * rounding,
            parameters: base.parameters + rounding,
            gradients: base.gradients + 64.0 * rounding,
        }
    }
}

const SMALL: Tolerances = Tolerances {
    logits: 1e-5,
    parameters: 1e-5,
    gradients: 1e-4,
};
const FULL: Tolerances = Tolerances {
    logits: 1e-4,
    parameters: 1e-4,
    gradients: 3e-2,
};

/// Overrides of the preset `paper` for the small network.
pub(super) fn size(small: bool) -> Vec<String> {
    let overrides: &[&str] = if small {
        &[
            "network.width=0.25",
            "network.image=64",
            "network.classes=10",
            "network.init=\"fan-in\"",
            "data.side=72",
        ]
    } else {
        &[]
    };
    overrides.iter().map(|o| o.to_string()).collect()
}

/// Compares a small network with the plain reference, and the paper's with one CPU device. Gives
/// the devices back.
pub(super) fn verify<D: Device>(
    devices: Vec<D>,
    options: &Options,
    recorder: &mut Recorder<'_>,
) -> Result<Vec<D>> {
    let small = vec![Plain::default()];
    let devices = compare(devices, small, true, options, recorder)?;
    if options.quick {
        return Ok(devices);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let whole = vec![CpuDevice::open(cores)?];
    compare(devices, whole, false, options, recorder)
}

/// What a network computed.
struct Outcome {
    logits: Vec<f32>,
    gradients: Tensors,
    parameters: Tensors,
    momentum: Tensors,
    exchanged: u64,
}

fn compare<D: Device, R: Device>(
    devices: Vec<D>,
    reference: Vec<R>,
    small: bool,
    options: &Options,
    recorder: &mut Recorder<'_>,
) -> Result<Vec<D>> {
    let tolerances = &Tolerances::of(small, options.precision);
    let mut overrides = size(small);
    let batch = if small { 3 } else { 2 };
    overrides.extend([
        format!("train.batch={batch}"),
        "train.learning_rate=1e-3".into(),
    ]);
    let config = Config::load("paper", &overrides)?;
    let own = Config {
        train: Train {
            precision: options.precision,
            ..config.train.clone()
        },
        ..config.clone()
    };
    let named = |error| device_error(format!("verify: network, {batch} images: {error}"));
    let (expected, mut reference) = run(&config, reference).map_err(named)?;
    let against = reference.pop().map_or(String::new(), |r| r.name());
    drop(reference);
    let count = devices.len();
    let (found, devices) = run(&own, devices).map_err(named)?;
    let names: Vec<String> = devices.iter().map(Device::name).collect();
    let check = |name: &str| Check {
        section: "network",
        name: format!(
            "{} network, {name}",
            if small { "small" } else { "paper's" }
        ),
        device: names.join(" and "),
        shape: format!("{batch} images, {} px", config.network.image),
        passed: true,
        detail: Some(format!("against {against}")),
        ..Check::default()
    };
    recorder.add(logits(
        check("logits"),
        &found,
        &expected,
        tolerances.logits,
    ));
    for (name, found, expected, tolerance) in [
        (
            "gradients",
            &found.gradients,
            &expected.gradients,
            tolerances.gradients,
        ),
        (
            "momentum after 3 updates",
            &found.momentum,
            &expected.momentum,
            tolerances.gradients,
        ),
        (
            "parameters after 3 updates",
            &found.parameters,
            &expected.parameters,
            tolerances.parameters,
        ),
    ] {
        recorder.add(tensors(check(name), found, expected, tolerance));
    }
    let plan = own.plan()?;
    let planned = if count > 1 {
        STEPS * (2 * plan.exchanged_bytes(batch) + plan.exchanged_bytes_per_update()) as u64
    } else {
        0
    };
    recorder.add(Check {
        passed: found.exchanged == planned,
        detail: Some(format!(
            "expected {planned} bytes by the plan, found {}",
            found.exchanged
        )),
        ..check("bytes exchanged")
    });
    Ok(devices)
}

fn logits(mut check: Check, found: &Outcome, expected: &Outcome, tolerance: f64) -> Check {
    let error = relative_error(&found.logits, &expected.logits);
    (check.error, check.tolerance) = (Some(error), Some(tolerance));
    if error > tolerance {
        check.passed = false;
        check.detail = Some(worst("logits", &found.logits, &expected.logits));
    }
    check
}

/// The worst tensor decides.
fn tensors(mut check: Check, found: &Tensors, expected: &Tensors, tolerance: f64) -> Check {
    let error = |(f, e): (_, _)| {
        let (f, e): (
            &crate::network::params::Tensor,
            &crate::network::params::Tensor,
        ) = (f, e);
        (relative_error(&f.values, &e.values), f, e)
    };
    let all = found.0.iter().zip(&expected.0).map(error);
    let Some((error, found, expected)) = all.max_by(|a, b| a.0.total_cmp(&b.0)) else {
        return check;
    };
    (check.error, check.tolerance) = (Some(error), Some(tolerance));
    check.passed = error <= tolerance;
    check.detail = Some(if check.passed {
        format!(
            "{}, worst in {}",
            check.detail.unwrap_or_default(),
            found.name
        )
    } else {
        worst(&found.name, &found.values, &expected.values)
    });
    check
}

/// Three updates from the initial parameters; gradients and logits are the first one's.
fn run<D: Device>(config: &Config, devices: Vec<D>) -> Result<(Outcome, Vec<D>)> {
    let plan = config.plan()?;
    let (slot, params, shape) = (
        plan.logits,
        plan.params.clone(),
        plan.slots[plan.input].shape,
    );
    let (batch, classes) = (plan.batch, plan.classes);
    let seed = config.train.seed;
    let mut engine = Engine::new(plan, devices, config.data.side, seed, true)?;
    engine.set_parameters(&Tensors::initial(&params, seed))?;
    let mut stream = Key::new(seed, Purpose::Verify).stream(300, 0);
    let images: Vec<f32> = (0..batch * shape.len())
        .map(|_| stream.between(-100.0, 100.0))
        .collect();
    let labels: Vec<u32> = (0..batch).map(|_| stream.below(classes as u32)).collect();
    engine.load_images(&images, &labels)?;
    let rates = rates(&config.train, &params, 0.0, &Plateau::default());
    let mut first = None;
    for step in 0..STEPS {
        let context = StepContext {
            dropping: Dropping::Counter { step },
            first_image: 0,
            whole_batch: batch,
            accumulate: false,
            update: Some(&rates),
        };
        engine.train_step(&context)?;
        if step == 0 {
            first = Some((engine.activations(slot)?, engine.gradients()?));
        }
    }
    let (logits, gradients) = first.unwrap_or_default();
    let outcome = Outcome {
        logits,
        gradients,
        parameters: engine.parameters()?,
        momentum: engine.momentum()?,
        exchanged: engine.exchanged_bytes(),
    };
    Ok((outcome, engine.into_devices()))
}
