//! A run as a job for devices: its folder made and locked, its statistics computed, then trained.

use crate::checkpoint::Checkpoint;
use crate::cli::device_choice::Job;
use crate::config::Config;
use crate::data::{Dataset, Skipped};
use crate::device::Device;
use crate::engine::Engine;
use crate::error::{Result, usage};
use crate::train::{Lock, Outcome, RunFolder, Session, Signals, Trainer, write_list};
use std::path::PathBuf;

/// A session but for the statistics of its data, which can take long: devices are opened first.
pub struct Prepared {
    pub config: Config,
    pub data: Dataset,
    /// The data set's folder; none: the built-in set.
    pub name: Option<PathBuf>,
    pub folder: RunAt,
    pub resume: Option<Checkpoint>,
    pub check_exchange: u64,
    pub quiet: bool,
}

impl Prepared {
    fn session(mut self) -> Result<Session> {
        let (folder, lock) = self.folder.open()?;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cache = folder.join("stats.safetensors");
        let statistics = self.data.statistics(Some(&cache), threads);
        let statistics =
            statistics.map_err(|e| Skipped::with_list(e, &self.data, &folder, write_list))?;
        Ok(Session {
            config: self.config,
            data: self.data,
            statistics,
            data_name: self.name,
            folder,
            lock,
            resume: self.resume,
            check_exchange: self.check_exchange,
            quiet: self.quiet,
        })
    }
}

/// Where a run is to be written.
pub enum RunAt {
    /// A folder that is this run's alone, of this name, or one like it where that is there already.
    New(PathBuf),
    /// The folder that was asked for.
    Named(PathBuf),
    /// That of a run which goes on, locked before its checkpoint was read.
    Locked(PathBuf, Lock),
}

impl RunAt {
    /// Makes the folder, and this process the only one to train in it.
    fn open(self) -> Result<(PathBuf, Lock)> {
        let folder = match self {
            RunAt::Locked(folder, lock) => return Ok((folder, lock)),
            RunAt::New(folder) => RunFolder::make_new(&folder)?,
            RunAt::Named(folder) => {
                std::fs::create_dir_all(&folder).map_err(|e| {
                    usage(format!(
                        "--out {}: cannot be created: {e}",
                        folder.display()
                    ))
                })?;
                folder
            }
        };
        let lock = Lock::take(&folder)?;
        Ok((folder, lock))
    }
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
        // First of all, so that devices which cannot do it say so before anything is written or
        // computed.
        let config = &self.prepared.config;
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
        let session = self.prepared.session()?;
        let (folder, set) = (session.folder.clone(), session.data.clone());
        let outcome = Trainer::new(&mut engine, session, self.signals)?.run();
        outcome.map_err(|error| Skipped::with_list(error, &set, &folder, write_list))
    }
}
