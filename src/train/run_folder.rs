//! The folder a run leaves behind: configuration, checkpoints, metrics, events, pictures.

use crate::checkpoint::{self, Checkpoint, FILE_NAME};
use crate::config::Config;
use crate::data::Source;
use crate::error::{Result, usage};
use crate::network::params::Tensors;
use crate::report::curves::{Run, learning_curves};
use crate::report::kernels::kernels;
use crate::report::metrics::{self, EvaluationRecord, MetricsWriter, Record, StepRecord};
use crate::report::tensorboard::EventWriter;
use std::path::{Path, PathBuf};

/// The file of logged steps and evaluations.
pub const METRICS: &str = "metrics.jsonl";
const BEST: &str = "best.safetensors";
/// Training images that could not be read, a tab, and why, as `prepare` writes it.
const SKIPPED: &str = "skipped.txt";

/// An open run folder.
pub struct RunFolder {
    path: PathBuf,
    keep: usize,
    metrics: MetricsWriter,
    events: EventWriter,
}

impl RunFolder {
    /// Makes the folder of a new run, or opens that of a run which goes on after `resumed` steps.
    ///
    /// # Errors
    /// `Usage` where the folder cannot be made, or holds a run that would be overwritten.
    pub fn open(path: &Path, config: &Config, resumed: Option<u64>) -> Result<Self> {
        let problem =
            |what: &str, e: std::io::Error| usage(format!("--out {}: {what}: {e}", path.display()));
        if resumed.is_none() {
            Self::refuse_used(path)?;
        }
        std::fs::create_dir_all(path).map_err(|e| problem("cannot be created", e))?;
        checkpoint::replace(&path.join("config.toml"), config.to_toml().as_bytes())
            .map_err(|e| problem("cannot be written to", e))?;
        let file = path.join(METRICS);
        let metrics = match resumed {
            Some(step) => MetricsWriter::resume(&file, step)?,
            None => MetricsWriter::create(&file)?,
        };
        let events = EventWriter::create(path, resumed)?;
        Ok(RunFolder {
            path: path.into(),
            keep: config.train.keep,
            metrics,
            events,
        })
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

    /// Writes the newest checkpoint; keeps `train.keep` older ones beside it.
    pub fn save(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        let newest = self.path.join(FILE_NAME);
        checkpoint.save(&newest)?;
        self.events.flush()?;
        if self.keep > 0 {
            // A link costs nothing; where the file system knows none, only the newest is kept.
            let _ = std::fs::hard_link(
                &newest,
                self.path.join(format!(
                    "checkpoint-{:09}.safetensors",
                    checkpoint.state.step
                )),
            );
            self.rotate();
        }
        Ok(())
    }

    /// Lists the bad images of a set that were met by now; gives the file.
    pub fn list_skipped(&self, source: &dyn Source) -> Result<PathBuf> {
        let path = self.path.join(SKIPPED);
        checkpoint::replace(&path, source.skipped().listed(source).as_bytes())
            .map_err(|e| usage(format!("{}: cannot be written: {e}", path.display())))?;
        Ok(path)
    }

    /// Keeps the weights of the lowest validation error so far.
    pub fn save_best(&self, parameters: &Tensors) -> Result<()> {
        checkpoint::write_tensors(&self.path.join(BEST), parameters)
    }

    fn rotate(&self) {
        let Ok(entries) = std::fs::read_dir(&self.path) else {
            return;
        };
        let numbered = |p: &PathBuf| {
            p.file_name()
                .and_then(|n| n.to_str())
                .is_some_and(|n| n.starts_with("checkpoint-") && n.ends_with(".safetensors"))
        };
        let mut old: Vec<PathBuf> = entries
            .flatten()
            .map(|e| e.path())
            .filter(numbered)
            .collect();
        old.sort();
        for path in old.iter().rev().skip(self.keep + 1) {
            let _ = std::fs::remove_file(path);
        }
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
