//! Signs of a run's health: the first loss, dead ReLUs, and how large updates are.

use crate::device::Device;
use crate::engine::Engine;
use crate::error::Result;
use crate::network::op::Activation;
use crate::network::params::{Tensor, Tensors};
use crate::network::plan::{Plan, SlotId, Stage};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Share of dead ReLUs of a column from which it is warned of.
const MANY: f64 = 0.5;

/// Steps before which a loss at ln(classes) is no sign of trouble.
pub(super) const PLATEAU: u64 = 200;

/// Says what the first batch's loss was; warns where it is more than a tenth off ln(classes),
/// which small initial weights give.
pub(super) fn first_loss(loss: f64, classes: usize) {
    let chance = (classes as f64).ln();
    if classes > 1 && (loss / chance - 1.0).abs() > 0.1 {
        tracing::warn!(
            "the first batch's loss is {loss:.3}, not about ln({classes}) = {chance:.3}: the initial weights are large for this network (sigma of the layers, network.init)"
        );
    } else {
        tracing::info!("the first batch's loss is {loss:.3}; ln({classes}) is {chance:.3}");
    }
}

/// What is said of a loss that stayed at chance for an epoch.
pub(super) fn plateau(step: u64, loss: f64, classes: usize, learning_rate: f64) -> String {
    let chance = (classes as f64).ln();
    let where_it_is = if loss < chance { "about" } else { "not below" };
    format!(
        "after {step} steps the loss is still {loss:.3}, {where_it_is} ln(classes) = {chance:.3}: likely causes are the learning rate ({learning_rate}), the initial biases, σ at this width (network.init = \"fan-in\" scales it), or unshuffled data"
    )
}

/// Numbers to be logged with an evaluation, of the last batch it computed and of the last update:
/// - `dead_relus/LAYER/columnN`: share of a column's maps (units, where a map is one pixel) that
///   are 0 at every place of every image of the batch;
/// - `update_to_weight/LAYER`: |last update| / |weights|, Euclidean.
///
/// Many dead ReLUs are warned of, once for each layer of a column: `warned` holds those.
pub(super) fn signs<D: Device>(
    engine: &mut Engine<D>,
    warned: &mut BTreeSet<String>,
) -> Result<Map<String, Value>> {
    let mut signs = Map::new();
    let mut many = Vec::new();
    for (layer, slot) in relus(engine.plan()) {
        let (shape, columns) = {
            let slot = &engine.plan().slots[slot];
            (slot.shape, slot.columns)
        };
        let values = engine.activations(slot)?;
        let shares = dead_shares(&values, shape.maps, shape.pixels(), columns);
        for (column, share) in shares.into_iter().enumerate() {
            let place = format!("{layer} of column {column}");
            if share > MANY && warned.insert(place.clone()) {
                many.push(format!("{place} ({:.0} %)", 100.0 * share));
            }
            signs.insert(format!("dead_relus/{layer}/column{column}"), share.into());
        }
    }
    if !many.is_empty() {
        tracing::warn!(
            "most ReLUs answer to no image of the last batch in {}: the learning rate may be too high, or the biases too low",
            many.join(", ")
        );
    }
    let (parameters, momentum) = (engine.parameters()?, engine.momentum()?);
    signs.extend(update_ratios(&parameters, &momentum));
    Ok(signs)
}

/// Layers with ReLUs, and the slots of their values.
fn relus(plan: &Plan) -> Vec<(String, SlotId)> {
    let mut found = Vec::new();
    for stage in &plan.stages {
        let Stage::Compute { layer, steps } = stage else {
            continue;
        };
        if steps[0].activation() == Some(Activation::Relu) {
            found.push((layer.clone(), steps[0].output()));
        }
    }
    found
}

/// Share of the maps of each column that are nowhere above 0; `values` are
/// `[images, columns · maps, pixels]`.
fn dead_shares(values: &[f32], maps: usize, pixels: usize, columns: usize) -> Vec<f64> {
    let mut alive = vec![false; columns * maps];
    for image in values.chunks_exact(columns * maps * pixels) {
        for (alive, map) in alive.iter_mut().zip(image.chunks_exact(pixels)) {
            *alive = *alive || map.iter().any(|&value| value > 0.0);
        }
    }
    let dead = |column: &[bool]| column.iter().filter(|&&alive| !alive).count();
    alive
        .chunks_exact(maps)
        .map(|column| dead(column) as f64 / maps as f64)
        .collect()
}

/// The momentum after an update is the update itself (paper, §5).
fn update_ratios(parameters: &Tensors, momentum: &Tensors) -> Vec<(String, Value)> {
    let norm = |tensor: &Tensor| {
        let squares = tensor.values.iter().map(|&v| f64::from(v).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let ratio = |weights: &Tensor| {
        let layer = weights.name.strip_suffix(".weight")?;
        let update = norm(momentum.get(&weights.name)?);
        let size = norm(weights);
        let ratio = if size > 0.0 { update / size } else { 0.0 };
        Some((format!("update_to_weight/{layer}"), ratio.into()))
    };
    parameters.0.iter().filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_dead_where_no_image_has_a_place_above_zero() {
        // Two images, two columns of two maps, two pixels.
        #[rustfmt::skip]
        let values = [
            0.0, 0.0,   0.0, 1.0,     0.0, 0.0,   0.0, 0.0,
            0.0, 0.0,   0.0, 0.0,    -1.0, 0.0,   0.0, 0.0,
        ];
        assert_eq!(dead_shares(&values, 2, 2, 2), [0.5, 1.0]);
    }

    #[test]
    fn a_loss_above_chance_is_not_called_equal_to_it() {
        let text = plateau(6, 1.71, 3, 0.01);
        let expected = "after 6 steps the loss is still 1.710, not below ln(classes) = 1.099: ";
        assert!(text.starts_with(expected), "{text}");
        let text = plateau(6, 1.095, 3, 0.01);
        assert!(text.contains("1.095, about ln(classes) = 1.099"), "{text}");
    }

    #[test]
    fn the_ratio_is_that_of_the_lengths() {
        let tensors = |values: Vec<f32>| {
            let tensor = |name: &str| Tensor {
                name: name.into(),
                shape: vec![values.len()],
                values: values.clone(),
            };
            Tensors(vec![tensor("conv1.weight"), tensor("conv1.bias")])
        };
        let found = update_ratios(&tensors(vec![3.0, 4.0]), &tensors(vec![0.0, -0.05]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "update_to_weight/conv1");
        assert!((found[0].1.as_f64().unwrap() - 0.01).abs() < 1e-9);
    }
}
