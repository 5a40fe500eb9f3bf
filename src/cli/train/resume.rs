//! `train --resume`: which run, from which checkpoint, with which configuration.

use super::Train;
use super::job::{Prepared, RunAt};
use crate::checkpoint::{Checkpoint, FILE_NAME, in_file};
use crate::cli::open::{check_classes, dataset};
use crate::config::Config;
use crate::error::{Result, checkpoint as checkpoint_error, usage};
use crate::network::describe::differences;
use crate::report::format::shell_word;
use crate::train::{CONFIG, Lock, newest_intact};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where runs are that nobody named a folder for.
const RUNS: &str = "runs";

impl Train {
    /// A run that goes on from its newest checkpoint.
    pub(super) fn resumed(&self, quiet: bool) -> Result<Prepared> {
        if self.config.config.is_some()
            || !self.config.overrides.is_empty()
            || self.batch.is_some()
            || self.seed.is_some()
        {
            return Err(usage(
                "--resume goes on with the run's own configuration: only --steps, --epochs, --data, --precision and devices can be given with it",
            ));
        }
        if self.epochs == Some(0) {
            return Err(usage("--epochs 0: at least one epoch is needed"));
        }
        let folder = match &self.out {
            Some(folder) => folder.clone(),
            None => newest_run()?,
        };
        let file = folder.join(FILE_NAME);
        if !file.exists() && newest_intact(&folder).is_none() {
            return Err(checkpoint_error(format!(
                "{}: there is no checkpoint yet: start again without --resume",
                file.display()
            )));
        }
        let lock = Lock::take(&folder)?;
        let checkpoint = load(&file)?;
        if self.out.is_none() {
            say_which(&folder, checkpoint.state.step);
        }
        let mut config = Config::from_toml(&checkpoint.state.config)?;
        warn_of_edits(&folder.join(CONFIG), &config);
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
            folder: RunAt::Locked(folder, lock),
            resume: Some(checkpoint),
            check_exchange: self.check_exchange,
            quiet,
        })
    }
}

/// The newest checkpoint of a run.
///
/// # Errors
/// `Checkpoint`, with the newest one that is whole where this one is not.
fn load(file: &Path) -> Result<Checkpoint> {
    Checkpoint::load(file).map_err(|error| {
        let folder = file.parent().unwrap_or(Path::new("."));
        match newest_intact(folder) {
            None => error,
            Some((step, intact)) => checkpoint_error(format!(
                "{error}; the newest that is whole is of step {step}: put it in its place by `mv {} {}`, then --resume again",
                shell_word(&intact),
                shell_word(file)
            )),
        }
    })
}

/// Warns where the configuration beside a checkpoint was changed: it is for reading only.
fn warn_of_edits(path: &Path, own: &Config) {
    let Ok(text) = std::fs::read_to_string(path) else {
        return;
    };
    let differing = match Config::from_toml(&text) {
        Err(error) => error.to_string(),
        Ok(mut written) => {
            // What every --resume may set, and so did one that was killed before it saved.
            written.train.steps = own.train.steps;
            written.train.epochs = own.train.epochs;
            written.train.precision = own.train.precision;
            let table = |c: &Config| toml::Table::try_from(c).unwrap_or_default();
            let rows = differences(&table(own), &table(&written));
            let keys: Vec<String> = rows.into_iter().map(|[key, ..]| key).collect();
            keys.join(", ")
        }
    };
    if !differing.is_empty() {
        tracing::warn!(
            "{} is not the checkpoint's configuration ({differing}): the checkpoint's counts, and is written there again; for another one start a new run with --config",
            path.display()
        );
    }
}

/// Folders under runs/, each with the time of its checkpoint, if it has one, and its own.
fn runs() -> Vec<(PathBuf, Option<SystemTime>, SystemTime)> {
    let entries = std::fs::read_dir(RUNS).into_iter().flatten().flatten();
    let time = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .filter_map(|path| Some((path.clone(), time(&path.join(FILE_NAME)), time(&path)?)))
        .collect()
}

/// The run folder under runs/ whose checkpoint is the newest.
fn newest_run() -> Result<PathBuf> {
    let with_checkpoint = runs()
        .into_iter()
        .filter_map(|(path, saved, _)| Some((saved?, path)));
    let newest = with_checkpoint.max().map(|(_, path)| path);
    newest.ok_or_else(|| {
        usage("--resume: no run under runs/ holds a checkpoint; name one by --out, or start without --resume")
    })
}

/// Says which run goes on where none was named, and which newer one does not.
fn say_which(folder: &Path, step: u64) {
    let runs = runs();
    let saved = runs
        .iter()
        .find(|run| run.0 == folder)
        .and_then(|run| run.1);
    let without = runs
        .iter()
        .filter(|run| run.1.is_none() && Some(run.2) > saved);
    let skipped = without
        .max_by_key(|run| run.2)
        .map_or_else(String::new, |run| {
            format!("; {} is newer, but holds no checkpoint", run.0.display())
        });
    tracing::info!(
        "going on with {} from step {step}{skipped}",
        folder.display()
    );
}
