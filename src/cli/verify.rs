//! `alexnet-mp verify`.

use super::device_choice::{DeviceFlags, Job};
use crate::device::Device;
use crate::error::{Result, device as device_error};
use crate::precision::Precision;
use crate::report::format::duration;
use crate::report::messages::result;
use crate::verify::{Check, Options, Report};
use std::time::Duration;

/// Verify this machine's devices: operations, exchanges, the network, a short training run
///
/// Every operation is compared with a plain float64 reference and timed; messages between two
/// devices are checked and timed both ways; the two columns are compared with one piece. Ends
/// with code 5 where something is wrong.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp verify                 the devices that training would use
  alexnet-mp verify --gpus 0,1      two GPUs and the copies between them
  alexnet-mp verify --gpus 0,0      the peer-copy path on one GPU
  alexnet-mp verify --gpus 0 --precision bf16
  alexnet-mp verify --cpu --json")]
pub struct Verify {
    /// Small shapes only, no timing to speak of
    #[arg(long)]
    quick: bool,
    /// Print everything as JSON at the end
    #[arg(long)]
    json: bool,
    /// What maps and the operands of products are held in; on the CPU f32 only
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    precision: Precision,
    #[command(flatten)]
    devices: DeviceFlags,
}

impl Verify {
    pub fn run(self) -> Result<()> {
        let job = VerifyJob {
            options: Options {
                quick: self.quick,
                precision: self.precision,
            },
            json: self.json,
        };
        let report = self.devices.run(2, job)?;
        if self.json {
            result(&json(&report));
        } else {
            result(&summary(&report));
        }
        match report.failures().next() {
            None => Ok(()),
            Some(first) => Err(device_error(format!(
                "verify: {} of {} checks failed, first: {}",
                report.failures().count(),
                report.checks.len(),
                describe(first)
            ))),
        }
    }
}

struct VerifyJob {
    options: Options,
    json: bool,
}

impl Job for VerifyJob {
    type Output = Report;

    fn run<D: Device>(self, devices: Vec<D>) -> Result<Report> {
        let mut heading = String::new();
        crate::verify::verify(devices, &self.options, &mut |check| {
            if self.json {
                return;
            }
            if heading != check.device {
                heading.clone_from(&check.device);
                result(&heading);
            }
            result(&format!("  {}", check.line()));
        })
    }
}

/// "conv2 conv_forward, 48×27×27 → 128×27×27, on GPU 0: dx[3] of 9: expected 1, found 2"
fn describe(check: &Check) -> String {
    let parts = [&check.name, &check.shape]
        .into_iter()
        .filter(|part| !part.is_empty());
    let what: Vec<&str> = parts.map(String::as_str).collect();
    let detail = check.detail.clone().unwrap_or_default();
    format!("{}, on {}: {detail}", what.join(", "), check.device)
}

fn summary(report: &Report) -> String {
    let failed = report.failures().count();
    let time = duration(Duration::from_secs_f64(report.seconds));
    let (count, devices) = (report.checks.len(), report.devices.join(" and "));
    if failed == 0 {
        format!("all {count} checks passed on {devices} in {time}")
    } else {
        format!("{failed} of {count} checks FAILED on {devices} in {time}")
    }
}

fn json(report: &Report) -> String {
    let mut value = serde_json::json!({
        "passed": report.passed(),
        "failed": report.failures().count(),
    });
    let whole = serde_json::to_value(report).unwrap_or_default();
    if let (Some(into), Some(from)) = (value.as_object_mut(), whole.as_object()) {
        into.extend(from.clone());
    }
    serde_json::to_string_pretty(&value).unwrap_or_default()
}
