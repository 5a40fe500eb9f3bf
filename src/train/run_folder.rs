//! The folder a run leaves behind: configuration, checkpoints, metrics, events, pictures.

use super::files::Files;
use crate::checkpoint::{self, Checkpoint, FILE_NAME};
use crate::config::Config;
use crate::data::{Dataset, Skipped, skipped};
use crate::error::{Error, Result, usage};
use crate::network::params::Tensors;
use crate::report::curves::{Run, learning_curves};
use crate::report::kernels::kernels;
use crate::report::metrics::{self, EvaluationRecord, MetricsWriter, Record, StepRecord};
use crate::report::tensorboard::EventWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file of logged steps and evaluations.
pub const METRICS: &str = "metrics.jsonl";
/// The file of the whole configuration, for the user to read.
pub const CONFIG: &str = "config.toml";
/// Folders that are tried for a new run.
const MOST_TRIES: usize = 1000;

/// An open run folder.
pub struct RunFolder {
    path: PathBuf,
    files: Arc<Files>,
    metrics: MetricsWriter,
    events: EventWriter,
}

impl RunFolder {
    /// Makes the folder of a new run, or opens that of a run which goes on after `resumed` steps.
    ///
    /// # Errors
    /// `Usage` where the folder cannot be made, or holds a run that would be overwritten.
    pub fn open(path: &Path, config: &Config, resumed: Option<u64>) -> Result<Self> {
        if resumed.is_none() {
            Self::refuse_used(path)?;
        }
        std::fs::create_dir_all(path).map_err(|e| problem(path, "cannot be created", e))?;
        write_config(path, config)?;
        let file = path.join(METRICS);
        let metrics = match resumed {
            Some(step) => MetricsWriter::resume(&file, step)?,
            None => MetricsWriter::create(&file)?,
        };
        let events = EventWriter::create(path, resumed)?;
        Ok(RunFolder {
            path: path.into(),
            files: Arc::new(Files::new(path, config.train.keep, resumed)),
            metrics,
            events,
        })
    }

    /// Makes a folder for a new run that nobody else has: `path`, else `path`-2, -3 … where other
    /// runs were quicker. Gives its path.
    ///
    /// # Errors
    /// `Usage` where none can be made.
    pub fn make_new(path: &Path) -> Result<PathBuf> {
        let parent = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(|e| problem(parent, "cannot be created", e))?;
        for number in 1..=MOST_TRIES {
            let mut name = path.as_os_str().to_owned();
            if number > 1 {
                name.push(format!("-{number}"));
            }
            let candidate = PathBuf::from(name);
            match std::fs::create_dir(&candidate) {
                Ok(()) => return Ok(candidate),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(problem(&candidate, "cannot be created", e)),
            }
        }
        Err(usage(format!(
            "{} and {MOST_TRIES} folders like it are there already; name a new one by --out",
            path.display()
        )))
    }

    /// Refuses a folder that holds a run, which a new one would overwrite.
    pub fn refuse_used(path: &Path) -> Result<()> {
        if path.join(FILE_NAME).exists() {
            return Err(usage(format!(
                "--out {}: holds a run already; go on with it by --resume, or choose another folder",
                path.display()
            )));
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Logs a step.
    pub fn record_step(&mut self, record: StepRecord) -> Result<()> {
        let record = Record::Step(record);
        self.metrics.write(&record)?;
        self.events.record(&record)
    }

    /// Logs an evaluation; its line also says how the training stood, with the keys of a step.
    pub fn record_evaluation(
        &mut self,
        mut record: EvaluationRecord,
        training: &StepRecord,
    ) -> Result<()> {
        self.events.record(&Record::Evaluation(record.clone()))?;
        for (key, value) in [
            ("loss", training.loss),
            ("top1_error", training.top1_error),
            ("learning_rate", training.learning_rate),
            ("images_per_second", training.images_per_second),
            ("data_wait", training.data_wait),
        ] {
            record.extra.insert(key.into(), value.into());
        }
        self.metrics.write(&Record::Evaluation(record))
    }

    /// Has the newest checkpoint written in the background.
    pub fn save(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.files.save(checkpoint)?;
        self.events.flush()
    }

    /// Its checkpoints.
    pub fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// Forgets what was logged after `step`, to which the run goes back with this configuration.
    pub fn go_back(&mut self, step: u64, config: &Config) -> Result<()> {
        write_config(&self.path, config)?;
        self.metrics = MetricsWriter::resume(&self.path.join(METRICS), step)?;
        self.events = EventWriter::create(&self.path, Some(step))?;
        Ok(())
    }

    /// Lists the bad images of a set that were met by now; gives the file.
    pub fn list_skipped(&self, set: &Dataset) -> Result<PathBuf> {
        let path = self.path.join(skipped::FILE_NAME);
        write_list(&path, Skipped::listed(set).as_bytes())?;
        Ok(path)
    }

    /// Draws the learning curves and conv1's kernels.
    pub fn draw(
        &mut self,
        parameters: &Tensors,
        step: u64,
        columns: usize,
    ) -> Result<Vec<PathBuf>> {
        let records = metrics::read(&self.path.join(METRICS))?;
        let name = self
            .path
            .file_name()
            .map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned());
        let curves = learning_curves("Learning curves", &[Run { name, records }])?;
        let curves_path = self.path.join("curves.png");
        curves.save(&curves_path)?;
        let mut paths = vec![curves_path];
        if let Some(conv1) = parameters.get("conv1.weight") {
            let picture = kernels(
                &format!("conv1 kernels after {step} steps"),
                &conv1.values,
                conv1.shape[0],
                columns,
            )?;
            let path = self.path.join("conv1.png");
            picture.save(&path)?;
            self.events.image("conv1", step, &picture)?;
            paths.push(path);
        }
        self.events.flush()?;
        Ok(paths)
    }
}

/// Writes a list of bad images, in place of an older one.
pub fn write_list(path: &Path, list: &[u8]) -> Result<()> {
    checkpoint::replace(path, list)
        .map_err(|e| usage(format!("{}: cannot be written: {e}", path.display())))
}

fn problem(path: &Path, what: &str, error: std::io::Error) -> Error {
    usage(format!("--out {}: {what}: {error}", path.display()))
}

fn write_config(path: &Path, config: &Config) -> Result<()> {
    checkpoint::replace(&path.join(CONFIG), config.to_toml().as_bytes())
        .map_err(|e| problem(path, "cannot be written to", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_runs_are_given_the_same_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = folder.path().join("runs/now");
        let made = [(); 3].map(|()| RunFolder::make_new(&wanted).unwrap());
        let names = made.map(|path| path.file_name().unwrap().to_owned());
        assert_eq!(names, ["now", "now-2", "now-3"]);
    }
}
