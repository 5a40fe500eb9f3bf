//! `alexnet-mp train`.

use super::device_choice::{DeviceFlags, Job};
use super::open::{ConfigFlags, PrecisionFlag, check_classes, dataset};
use crate::checkpoint::{Checkpoint, FILE_NAME, in_file};
use crate::config::Config;
use crate::data::Dataset;
use crate::device::Device;
use crate::engine::Engine;
use crate::error::{Error, Result, usage};
use crate::report::messages::result;
use crate::report::metrics;
use crate::report::summary::Summary;
use crate::train::{METRICS, Outcome, RunFolder, Session, Signals, Trainer};
use std::path::{Path, PathBuf};

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
    #[arg(long, value_name = "N")]
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
        let signals = Signals::install()?;
        signals.nothing_to_save(true);
        let prepared = if self.resume {
            self.resumed(quiet)?
        } else {
            self.fresh(quiet)?
        };
        let (folder, columns) = (prepared.folder.clone(), prepared.config.network.columns);
        let what = what(&prepared);
        let outcome = self.devices.run(
            columns,
            TrainJob {
                prepared,
                signals,
                graphs: !self.no_graph,
            },
        )?;
        result(&summary(&outcome, what, &folder)?);
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
        let folder = self.out.clone().unwrap_or_else(new_run_folder);
        RunFolder::refuse_used(&folder)?;
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

    fn resumed(&self, quiet: bool) -> Result<Prepared> {
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
                "--resume goes on with the run's own configuration: only --steps, --epochs, --data, --precision and devices can be given with it",
            ));
        }
        let file = folder.join(FILE_NAME);
        let checkpoint = Checkpoint::load(&file)?;
        let mut config = Config::from_toml(&checkpoint.state.config)?;
        let params = config.plan()?.params;
        for tensors in [&checkpoint.parameters, &checkpoint.momentum] {
            tensors
                .check_only(&params)
                .map_err(|error| in_file(&file, error))?;
        }
        if let Some(steps) = self.steps {
            config.train.steps = steps;
        }
        if let Some(epochs) = self.epochs {
            (config.train.epochs, config.train.steps) = (epochs, 0);
        }
        if let Some(precision) = self.precision.precision {
            config.train.precision = precision;
        }
        let name = self.data.clone().or_else(|| checkpoint.state.data.clone());
        let data = dataset(name.as_deref(), &config)?;
        check_classes(&data, &config)?;
        Ok(Prepared {
            config,
            data,
            name,
            folder,
            resume: Some(checkpoint),
            check_exchange: self.check_exchange,
            quiet,
        })
    }
}

/// A session but for the statistics of its data, which can take long: devices are opened first.
pub struct Prepared {
    pub config: Config,
    pub data: Dataset,
    /// The data set's folder; none: the built-in set.
    pub name: Option<PathBuf>,
    pub folder: PathBuf,
    pub resume: Option<Checkpoint>,
    pub check_exchange: u64,
    pub quiet: bool,
}

impl Prepared {
    fn session(mut self) -> Result<Session> {
        std::fs::create_dir_all(&self.folder).map_err(|e| {
            usage(format!(
                "--out {}: cannot be created: {e}",
                self.folder.display()
            ))
        })?;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cache = self.folder.join("stats.safetensors");
        let statistics = self.data.statistics(Some(&cache), threads)?;
        Ok(Session {
            config: self.config,
            data: self.data,
            statistics,
            data_name: self.name,
            folder: self.folder,
            resume: self.resume,
            check_exchange: self.check_exchange,
            quiet: self.quiet,
        })
    }
}

/// "two columns of width 0.25 on the built-in data".
fn what(session: &Prepared) -> String {
    let network = &session.config.network;
    let columns = if network.columns == 1 {
        "one column"
    } else {
        "two columns"
    };
    let data = session
        .name
        .as_ref()
        .map_or("the built-in data".into(), |d| d.display().to_string());
    format!("{columns} of width {} on {data}", network.width)
}

/// Trains a prepared session to its end.
pub struct TrainJob {
    pub prepared: Prepared,
    pub signals: Signals,
    /// Whether steps may be launched as graphs.
    pub graphs: bool,
}

impl Job for TrainJob {
    type Output = Outcome;

    fn run<D: Device>(self, devices: Vec<D>) -> Result<Outcome> {
        let session = self.prepared.session()?;
        let config = &session.config;
        let plan = config.plan()?;
        let keep_gradients = config.train.accumulate > 1;
        let mut engine = Engine::new(
            plan,
            devices,
            config.data.side,
            config.train.seed,
            keep_gradients,
        )?;
        engine.set_graphs(self.graphs)?;
        Trainer::new(&mut engine, session, self.signals)?.run()
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

/// The end of a run in words: what it came to, where it is, what to try next.
fn summary(outcome: &Outcome, what: String, folder: &Path) -> Result<String> {
    let records = metrics::read(&folder.join(METRICS))?;
    let path = folder.display();
    let mut files = vec![
        (
            FILE_NAME.into(),
            "weights, momentum and everything --resume needs".into(),
        ),
        (
            METRICS.into(),
            "logged steps and evaluations; events.out.* for TensorBoard".into(),
        ),
    ];
    for picture in &outcome.pictures {
        let name = picture
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let holds = if name == "conv1.png" {
            "conv1's kernels, one block a column (paper, Fig. 3)"
        } else {
            "loss and error over the steps"
        };
        files.push((name, holds.into()));
    }
    let more = outcome.steps * 2;
    let next = vec![
        (
            format!("alexnet-mp train --resume --out {path} --steps {more}"),
            "train on".into(),
        ),
        (
            "alexnet-mp train --data DIR --config quickstart".into(),
            "learn a folder of your own images".into(),
        ),
        (
            "alexnet-mp plan".into(),
            "the paper's two columns and what crosses between them".into(),
        ),
    ];
    let ended = outcome
        .stopped
        .map(|signal| Error::Interrupted(signal).to_string());
    let summary = Summary {
        what,
        ended,
        time: outcome.time,
        batch: outcome.batch,
        classes: outcome.classes,
        records: &records,
        folder: folder.into(),
        files,
        next,
    };
    Ok(summary.to_string())
}
