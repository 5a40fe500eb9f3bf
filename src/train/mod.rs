//! A training run: the loop (`trainer`), what it does about numbers that are not finite
//! (`numbers`), what it tells (`logging`), signs of its health, its folder (`run_folder`, one process's at a time by its `lock`)
//! and the checkpoints in it (`files`, written by `saver`), evaluation in between (`validation`), its clock, signals.

mod clock;
mod files;
mod health;
mod lock;
mod logging;
mod numbers;
mod run_folder;
mod saver;
#[cfg(test)]
mod saver_tests;
mod signals;
mod trainer;
pub mod validation;

pub use files::newest_intact;
pub use lock::Lock;
pub use run_folder::{CONFIG, METRICS, RunFolder, write_list};
pub use signals::Signals;
pub use trainer::{Outcome, Trainer};

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::data::{Dataset, Statistics};
use std::path::PathBuf;
use std::sync::Arc;

/// Everything a run is made of, besides its devices.
pub struct Session {
    pub config: Config,
    pub data: Dataset,
    pub statistics: Arc<Statistics>,
    /// The folder or "built-in", as the user gave it; kept in the checkpoint for `--resume`.
    pub data_name: Option<PathBuf>,
    pub folder: PathBuf,
    /// Held as long as the run writes to its folder.
    pub lock: Lock,
    /// The state to go on from.
    pub resume: Option<Checkpoint>,
    /// Steps between exchanges whose bytes are compared at both ends; 0: none.
    pub check_exchange: u64,
    pub quiet: bool,
}
