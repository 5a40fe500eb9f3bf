//! Every operation of a device against the plain reference.

use super::Options;
use super::network::Network;
use super::plain::Plain;
use super::report::{Check, Recorder, relative_error, worst};
use crate::config::Config;
use crate::device::{Device, Peak};
use crate::error::{Result, device as device_error};
use crate::measure::{Case, Kind, Output, Pass, Trial, cases};
use crate::network::op::{Activation, Conv, Dropout, LocalNorm, Lrn, Pool, Shape, Window};
use crate::precision::Precision;
use std::time::Duration;

/// Relative L2 errors allowed against float64: of results, and of gradients and updates.
const FORWARD: f64 = 1e-5;
const BACKWARD: f64 = 3e-5;
/// Images compared, and images timed.
const COMPARED: usize = 2;
const TIMED: usize = 32;

/// Verifies and times every operation, at the shapes of the paper's network and at odd ones.
pub(super) fn verify<D: Device>(
    device: &mut D,
    options: &Options,
    recorder: &mut Recorder<'_>,
) -> Result<()> {
    let peak = device.peak()?;
    let precision = device.precision_for(options.precision)?;
    device.set_precision(precision)?;
    let options = &Options {
        precision,
        ..*options
    };
    for case in all_cases(options, device.fuses_linear_update())? {
        let named = |error| {
            let (name, shape) = (name(&case), case.shape());
            device_error(format!("verify: {name}, {shape}: {error}"))
        };
        let mut check = compare(device, &case, precision).map_err(named)?;
        time(device, &case, options, peak, &mut check).map_err(named)?;
        recorder.add(check);
    }
    Ok(())
}

/// "conv1 conv_forward"
fn name(case: &Case) -> String {
    format!("{} {}", case.layer, case.operation())
        .trim()
        .to_string()
}

fn compare<D: Device>(device: &mut D, case: &Case, precision: Precision) -> Result<Check> {
    let found = outputs(device, case, precision)?;
    let expected = outputs(&mut Plain::default(), case, precision)?;
    let tolerance = if case.pass == Pass::Forward {
        FORWARD
    } else {
        BACKWARD
    } + allowed(precision);
    let mut check = Check {
        section: "operation",
        name: name(case),
        device: device.name(),
        shape: case.shape(),
        passed: true,
        error: Some(0.0),
        tolerance: Some(tolerance),
        ..Check::default()
    };
    for (found, expected) in found.iter().zip(&expected) {
        let error = relative_error(&found.values, &expected.values);
        check.error = check.error.map(|most| most.max(error));
        if error > tolerance && check.detail.is_none() {
            check.passed = false;
            check.detail = Some(worst(expected.name, &found.values, &expected.values));
        }
    }
    Ok(check)
}

/// What rounding adds to the relative error of an operation: operands are alike on both sides in 16
/// bits, results and what lies between them are rounded, three times at most (the gradient of pooling
/// and then of normalisation); TF32 rounds the two operands of a product.
fn allowed(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 0.0,
        Precision::Tf32 => 2.0 * precision.rounding(),
        Precision::Bf16 | Precision::F16 => 3.0 * precision.rounding(),
    }
}

fn outputs<D: Device>(device: &mut D, case: &Case, precision: Precision) -> Result<Vec<Output>> {
    let mut trial = Trial::new(device, case, COMPARED, precision)?;
    trial.run(device)?;
    trial.outputs(device)
}

fn time<D: Device>(
    device: &mut D,
    case: &Case,
    options: &Options,
    peak: Option<Peak>,
    check: &mut Check,
) -> Result<()> {
    let (images, budget) = if options.quick {
        (COMPARED, Duration::from_millis(1))
    } else {
        (TIMED, Duration::from_millis(100))
    };
    let mut trial = Trial::new(device, case, images, options.precision)?;
    let seconds = trial.time(device, budget, 1)?;
    check.milliseconds = Some(seconds * 1e3);
    let (flops, bytes) = (
        case.flops(images) / seconds,
        case.bytes(images, options.precision) / seconds,
    );
    if flops > 0.0 {
        check.gflops = Some(flops / 1e9);
        let precision = options.precision;
        check.share_of_peak = peak.map(|peak| flops / peak.flops_in(precision));
    } else {
        check.gigabytes_per_second = Some(bytes / 1e9);
        check.share_of_peak = peak.map(|peak| bytes / peak.bandwidth);
    }
    Ok(())
}

/// The operations of the network, and those that it does not use.
fn all_cases(options: &Options, fused: bool) -> Result<Vec<Case>> {
    let network = match options.quick {
        true => Network::Small,
        false => Network::Papers,
    };
    let config = Config::load("paper", &network.overrides())?;
    let plan = config.plan()?;
    let mut all: Vec<Case> = Vec::new();
    let others = others(config.network.image, config.data.side);
    // A device must know both ways of an update, whichever it prefers.
    let plans = [
        cases::of_plan(&plan, fused),
        cases::of_plan(&plan, !fused),
        others,
    ];
    for case in plans.into_iter().flatten() {
        if !all.iter().any(|known| known.kind == case.kind) {
            all.push(case);
        }
    }
    Ok(all)
}

/// Operations that other networks use, and shapes that nothing divides.
fn others(crop: usize, side: usize) -> Vec<Case> {
    let accumulate = true;
    let (odd, even) = (odd_conv(1), odd_conv(2));
    let linear = |parts| crate::network::op::Linear {
        input: Shape::new(5, 3, 3),
        parts,
        outputs: 37,
        activation: Some(Activation::Tanh),
    };
    let (pool, norm) = (odd_pool(), local_norm());
    let (elements, given) = (10_007, true);
    let forward = [
        Kind::Augment { crop, side },
        Kind::ConvForward(odd),
        Kind::ConvForward(even),
        Kind::LinearForward {
            op: linear(2),
            dropped: None,
        },
        Kind::LinearForward {
            op: linear(1),
            dropped: Some(Dropout {
                units: 37,
                ..dropout()
            }),
        },
        Kind::LrnForward(lrn(0)),
        Kind::LrnForward(lrn(1)),
        Kind::LocalNormForward(norm),
        Kind::PoolForward(pool),
        Kind::LrnPoolForward(own_lrn(pool.input), pool),
        Kind::ActivationForward(Activation::Relu, elements),
        Kind::ActivationForward(Activation::Tanh, elements),
        Kind::DropoutForward {
            op: dropout(),
            given,
        },
        Kind::Scale(elements),
        Kind::Copy(elements),
        Kind::Add(elements),
        Kind::SoftmaxForward(1),
        Kind::SoftmaxForward(10),
        Kind::Score(10),
        Kind::Matrix {
            rows: 131,
            columns: 67,
        },
    ];
    let backward = [
        Kind::ConvData {
            op: odd,
            before: None,
        },
        Kind::ConvData {
            op: odd,
            before: Some(Activation::Tanh),
        },
        Kind::ConvData {
            op: even,
            before: Some(Activation::Relu),
        },
        Kind::ConvWeights {
            op: odd,
            bias: true,
            accumulate,
        },
        Kind::ConvWeights {
            op: even,
            bias: false,
            accumulate,
        },
        Kind::LinearData(linear(1)),
        Kind::LinearWeights {
            op: linear(1),
            accumulate,
        },
        Kind::LinearUpdate(linear(1)),
        Kind::Bias {
            pixels: 35,
            outputs: 17,
            accumulate,
        },
        Kind::ActivationBackward(Activation::Tanh, elements),
        Kind::LrnBackward(lrn(0)),
        Kind::LrnBackward(lrn(1)),
        Kind::LocalNormBackward(norm),
        Kind::PoolBackward(pool),
        Kind::LrnPoolBackward(own_lrn(pool.input), pool),
        Kind::DropoutBackward {
            op: dropout(),
            given,
            before: None,
        },
        Kind::DropoutBackward {
            op: dropout(),
            given,
            before: Some(Activation::Tanh),
        },
        Kind::SoftmaxBackward(10),
        Kind::Sgd(elements),
    ];
    let backward = backward.map(|kind| Case {
        pass: Pass::Backward,
        ..Case::alone(kind)
    });
    forward
        .map(Case::alone)
        .into_iter()
        .chain(backward)
        .collect()
}

fn odd_conv(parts: usize) -> Conv {
    let (input, window) = (Shape::new(5, 14, 11), Window::new(3, 2, 1));
    Conv {
        input,
        parts,
        output: window.output(input, 17),
        window,
        activation: Some(Activation::Tanh),
    }
}

fn odd_pool() -> Pool {
    let (input, window) = (Shape::new(7, 12, 9), Window::new(3, 2, 0));
    Pool {
        input,
        output: window.output(input, input.maps),
        window,
        activated: Some(Activation::Relu),
    }
}

/// Over both columns' maps, and stronger than the paper's, which hardly normalises numbers below 1.
fn lrn(column: usize) -> Lrn {
    Lrn {
        shape: Shape::new(24, 9, 7),
        parts: 2,
        column,
        size: 5,
        k: 1.0,
        alpha: 0.3,
        beta: 0.75,
    }
}

/// Over one column's maps, so weak that equal maxima keep their order on every device.
fn own_lrn(shape: Shape) -> Lrn {
    Lrn {
        shape,
        parts: 1,
        k: 2.0,
        alpha: 1e-4,
        ..lrn(0)
    }
}

fn local_norm() -> LocalNorm {
    LocalNorm {
        shape: Shape::new(16, 13, 11),
        size: 5,
        k: 1.0,
        alpha: 0.1,
        beta: 0.75,
    }
}

/// The second column's half, scaled in training.
fn dropout() -> Dropout {
    Dropout {
        units: 101,
        first_unit: 101,
        all_units: 202,
        rate: 0.3,
        rescale: true,
    }
}
