//! `alexnet-mp train`.

mod job;
mod resume;
mod summary;

use super::device_choice::DeviceFlags;
use super::open::{ConfigFlags, PrecisionFlag, check_classes, dataset};
use crate::error::{Error, Result, usage};
use crate::report::messages::result;
use crate::train::{RunFolder, Signals};
pub use job::{Prepared, RunAt, TrainJob};
use std::path::{Path, PathBuf};
use summary::{About, summary};

/// Train the network; writes a run folder with checkpoints, metrics and pictures
///
/// Without --data it learns a built-in set of ten classes in minutes, on any machine.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp train                                        the built-in data, a small network
  alexnet-mp train --data imagenet/ --gpus 0,1            the paper's run, a column on each GPU
  alexnet-mp train --data photos/ --config quickstart     a small network on a folder of images
  alexnet-mp train --data imagenet/ --gpus 0,1 --precision bf16   on tensor cores
  alexnet-mp train --out runs/first --resume              go on where a run stopped
  alexnet-mp train --gpus 0,1 --check-exchange 1000       prove the copies between the GPUs again and again")]
pub struct Train {
    /// Folder of images (train/CLASS/*.jpg, val/CLASS/*) or one made by `prepare`
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The run folder [default: runs/<time>]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Updates in all
    #[arg(long, value_name = "N", conflicts_with = "epochs")]
    steps: Option<u64>,
    /// Passes over the training images in all
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Images of one step
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Seed of everything random
    #[arg(long, value_name = "N", value_parser = seed)]
    seed: Option<u64>,
    /// Go on from the newest checkpoint of --out [default: of the newest run]
    #[arg(long)]
    resume: bool,
    /// Launch operations one by one on GPUs, instead of whole steps as CUDA graphs
    #[arg(long)]
    no_graph: bool,
    #[command(flatten)]
    precision: PrecisionFlag,
    /// Compare checksums of both sides of every exchange between devices in each Nth step
    #[arg(long, value_name = "N", default_value_t = 0)]
    check_exchange: u64,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    devices: DeviceFlags,
}

impl Train {
    pub fn run(self, quiet: bool) -> Result<()> {
        if self.steps == Some(0) {
            return Err(usage("--steps 0: at least one step is needed"));
        }
        let signals = Signals::install()?;
        signals.nothing_to_save(true);
        let prepared = if self.resume {
            self.resumed(quiet)?
        } else {
            self.fresh(quiet)?
        };
        let columns = prepared.config.network.columns;
        let about = About::of(&prepared);
        let outcome = self.devices.run(
            columns,
            TrainJob {
                prepared,
                signals,
                graphs: !self.no_graph,
            },
        )?;
        result(&summary(&outcome, about)?);
        match outcome.stopped {
            Some(signal) => Err(Error::Interrupted(signal)),
            None => Ok(()),
        }
    }

    /// Flags that stand for configuration keys.
    fn shorthands(&self) -> Vec<String> {
        let mut set = Vec::new();
        if let Some(steps) = self.steps {
            set.push(format!("train.steps={steps}"));
        }
        if let Some(epochs) = self.epochs {
            set.extend([format!("train.epochs={epochs}"), "train.steps=0".into()]);
        }
        if let Some(batch) = self.batch {
            set.push(format!("train.batch={batch}"));
        }
        if let Some(seed) = self.seed {
            set.push(format!("train.seed={seed}"));
        }
        set.extend(self.precision.overrides());
        set
    }

    fn fresh(&self, quiet: bool) -> Result<Prepared> {
        let default = if self.data.is_some() {
            "paper"
        } else {
            "quickstart"
        };
        let mut config = self.config.load(default, &self.shorthands())?;
        let folder = match &self.out {
            Some(folder) => {
                RunFolder::refuse_used(folder)?;
                RunAt::Named(folder.clone())
            }
            None => RunAt::New(new_run_folder()),
        };
        let data = dataset(self.data.as_deref(), &config)?;
        if !self.config.sets_classes() {
            config.network.classes = data.train.classes().len();
        }
        check_classes(&data, &config)?;
        let name = self.data.clone();
        Ok(Prepared {
            config,
            data,
            name,
            folder,
            resume: None,
            check_exchange: self.check_exchange,
            quiet,
        })
    }
}

/// A seed that a configuration can hold: TOML's integers have a sign.
fn seed(text: &str) -> std::result::Result<u64, String> {
    let found = text.parse().ok().filter(|&seed| seed <= i64::MAX as u64);
    found.ok_or_else(|| format!("expected 0 to {}", i64::MAX))
}

fn new_run_folder() -> PathBuf {
    let time = jiff::Zoned::now().strftime("%Y-%m-%d_%H-%M-%S").to_string();
    Path::new("runs").join(time)
}
