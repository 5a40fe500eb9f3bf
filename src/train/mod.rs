//! A training run: the loop (`trainer`), its folder (`run_folder`), evaluation in between
//! (`validation`), signs of its health, signals and the watchdog.

mod health;
mod run_folder;
mod signals;
mod trainer;
pub mod validation;
mod watchdog;

pub use run_folder::{METRICS, RunFolder};
pub use signals::Signals;
pub use trainer::{Outcome, Trainer};
pub use watchdog::Watchdog;

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
    /// The state to go on from.
    pub resume: Option<Checkpoint>,
    pub quiet: bool,
}
