//! The floor under every layer's time: operations and least bytes against the device's peaks.
//!
//! A floor counts the weighted sums, their gradients and the update, every operand read or written
//! once; what is done element by element between them (activation, normalisation, pooling,
//! dropout, bias) is taken to be fused and to cost nothing. So no arrangement of the same
//! operations is faster.

use crate::config::Config;
use crate::device::{Device, Peak};
use crate::error::{Result, device as device_error};
use crate::measure::{Case, Kind, Pass, Trial, cases};
use crate::network::plan::Plan;
use serde::Serialize;
use std::time::Duration;

/// Time given to each operation beyond its first two runs.
const BUDGET: Duration = Duration::from_millis(50);

/// One column's layer in one pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Floor {
    pub layer: String,
    /// "forward", "backward", "update".
    pub pass: &'static str,
    pub gflop: f64,
    pub megabytes: f64,
    pub floor_microseconds: f64,
    /// "operations" or "memory".
    pub bound_by: &'static str,
    /// All operations of the layer in this pass, one by one; 0 where the update is part of the
    /// gradient.
    pub microseconds: f64,
}

/// The floors of one column, and what they come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Roofline {
    pub peak_flops: f64,
    pub bandwidth: f64,
    /// Whether the peaks were measured; else nominal.
    pub measured: bool,
    pub floors: Vec<Floor>,
    /// Of a column's step.
    pub floor_milliseconds: f64,
    pub milliseconds: f64,
}

/// Computes the floors of one column of the network on `device`, and times its operations there.
///
/// # Errors
/// `Device` where the device does not tell its peaks; those of the operations.
pub fn roofline<D: Device>(config: &Config, device: &mut D) -> Result<Roofline> {
    let plan = config.plan()?;
    let peak = device.peak()?.ok_or_else(|| {
        device_error(format!(
            "--roofline: {} does not tell its clocks, so its peaks are not known",
            device.name()
        ))
    })?;
    let mut floors = floors(&plan, &peak);
    for case in cases::of_plan(&plan, device.fuses_linear_update()) {
        let mut trial = Trial::new(device, &case, plan.batch, plan.precision)?;
        let time = 1e6 * trial.time(device, BUDGET, 2)? * case.times as f64;
        let floor = entry(&mut floors, &case);
        floor.microseconds += time;
    }
    let sum = |of: fn(&Floor) -> f64| floors.iter().map(of).sum::<f64>() / 1e3;
    Ok(Roofline {
        peak_flops: peak.flops_in(plan.precision),
        bandwidth: peak.bandwidth,
        measured: peak.measured,
        floor_milliseconds: sum(|f| f.floor_microseconds),
        milliseconds: sum(|f| f.microseconds),
        floors,
    })
}

/// The floors of one column, without times.
pub fn floors(plan: &Plan, peak: &Peak) -> Vec<Floor> {
    let mut floors = Vec::new();
    // With the update folded into the gradient of fully connected layers: the least bytes.
    for case in cases::of_plan(plan, true) {
        let times = case.times as f64;
        let (flops, bytes) = match case.kind {
            Kind::ConvForward(_)
            | Kind::ConvData { .. }
            | Kind::ConvWeights { .. }
            | Kind::LinearForward { .. }
            | Kind::LinearData(_)
            | Kind::LinearUpdate(_)
            | Kind::Sgd(_) => (
                times * case.flops(plan.batch),
                times * case.bytes(plan.batch, plan.precision),
            ),
            _ => (0.0, 0.0),
        };
        let of_operations = 1e6 * flops / peak.flops_in(plan.precision);
        let of_memory = 1e6 * bytes / peak.bandwidth;
        let floor = entry(&mut floors, &case);
        floor.gflop += flops / 1e9;
        floor.megabytes += bytes / 1e6;
        floor.floor_microseconds += of_operations.max(of_memory);
        // What the pass's largest operation is bound by.
        if of_operations.max(of_memory) * 2.0 > floor.floor_microseconds {
            floor.bound_by = match of_operations > of_memory {
                true => "operations",
                false => "memory",
            };
        }
    }
    floors
}

/// The entry of a case's layer and pass, made where there is none.
fn entry<'a>(floors: &'a mut Vec<Floor>, case: &Case) -> &'a mut Floor {
    let pass = match case.pass {
        Pass::Forward => "forward",
        Pass::Backward => "backward",
        Pass::Update => "update",
    };
    let found = floors
        .iter()
        .position(|f| f.layer == case.layer && f.pass == pass);
    let place = found.unwrap_or_else(|| {
        floors.push(Floor {
            layer: case.layer.clone(),
            pass,
            ..Floor::default()
        });
        floors.len() - 1
    });
    &mut floors[place]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One H200.
    const H200: Peak = Peak {
        flops: 67e12,
        tensor_flops: [990e12, 495e12],
        bandwidth: 4.8e12,
        measured: false,
    };

    fn step(precision: &str, batch: usize) -> f64 {
        let overrides = [
            format!("train.precision={precision}"),
            format!("train.batch={batch}"),
        ];
        let plan = Config::load("paper", &overrides).unwrap().plan().unwrap();
        let column: f64 = floors(&plan, &H200)
            .iter()
            .map(|f| f.floor_microseconds)
            .sum();
        2.0 * column / 1e3
    }

    #[test]
    fn the_floors_of_both_columns_on_one_h200_are_those_computed_by_hand() {
        // Operations alone, three products of each weighted sum, bound what f32 takes from below.
        let plan = Config::load("paper", &[]).unwrap().plan().unwrap();
        let products = 3.0 * 2.0 * plan.multiply_adds() as f64 * 128.0;
        let conv1 = 2.0 * plan.params[0].multiply_adds() as f64 * 128.0;
        let least = 1e3 * (products - conv1) / 67e12;
        assert!((1.0..1.1).contains(&(step("f32", 128) / least)));
        // Fewer bits, and larger batches an image, take less.
        assert!(
            (0.6..1.1).contains(&step("bf16", 128)),
            "{}",
            step("bf16", 128)
        );
        assert!(
            (1.2..1.9).contains(&step("tf32", 128)),
            "{}",
            step("tf32", 128)
        );
        assert!(
            (4.0..5.5).contains(&step("bf16", 1024)),
            "{}",
            step("bf16", 1024)
        );
    }

    #[test]
    fn fully_connected_layers_are_bound_by_memory_at_batch_128_and_convolutions_are_not() {
        let plan = Config::load("paper", &["train.precision=bf16".into()])
            .unwrap()
            .plan()
            .unwrap();
        for floor in floors(&plan, &H200) {
            let expected = match floor.layer.as_str() {
                "fc6" | "fc7" | "fc8" => "memory",
                "conv2" | "conv3" | "conv4" if floor.pass != "update" => "operations",
                _ => continue,
            };
            assert_eq!(floor.bound_by, expected, "{floor:?}");
        }
    }
}
