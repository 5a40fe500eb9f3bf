//! The reference itself: its gradients against differences of its loss.

use crate::cases::Case;
use crate::checks::{Kind, reference_pass};
use crate::reference::Reference;
use alexnet_mp::random::{Key, Purpose};

/// Compares the slope of the loss along a random direction of every tensor.
fn gradients_are_slopes(case: &Case, kind: Kind, step: f64, tolerance: f64) {
    let mut reference = Reference::new(&case.config, &case.parameters);
    let gradients = reference_pass(&reference, case, 0, kind).gradients;
    for (i, (name, gradient)) in gradients.iter().enumerate() {
        let before = reference.parameters[name].clone();
        let mut stream = Key::new(4, Purpose::Verify).stream(i as u32, 0);
        let direction: Vec<f64> = before.iter().map(|_| f64::from(stream.normal())).collect();
        let mut loss = |h: f64| {
            let moved = before.iter().zip(&direction).map(|(w, d)| w + h * d);
            reference.parameters.insert(name.clone(), moved.collect());
            reference_pass(&reference, case, 0, kind).loss
        };
        let slope = (loss(step) - loss(-step)) / (2.0 * step);
        reference.parameters.insert(name.clone(), before);
        let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let error = ((slope - expected) / expected).abs();
        assert!(
            error < tolerance,
            "{}: {name}: {slope} for {expected}",
            case.name
        );
    }
}

#[test]
fn of_the_papers_network() {
    // Longer steps drown less in rounding; kinks of ReLU and pooling stay rare.
    gradients_are_slopes(&Case::tiny("paper", &[]), Kind::Given, 1e-7, 1e-5);
}

/// Nothing but smooth functions, save for the maxima of pooling.
#[test]
fn of_a_network_with_tanh_and_every_normalisation() {
    let case = Case::tiny(
        "source-145",
        &["network.activation=tanh", "network.lrn.alpha=0.01"],
    );
    gradients_are_slopes(&case, Kind::Off, 1e-7, 1e-5);
}

#[test]
fn of_caffes_network() {
    let case = Case::tiny("caffe", &["network.lrn.alpha=0.01"]);
    gradients_are_slopes(&case, Kind::Given, 1e-8, 1e-5);
}
