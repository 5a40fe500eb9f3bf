//! Speed, measured: training steps and inference on random images that stay on the device, every
//! operation of a column on its own, and the way of the images alone.

mod layers;
mod loader;
mod roofline;
mod steps;

pub use layers::{LayerTime, layers};
pub use loader::{LoaderTime, StageTime, loader};
pub use roofline::{Floor, Roofline, roofline};
pub use steps::{Pace, StepTimes, Work, steps};

use crate::precision::Precision;
use serde::Serialize;

/// What `bench --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Median of the timed steps.
    pub images_per_second: f64,
    pub milliseconds_per_step: f64,
    pub batch: usize,
    pub devices: Vec<String>,
    pub precision: Precision,
    /// Whether steps were launched as CUDA graphs.
    pub graphs: bool,
    /// The most memory this process had in RAM, none where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    pub exchanged_bytes_per_step: u64,
    /// One column's layers; empty unless they were asked for.
    pub layers: Vec<LayerTime>,
    /// The loader's stages, the one that bounds it, and images a second that a training step on
    /// the same devices uses; only where the loader was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_images_per_second: Option<f64>,
    /// Where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roofline: Option<Roofline>,
}

/// The most memory this process had in RAM by now.
pub fn peak_rss_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        // Unlike getrusage's number, this one is not inherited from the process that started it.
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    }
    #[cfg(not(target_os = "linux"))]
    None
}
