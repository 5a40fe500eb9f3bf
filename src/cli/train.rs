//! `alexnet-mp train`.

use super::device_choice::{DeviceFlags, Job};
use super::open::{ConfigFlags, check_classes, dataset};
use crate::checkpoint::{Checkpoint, FILE_NAME};
use crate::config::Config;
use crate::device::Device;
use crate::engine::Engine;
use crate::error::{Error, Result, usage};
use crate::report::messages::result;
use crate::train::{Outcome, Session, Signals, Trainer};
use std::path::{Path, PathBuf};

/// Train the network; writes a run folder with checkpoints, metrics and pictures
///
/// Without --data it learns a built-in set of ten classes in minutes, on any machine.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  alexnet-mp train                                        the built-in data, a small network
  alexnet-mp train --data imagenet/ --gpus 0,1            the paper's run, a column on each GPU
  alexnet-mp train --data photos/ --config quickstart     a small network on a folder of images
  alexnet-mp train --out runs/first --resume              go on where a run stopped")]
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
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Go on from the newest checkpoint of --out [default: of the newest run]
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    config: ConfigFlags,
    #[command(flatten)]
    devices: DeviceFlags,
}

impl Train {
    pub fn run(self, quiet: bool) -> Result<()> {
        let signals = Signals::install()?;
        let session = if self.resume {
            self.resumed(quiet)?
        } else {
            self.fresh(quiet)?
        };
        let (folder, columns) = (session.folder.clone(), session.config.network.columns);
        let outcome = self.devices.run(columns, TrainJob { session, signals })?;
        result(&summary(&outcome, &folder));
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
        set
    }

    fn fresh(&self, quiet: bool) -> Result<Session> {
        let default = if self.data.is_some() {
            "paper"
        } else {
            "quickstart"
        };
        let mut config = self.config.load(default, &self.shorthands())?;
        let folder = self.out.clone().unwrap_or_else(new_run_folder);
        let data = dataset(self.data.as_deref(), &config)?;
        if !self.config.sets_classes() {
            config.network.classes = data.train.classes().len();
        }
        check_classes(&data, &config)?;
        session(config, data, self.data.clone(), folder, None, quiet)
    }

    fn resumed(&self, quiet: bool) -> Result<Session> {
        let folder = match &self.out {
            Some(folder) => folder.clone(),
            None => newest_run()
                .ok_or_else(|| usage("--resume: no run under runs/; name one by --out"))?,
        };
        if self.config.config.is_some()
            || !self.config.overrides.is_empty()
            || self.batch.is_some()
            || self.seed.is_some()
        {
            return Err(usage(
                "--resume goes on with the run's own configuration: only --steps, --epochs, --data and devices can be given with it",
            ));
        }
        let checkpoint = Checkpoint::load(&folder.join(FILE_NAME))?;
        let mut config = Config::from_toml(&checkpoint.state.config)?;
        if let Some(steps) = self.steps {
            config.train.steps = steps;
        }
        if let Some(epochs) = self.epochs {
            (config.train.epochs, config.train.steps) = (epochs, 0);
        }
        let name = self.data.clone().or_else(|| checkpoint.state.data.clone());
        let data = dataset(name.as_deref(), &config)?;
        check_classes(&data, &config)?;
        session(config, data, name, folder, Some(checkpoint), quiet)
    }
}

/// Makes the run folder and the statistics.
pub fn session(
    config: Config,
    mut data: crate::data::Dataset,
    name: Option<PathBuf>,
    folder: PathBuf,
    resume: Option<Checkpoint>,
    quiet: bool,
) -> Result<Session> {
    std::fs::create_dir_all(&folder).map_err(|e| {
        usage(format!(
            "--out {}: cannot be created: {e}",
            folder.display()
        ))
    })?;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let statistics = data.statistics(Some(&folder.join("stats.safetensors")), threads)?;
    Ok(Session {
        config,
        data,
        statistics,
        data_name: name,
        folder,
        resume,
        quiet,
    })
}

/// Trains a session to its end.
pub struct TrainJob {
    pub session: Session,
    pub signals: Signals,
}

impl Job for TrainJob {
    type Output = Outcome;

    fn run<D: Device>(self, devices: Vec<D>) -> Result<Outcome> {
        let config = &self.session.config;
        let plan = config.plan()?;
        let keep_gradients = config.train.accumulate > 1;
        let mut engine = Engine::new(
            plan,
            devices,
            config.data.side,
            config.train.seed,
            keep_gradients,
        )?;
        Trainer::new(&mut engine, self.session, self.signals)?.run()
    }
}

fn new_run_folder() -> PathBuf {
    let time = jiff::Zoned::now().strftime("%Y-%m-%d_%H-%M-%S").to_string();
    Path::new("runs").join(time)
}

/// The run folder under runs/ whose checkpoint is the newest.
fn newest_run() -> Option<PathBuf> {
    let folders = std::fs::read_dir("runs").ok()?.flatten().map(|e| e.path());
    let age = |folder: &PathBuf| {
        std::fs::metadata(folder.join(FILE_NAME))
            .and_then(|m| m.modified())
            .ok()
    };
    folders
        .filter_map(|f| age(&f).map(|t| (t, f)))
        .max()
        .map(|(_, f)| f)
}

fn summary(outcome: &Outcome, folder: &Path) -> String {
    format!("{outcome:?} {}", folder.display())
}
