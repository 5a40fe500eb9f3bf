//! Every operation of one column, timed on its own.

use crate::config::Config;
use crate::device::{Device, Peak};
use crate::error::Result;
use crate::measure::{Pass, Trial, cases};
use serde::Serialize;
use std::time::Duration;

/// Time given to each operation beyond its first run.
const BUDGET: Duration = Duration::from_millis(100);

/// One column's time in a layer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LayerTime {
    pub layer: String,
    pub forward_milliseconds: f64,
    pub forward_gflops: f64,
    /// Gradients of input, weights and bias, and an update that is folded into them.
    pub backward_milliseconds: f64,
    pub backward_gflops: f64,
    /// An update of its own.
    pub update_milliseconds: f64,
}

/// Times the operations of one column of the network on `device`; the layers in their order, and
/// the device's peak.
pub fn layers<D: Device>(
    config: &Config,
    device: &mut D,
) -> Result<(Vec<LayerTime>, Option<Peak>)> {
    let plan = config.plan()?;
    let peak = device.peak()?;
    let mut layers: Vec<LayerTime> = Vec::new();
    for case in cases::of_plan(&plan, device.fuses_linear_update()) {
        let mut trial = Trial::new(device, &case, plan.batch, plan.precision)?;
        let milliseconds = 1e3 * trial.time(device, BUDGET, 2)? * case.times as f64;
        let flops = case.flops(plan.batch) * case.times as f64;
        if layers.last().is_none_or(|last| last.layer != case.layer) {
            layers.push(LayerTime {
                layer: case.layer.clone(),
                ..LayerTime::default()
            });
        }
        let Some(layer) = layers.last_mut() else {
            continue;
        };
        // Operations are summed up here, and become rates below.
        match case.pass {
            Pass::Forward => {
                layer.forward_milliseconds += milliseconds;
                layer.forward_gflops += flops;
            }
            Pass::Backward => {
                layer.backward_milliseconds += milliseconds;
                layer.backward_gflops += flops;
            }
            Pass::Update => layer.update_milliseconds += milliseconds,
        }
    }
    for layer in &mut layers {
        layer.forward_gflops /= layer.forward_milliseconds.max(1e-9) * 1e6;
        layer.backward_gflops /= layer.backward_milliseconds.max(1e-9) * 1e6;
    }
    Ok((layers, peak))
}
