//! Training in 16 bits and TF32 beside f32.

use crate::cases::Case;
use crate::checks::{engine, step};
use crate::cuda::session;
use alexnet_mp::device::cpu::CpuDevice;
use alexnet_mp::device::cuda::CudaDevice;
use alexnet_mp::device::loss_scale::LossScale;
use alexnet_mp::engine::{Dropping, Engine};
use alexnet_mp::precision::Precision;
use vcuda::{Options, Streams};

fn case(precision: Precision) -> Case {
    let precision = format!("train.precision={precision}");
    Case::tiny("paper", &[&precision, "train.learning_rate=0.01"])
}

fn on_two(case: &Case) -> Engine<CudaDevice> {
    let devices = (0..2).map(|gpu| CudaDevice::open(gpu).unwrap());
    engine(case, devices.collect())
}

/// Losses of updates on the same batch, without dropout.
fn losses(precision: Precision, updates: usize) -> Vec<f64> {
    let case = case(precision);
    let mut engine = on_two(&case);
    (0..updates)
        .map(|_| step(&mut engine, &case, 0, Dropping::Off))
        .collect()
}

#[test]
fn losses_fall_in_every_precision_as_in_f32() {
    let Some(session) = session(&Options::default(), &[0, 1]) else {
        return;
    };
    let expected = losses(Precision::F32, 25);
    let fall = expected[0] - expected[24];
    assert!(fall > 0.5 * expected[0], "{expected:?}");
    for precision in [Precision::Tf32, Precision::Bf16, Precision::F16] {
        let found = losses(precision, 25);
        for (found, expected) in found.iter().zip(&expected) {
            // Logits are off by a few roundings, and the way down is the same.
            let allowed = 16.0 * precision.rounding() * (expected + fall);
            assert!(
                (found - expected).abs() < allowed,
                "{precision}: {found} for {expected}"
            );
        }
    }
    assert_eq!(session.counters().faults, 0, "{:?}", session.last_fault());
}

#[test]
fn what_crosses_in_16_bits_is_half_and_what_the_plan_says() {
    let Some(_session) = session(&Options::default(), &[0, 1]) else {
        return;
    };
    let f32_bytes = case(Precision::F32)
        .config
        .plan()
        .unwrap()
        .exchanged_bytes(2);
    for (precision, part) in [
        (Precision::Bf16, 2),
        (Precision::F16, 2),
        (Precision::Tf32, 1),
    ] {
        let case = case(precision);
        let mut engine = on_two(&case);
        let plan = engine.plan().clone();
        assert_eq!(plan.exchanged_bytes(2), f32_bytes / part);
        step(&mut engine, &case, 0, Dropping::Off);
        let predicted = 2 * plan.exchanged_bytes(2) + plan.exchanged_bytes_per_update();
        assert_eq!(engine.exchanged_bytes(), predicted as u64, "{precision}");
    }
}

#[test]
fn a_step_that_overflows_is_skipped_on_both_gpus_and_halves_the_scale() {
    let options = Options {
        streams: Some(Streams::Random(4)),
        ..Options::default()
    };
    let Some(_session) = session(&options, &[0, 1]) else {
        return;
    };
    let case = case(Precision::F16);
    let mut engine = on_two(&case);
    let scale = 2f32.powi(60);
    let start = LossScale { scale, steps: 7.0 };
    engine.set_loss_scale(start).unwrap();
    step(&mut engine, &case, 0, Dropping::Off);
    assert_eq!(engine.parameters().unwrap(), case.parameters);
    let halved = LossScale {
        scale: scale / 2.0,
        steps: 0.0,
    };
    assert_eq!(engine.loss_scale().unwrap(), Some(halved));
    engine.set_loss_scale(LossScale::default()).unwrap();
    step(&mut engine, &case, 0, Dropping::Off);
    assert_ne!(engine.parameters().unwrap(), case.parameters);
    let counted = LossScale {
        steps: 1.0,
        ..LossScale::default()
    };
    assert_eq!(engine.loss_scale().unwrap(), Some(counted));
}

#[test]
fn gradients_are_told_without_the_scale() {
    let Some(_session) = session(&Options::default(), &[0, 1]) else {
        return;
    };
    let gradients = |precision| {
        let case = case(precision);
        let mut engine = on_two(&case);
        step(&mut engine, &case, 0, Dropping::Off);
        engine.gradients().unwrap()
    };
    let (expected, found) = (gradients(Precision::F32), gradients(Precision::F16));
    for (found, expected) in found.0.iter().zip(&expected.0) {
        let size = |v: &[f32]| v.iter().map(|v| v.abs()).fold(0.0, f32::max);
        let (found, expected) = (size(&found.values), size(&expected.values));
        assert!(
            (found - expected).abs() < 0.1 * expected,
            "{found} {expected}"
        );
    }
}

/// Relative L2 error of the gradients against f32, the largest of all tensors.
fn gradient_error(precision: Precision, overrides: &[&str]) -> f64 {
    let gradients = |precision: Precision| {
        let precision = format!("train.precision={precision}");
        let case = Case::tiny("paper", &[&[&precision[..]], overrides].concat());
        let mut engine = on_two(&case);
        step(&mut engine, &case, 0, Dropping::Off);
        engine.gradients().unwrap()
    };
    let (expected, found) = (gradients(Precision::F32), gradients(precision));
    let pairs = found.0.iter().zip(&expected.0);
    let errors = pairs.map(|(found, expected)| {
        let squares = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            let pairs = found.values.iter().zip(&expected.values);
            pairs.map(|(&f, &e)| of(f.into(), e.into()).powi(2)).sum()
        };
        (squares(&|f, e| f - e) / squares(&|_, e| e)).sqrt()
    });
    errors.fold(0.0, f64::max)
}

/// With ReLUs and pools it is another matter: a value that rounds to the other side of its corner, or another winner of
/// a window, sends whole gradients elsewhere.
#[test]
fn gradients_of_a_network_without_corners_are_off_by_a_few_roundings() {
    let Some(_session) = session(&Options::default(), &[0, 1]) else {
        return;
    };
    let smooth = [
        "network.activation=\"tanh\"",
        "network.pool.stride=1",
        "network.pool.size=1",
    ];
    for precision in [Precision::Tf32, Precision::Bf16, Precision::F16] {
        let error = gradient_error(precision, &smooth);
        assert!(error < 16.0 * precision.rounding(), "{precision}: {error}");
    }
}

#[test]
fn the_cpu_refuses_16_bits_as_a_mistake_of_usage() {
    let case = case(Precision::Bf16);
    let device = CpuDevice::open(1).unwrap();
    let plan = case.config.plan().unwrap();
    let error = Engine::new(plan, vec![device], 64, 0, false).err().unwrap();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("--precision bf16"), "{error}");
}

#[test]
fn a_gpu_without_the_units_computes_in_f32() {
    let options = Options {
        capability: Some(75),
        ..Options::default()
    };
    let Some(session) = session(&options, &[0, 1]) else {
        return;
    };
    if session.driver() == vcuda::Driver::Virtual {
        let case = case(Precision::Bf16);
        let mut engine = on_two(&case);
        assert_eq!(engine.plan().precision, Precision::F32);
        step(&mut engine, &case, 0, Dropping::Off);
    }
}
