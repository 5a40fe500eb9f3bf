//! `--gpus`, `--cpu`, `--threads`: which devices a command runs on, and why.

use crate::device::Device;
use crate::device::cpu::CpuDevice;
use crate::error::{Result, usage};

/// Flags of every command that runs a network.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct DeviceFlags {
    /// GPUs by index: "0,1" one column each, "0" both columns on one, "0,0" both on one through
    /// the peer-copy path, as a test of it [default: two, one, or the CPU, as can be had]
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        conflicts_with = "cpu"
    )]
    pub gpus: Option<Vec<usize>>,
    /// CPU devices: one per column, sharing the cores
    #[arg(long)]
    pub cpu: bool,
    /// CPU threads in all; 1 puts both columns on one device [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Work that can be done on any kind of device.
pub trait Job {
    type Output;
    /// Does it on these devices: one per column, or one for all.
    fn run<D: Device>(self, devices: Vec<D>) -> Result<Self::Output>;
}

impl DeviceFlags {
    /// Opens the devices for a network of so many columns, says which and why, and runs `job`.
    ///
    /// # Errors
    /// `Usage` for flags that do not fit together, `Device` where a device that was asked for is
    /// not there; those of the job.
    pub fn run<J: Job>(&self, columns: usize, job: J) -> Result<J::Output> {
        if self.gpus.is_some() && self.threads.is_some() {
            return Err(usage("--threads goes with --cpu, not with --gpus"));
        }
        self.on_cpu(columns, job, "--cpu")
    }

    fn on_cpu<J: Job>(&self, columns: usize, job: J, reason: &str) -> Result<J::Output> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = match self.threads {
            Some(0) => return Err(usage("--threads 0: at least one thread is needed")),
            Some(threads) => threads,
            None => cores,
        };
        let count = if threads == 1 { 1 } else { columns };
        let devices = (0..count)
            .map(|i| CpuDevice::open(threads / count + usize::from(i < threads % count)))
            .collect::<Result<Vec<_>>>()?;
        let names: Vec<String> = devices.iter().map(Device::name).collect();
        tracing::info!("{columns} column(s) on {} ({reason})", names.join(" and "));
        job.run(devices)
    }
}
