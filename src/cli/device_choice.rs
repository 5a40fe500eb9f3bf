//! `--gpus`, `--cpu`, `--threads`: which devices a command runs on, and why.

use crate::device::Device;
use crate::device::cpu::CpuDevice;
use crate::error::{Result, usage};
use std::sync::{Mutex, PoisonError};

/// Flags of every command that runs a network.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct DeviceFlags {
    /// GPUs by index: "0,1" one column each, "0" both columns on one, "0,0" both on one through
    /// the peer-copy path, as a test of it [default: two, one, or the CPU, as can be had]
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = ordinal,
        conflicts_with = "cpu"
    )]
    pub gpus: Option<Vec<usize>>,
    /// CPU devices: one per column, sharing the cores
    #[arg(long)]
    pub cpu: bool,
    /// CPU threads in all; 1 puts both columns on one device [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Both columns on one CPU device that has all the threads: the same bits, without exchange
    #[arg(long, conflicts_with = "gpus")]
    pub one_device: bool,
}

/// Threads that can be asked for; many more than that take minutes to start, and the machine with
/// them.
const MOST_THREADS: usize = 1024;

fn ordinal(text: &str) -> std::result::Result<usize, String> {
    let expected = |_| "expected GPUs by index: 0, or 0,1 (`alexnet-mp devices` lists them)".into();
    text.trim().parse().map_err(expected)
}

/// Work that can be done on any kind of device.
pub trait Job {
    type Output;
    /// Does it on these devices: one per column, or one for all.
    fn run<D: Device>(self, devices: Vec<D>) -> Result<Self::Output>;
}

/// What the flags, or the machine, came to.
enum Choice {
    Cpu { reason: String },
    Gpus { list: Vec<usize>, reason: String },
}

impl DeviceFlags {
    /// Opens the devices for a network of so many columns, says which and why, and runs `job`.
    ///
    /// # Errors
    /// `Usage` for flags that do not fit together, `Device` where a device that was asked for is
    /// not there; those of the job.
    pub fn run<J: Job>(&self, columns: usize, job: J) -> Result<J::Output> {
        match self.choose(columns)? {
            Choice::Cpu { reason } => {
                let devices = self.open_cpu(columns)?;
                announce(&devices, columns, &reason);
                job.run(devices)
            }
            Choice::Gpus { list, reason } => gpu::run(&list, columns, &reason, job),
        }
    }

    fn choose(&self, columns: usize) -> Result<Choice> {
        if let Some(threads) = self.threads.filter(|n| !(1..=MOST_THREADS).contains(n)) {
            return Err(usage(format!(
                "--threads {threads}: expected 1 to {MOST_THREADS}"
            )));
        }
        if let Some(list) = &self.gpus {
            if self.threads.is_some() {
                return Err(usage("--threads goes with the CPU, not with --gpus"));
            }
            if list.len() > columns {
                return Err(usage(format!(
                    "--gpus names {} GPUs for a network of {columns} column(s): give at most one a column",
                    list.len()
                )));
            }
            return Ok(Choice::Gpus {
                list: list.clone(),
                reason: "as --gpus says".into(),
            });
        }
        if self.cpu || self.threads.is_some() || self.one_device {
            return Ok(Choice::Cpu {
                reason: "as --cpu, --threads or --one-device says".into(),
            });
        }
        Ok(match gpu::usable() {
            Ok(found) => {
                let list: Vec<usize> = found.into_iter().take(columns).collect();
                let reason = match list.len() {
                    1 if columns > 1 => {
                        "the one GPU that can be used, both columns on it".to_string()
                    }
                    n => format!("the first {n} GPU(s) that can be used"),
                };
                Choice::Gpus { list, reason }
            }
            Err(obstacle) => Choice::Cpu { reason: obstacle },
        })
    }

    fn open_cpu(&self, columns: usize) -> Result<Vec<CpuDevice>> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = self.threads.unwrap_or(cores);
        let count = match self.one_device || threads == 1 {
            true => 1,
            false => columns,
        };
        (0..count)
            .map(|i| CpuDevice::open(threads / count + usize::from(i < threads % count)))
            .collect()
    }
}

/// Says which devices were chosen and why, once for the passes of a command that are alike.
fn announce<D: Device>(devices: &[D], columns: usize, reason: &str) {
    let names: Vec<String> = devices.iter().map(Device::name).collect();
    let columns = if columns == 1 {
        "1 column".into()
    } else {
        format!("{columns} columns")
    };
    let line = format!("{columns} on {}: {reason}", names.join(" and "));
    static SAID: Mutex<String> = Mutex::new(String::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if *said != line {
        tracing::info!("{line}");
        *said = line;
    }
}

#[cfg(feature = "cuda")]
mod gpu {
    use super::{Job, announce};
    use crate::device::cuda::{CudaDevice, has_driver, obstacles};
    use crate::error::Result;

    /// The GPUs this program can use, at least one; or why there is none, in half a sentence.
    pub fn usable() -> std::result::Result<Vec<usize>, String> {
        if !has_driver() {
            return Err("no NVIDIA driver here".into());
        }
        let all = obstacles().map_err(|error| error.to_string())?;
        let good: Vec<usize> = (0..all.len()).filter(|&gpu| all[gpu].is_none()).collect();
        match all.into_iter().flatten().next() {
            Some(obstacle) if good.is_empty() => Err(format!("the GPU cannot be used: {obstacle}")),
            None if good.is_empty() => Err("the driver shows no GPU".into()),
            _ => Ok(good),
        }
    }

    pub fn run<J: Job>(list: &[usize], columns: usize, reason: &str, job: J) -> Result<J::Output> {
        if list.len() == 2 && list[0] == list[1] {
            tracing::warn!(
                "GPU {} is named twice: both columns run on it, through the peer-copy path",
                list[0]
            );
        }
        let devices = list
            .iter()
            .map(|&ordinal| CudaDevice::open(ordinal))
            .collect::<Result<Vec<_>>>()?;
        announce(&devices, columns, reason);
        job.run(devices)
    }
}

#[cfg(not(feature = "cuda"))]
mod gpu {
    use super::Job;
    use crate::error::{Result, device};

    const ABSENT: &str = "this program was built without the feature \"cuda\"";

    pub fn usable() -> std::result::Result<Vec<usize>, String> {
        Err(ABSENT.into())
    }

    pub fn run<J: Job>(_: &[usize], _: usize, _: &str, _: J) -> Result<J::Output> {
        Err(device(format!(
            "{ABSENT}; build it again with --features cuda, or run with --cpu"
        )))
    }
}
