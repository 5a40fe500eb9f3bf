//! Two columns, on one device or two, compute the one-piece network in groups; networks that are
//! wrong in the ways two columns invite do not.

use crate::cases::Case;
use crate::checks::*;
use crate::reference::Reference;
use alexnet_mp::config::Config;
use alexnet_mp::device::cpu::CpuDevice;
use alexnet_mp::random::{Key, Purpose};

fn devices(count: usize, threads: usize) -> Vec<CpuDevice> {
    let open = |_| CpuDevice::open(threads).unwrap();
    (0..count).map(open).collect()
}

fn on_one_and_two_devices(case: &Case, kind: Kind) {
    equals_the_reference(case, kind, devices(1, 2));
    equals_the_reference(case, kind, devices(2, 1));
}

#[test]
fn the_papers_network() {
    for kind in [Kind::Counter, Kind::Given, Kind::Off] {
        on_one_and_two_devices(&Case::small("paper", &[]), kind);
    }
}

#[test]
fn the_papers_network_with_tanh() {
    let case = Case::small("paper", &["network.activation=tanh"]);
    on_one_and_two_devices(&case, Kind::Counter);
    on_one_and_two_devices(&case, Kind::Off);
}

/// Pooling before the activation, a local normalisation, biases at twice the rate.
#[test]
fn the_2012_sources_network() {
    let case = Case::small("source-145", &[]);
    on_one_and_two_devices(&case, Kind::Counter);
    let case = Case::small("source-145", &["network.activation=tanh"]);
    on_one_and_two_devices(&case, Kind::Given);
}

/// Normalisation over the maps of both columns, dropout rescaled in training.
#[test]
fn caffes_network() {
    let case = Case::small("caffe", &["network.lrn.alpha=0.01"]);
    for kind in [Kind::Counter, Kind::Given, Kind::Off] {
        on_one_and_two_devices(&case, kind);
    }
}

#[test]
fn one_column_of_the_2012_source() {
    let case = Case::small("source-145-half", &[]);
    equals_the_reference(&case, Kind::Counter, devices(1, 2));
}

/// A single column that reads everything: another network than two columns.
#[test]
fn one_column_of_the_papers_network() {
    let case = Case::small("paper", &["network.columns=1"]);
    equals_the_reference(&case, Kind::Counter, devices(1, 1));
}

/// Pooling that does not overlap, no rate of dropout at all, another normalisation.
#[test]
fn a_network_of_other_constants() {
    let case = Case::small(
        "paper",
        &[
            "network.pool.size=2",
            "network.dropout.rate=0.25",
            "network.lrn.n=3",
            "network.lrn.divide_by_n=true",
            "network.lrn.beta=0.5",
        ],
    );
    on_one_and_two_devices(&case, Kind::Counter);
}

/// Where the derivative of an activation goes back with what comes after it, whatever comes after that.
#[test]
fn networks_with_dropout_after_convolutions() {
    for activation in ["relu", "tanh"] {
        let case = Case::small(
            "caffe",
            &[
                &format!("network.activation={activation}"),
                "network.lrn.scope=\"column\"",
                "layers.conv3.then=[\"activation\", \"dropout\"]",
                "layers.conv4.then=[\"lrn\", \"activation\"]",
                "layers.conv5.then=[\"activation\", \"dropout\", \"pool\"]",
            ],
        );
        for kind in [Kind::Counter, Kind::Given, Kind::Off] {
            on_one_and_two_devices(&case, kind);
        }
    }
}

/// Every order of up to three operations after a weighted sum, the same one twice included. With tanh, whose derivative
/// is told from its output, and dropout that rescales, whatever overwrites values that are needed going back shows.
#[test]
fn layers_with_any_operations_in_any_order() {
    let names = ["activation", "lrn", "local_norm", "pool", "dropout"];
    let mut orders = vec![vec![]];
    for length in 1..=3 {
        let shorter = orders.iter().filter(|order| order.len() + 1 == length);
        let longer: Vec<Vec<&str>> = shorter
            .flat_map(|order| names.map(|name| [&order[..], &[name]].concat()))
            .collect();
        orders.extend(longer);
    }
    for order in orders {
        let case = Case::tiny(
            "paper",
            &[
                "network.activation=tanh",
                "network.dropout.rate=0.3",
                "network.dropout.rescale=true",
                &format!("layers.conv2.then={order:?}"),
            ],
        );
        equals_the_reference(&case, Kind::Counter, devices(1, 1));
    }
}

/// Networks drawn at random: what layers read, from which one on they are on one column, what follows them, over which
/// maps is normalised.
#[test]
fn networks_of_any_layers() {
    let operations = ["activation", "lrn", "local_norm", "pool", "dropout"];
    let layers = [
        "conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8",
    ];
    for number in 0..40 {
        let mut stream = Key::new(number, Purpose::Verify).stream(0, 0);
        let mut one_of = |from: &[&str]| from[stream.below(from.len() as u32) as usize].to_string();
        let columns = one_of(&["1", "2", "2", "2"]);
        let mut overrides = vec![
            format!("network.columns={columns}"),
            format!("network.activation={}", one_of(&["relu", "tanh"])),
            format!("network.lrn.scope={}", one_of(&["column", "all"])),
            format!("network.dropout.rescale={}", one_of(&["true", "false"])),
            "network.lrn.alpha=0.01".into(),
            "network.dropout.rate=0.3".into(),
        ];
        let joined = one_of(&layers[1..]);
        for layer in layers {
            let then: Vec<String> = (0..3)
                .map(|_| one_of(&[&operations[..], &["nothing"; 4]].concat()))
                .filter(|name| name != "nothing")
                .collect();
            let reads = match layer {
                "conv1" => "image".into(),
                layer if layer == joined => "all".into(),
                _ => one_of(&["own", "all"]),
            };
            let on = if *layer < *joined { "each" } else { "first" };
            overrides.push(format!("layers.{layer}.then={then:?}"));
            overrides.push(format!("layers.{layer}.reads={reads}"));
            overrides.push(format!("layers.{layer}.on={on}"));
        }
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let case = Case::tiny("paper", &overrides);
        equals_the_reference(&case, Kind::Counter, devices(1, 1));
        if columns == "2" {
            equals_the_reference(&case, Kind::Counter, devices(2, 1));
        }
    }
}

#[test]
fn layers_that_do_not_fit_their_columns_are_refused() {
    for (overrides, reason) in [
        (
            &["layers.fc8.on=each", "network.classes=6"][..],
            "layers.fc8.on: the last layer",
        ),
        (
            &["layers.fc6.on=first"],
            "layers.fc7.on: it reads a layer on the first column alone",
        ),
        (
            &["layers.fc8.reads=own"],
            "layers.fc8.reads: a layer on the first column alone",
        ),
        (
            &["layers.conv3.reads=image"],
            "layers.conv3.reads: the first layer reads",
        ),
        (
            &["layers.conv1.reads=own"],
            "layers.conv1.reads: the first layer reads",
        ),
    ] {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let error = Config::load("paper", &overrides).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
    }
}

/// The relative error of the logits of two devices against a reference made wrong.
fn difference(case: &Case, config: &Config, change: impl Fn(&mut Reference)) -> f64 {
    let mut engine = engine(case, devices(2, 1));
    let mut reference = Reference::new(config, &case.parameters);
    change(&mut reference);
    let expected = reference_pass(&reference, case, 0, Kind::Off);
    step(&mut engine, case, 0, alexnet_mp::engine::Dropping::Off);
    let logits = engine.activations(engine.plan().logits).unwrap();
    relative_error(&logits, &expected.logits)
}

#[test]
fn a_network_without_the_exchange_before_conv3_is_told_apart() {
    let case = Case::small("paper", &[]);
    let wrong = difference(&case, &case.config, |reference| {
        // The other column's maps read as zeros: their weights do nothing.
        let weights = reference.parameters.get_mut("conv3.weight").unwrap();
        let shape = &case.parameters.get("conv3.weight").unwrap().shape;
        let (outputs, inputs) = (shape[0], shape[1]);
        for (row, weights) in weights.chunks_mut(inputs * 9).enumerate() {
            let own = row / (outputs / 2);
            weights[(1 - own) * inputs / 2 * 9..][..inputs / 2 * 9].fill(0.0);
        }
    });
    assert!(wrong > WRONG, "{wrong}");
    assert!(difference(&case, &case.config, |_| ()) < VALUES);
}

#[test]
fn a_normalisation_over_the_border_between_columns_is_told_apart() {
    let case = Case::small("paper", &[]);
    let mut config = case.config.clone();
    config.network.lrn.scope = alexnet_mp::network::layer::LrnScope::All;
    let wrong = difference(&case, &config, |_| ());
    assert!(wrong > WRONG, "{wrong}");
}

#[test]
fn fully_connected_layers_with_their_inputs_halves_swapped_are_told_apart() {
    let case = Case::small("paper", &[]);
    for layer in ["fc6", "fc7", "fc8"] {
        let name = format!("{layer}.weight");
        let wrong = difference(&case, &case.config, |reference| {
            let fan_in = case.parameters.get(&name).unwrap().shape[1];
            let weights = reference.parameters.get_mut(&name).unwrap();
            for row in weights.chunks_mut(fan_in) {
                row.rotate_left(fan_in / 2);
            }
        });
        assert!(wrong > WRONG, "{layer}: {wrong}");
    }
}
