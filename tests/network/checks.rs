//! What a network on some devices is compared by.

use crate::cases::Case;
use crate::reference::{Masks, Pass, Reference, Values};
use alexnet_mp::device::Device;
use alexnet_mp::engine::{Dropping, Engine, Rates, StepContext};
use alexnet_mp::network::params::Tensors;
use alexnet_mp::optimizer::{Plateau, rates};

/// Relative L2 errors allowed against float64: of logits, loss, parameters; of gradients.
pub const VALUES: f64 = 1e-5;
pub const GRADIENTS: f64 = 3e-5;
/// What a wrong network differs by at least.
pub const WRONG: f64 = 1e-3;

/// An engine with a case's parameters.
pub fn engine<D: Device>(case: &Case, devices: Vec<D>) -> Engine<D> {
    let config = &case.config;
    let plan = config.plan().unwrap();
    let mut engine = Engine::new(plan, devices, config.data.side, config.train.seed, true).unwrap();
    engine.set_parameters(&case.parameters).unwrap();
    engine
}

/// The update constants of a case at its start.
pub fn update_rates(case: &Case) -> Vec<Rates> {
    let plan = case.config.plan().unwrap();
    rates(&case.config.train, &plan.params, 0.0, &Plateau::default())
}

/// One update on the case's batch number `step`; gives its loss.
pub fn step<D: Device>(engine: &mut Engine<D>, case: &Case, step: u32, dropping: Dropping) -> f64 {
    let (images, labels) = case.batch(step);
    engine.load_images(&images, &labels).unwrap();
    if dropping == Dropping::Given {
        engine.set_masks(&case.masks(u64::from(step))).unwrap();
    }
    let context = StepContext {
        dropping,
        first_image: 0,
        whole_batch: case.images,
        accumulate: false,
        update: Some(&update_rates(case)),
    };
    engine.train_step(&context).unwrap();
    engine.take_score().unwrap().loss / case.images as f64
}

/// How a case's dropout is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Masks from the counter-based streams.
    Counter,
    /// The same masks, given.
    Given,
    /// The test-time network.
    Off,
}

impl Kind {
    fn dropping(self, step: u32) -> Dropping {
        match self {
            Kind::Counter => Dropping::Counter {
                step: u64::from(step),
            },
            Kind::Given => Dropping::Given,
            Kind::Off => Dropping::Off,
        }
    }
}

/// Three updates on the devices against three updates of the reference.
pub fn equals_the_reference<D: Device>(case: &Case, kind: Kind, devices: Vec<D>) {
    let mut engine = engine(case, devices);
    let mut reference = Reference::new(&case.config, &case.parameters);
    let logits = engine.plan().logits;
    for number in 0..3 {
        let expected = reference_pass(&reference, case, number, kind);
        let loss = step(&mut engine, case, number, kind.dropping(number));
        assert_close(case, "loss", &[loss as f32], &[expected.loss], VALUES);
        if number == 0 {
            let found = engine.activations(logits).unwrap();
            assert_close(case, "logits", &found, &expected.logits, VALUES);
            let found = engine.gradients().unwrap();
            assert_all(case, "gradient", &found, &expected.gradients, GRADIENTS);
        }
        reference.update(&expected.gradients);
    }
    let parameters = engine.parameters().unwrap();
    assert_all(
        case,
        "parameter",
        &parameters,
        &reference.parameters,
        VALUES,
    );
    let momentum = engine.momentum().unwrap();
    assert_all(case, "momentum", &momentum, &reference.momentum, GRADIENTS);
}

/// The reference's pass over the case's batch number `step`.
pub fn reference_pass(reference: &Reference, case: &Case, step: u32, kind: Kind) -> Pass {
    let (images, labels) = case.batch(step);
    let masks = case.masks_by_map(u64::from(step));
    let masks: Masks = (kind != Kind::Off).then_some(&masks[..]);
    reference.pass(&case.maps(&images), &labels, masks)
}

/// ‖actual − expected‖ / ‖expected‖.
pub fn relative_error(actual: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let pairs = actual.iter().zip(expected);
    let difference: f64 = pairs.map(|(a, e)| (f64::from(*a) - e).powi(2)).sum();
    let norm: f64 = expected.iter().map(|e| e * e).sum();
    (difference / norm.max(1e-300)).sqrt()
}

#[track_caller]
fn assert_close(case: &Case, what: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    let error = relative_error(actual, expected);
    if std::env::var_os("SHOW_ERRORS").is_some() {
        println!("{error:.1e} {what} of {}", case.name);
    }
    assert!(
        error <= tolerance,
        "{}: relative error {error:e} of {what}",
        case.name
    );
}

fn assert_all(case: &Case, what: &str, found: &Tensors, expected: &Values, tolerance: f64) {
    assert_eq!(found.0.len(), expected.len());
    for tensor in &found.0 {
        let what = format!("{what} {}", tensor.name);
        assert_close(
            case,
            &what,
            &tensor.values,
            &expected[&tensor.name],
            tolerance,
        );
    }
}
