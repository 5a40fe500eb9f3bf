//! `metrics.jsonl`: one JSON object per line for every logged step and every evaluation.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::{self, Result};

/// One logged training step. Errors and shares are fractions (0 to 1), never per cent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps done, this one included: the first step of a run is 1.
    pub step: u64,
    /// Passes over the training set done, with the fraction of the current one.
    pub epoch: f64,
    /// Mean multinomial logistic loss of the batch, in nats.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// Share of the batch whose most probable class is wrong.
    #[serde(default, deserialize_with = "number_or_null")]
    pub top1_error: f64,
    pub learning_rate: f64,
    pub images_per_second: f64,
    /// Share of the step's time spent waiting for images.
    pub data_wait: f64,
    /// Anything else, written beside the fields above.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One evaluation on the validation set. Errors are fractions (0 to 1).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// Steps done when it was made.
    pub step: u64,
    pub epoch: f64,
    #[serde(deserialize_with = "number_or_null")]
    pub val_top1_error: f64,
    #[serde(deserialize_with = "number_or_null")]
    pub val_top5_error: f64,
    /// Mean multinomial logistic loss, in nats.
    #[serde(deserialize_with = "number_or_null")]
    pub val_loss: f64,
    /// Anything else, written beside the fields above.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Record {
    Evaluation(EvaluationRecord),
    Step(StepRecord),
}

impl Record {
    /// Steps done when the record was made.
    pub fn step(&self) -> u64 {
        match self {
            Record::Evaluation(record) => record.step,
            Record::Step(record) => record.step,
        }
    }

    /// Epochs done when the record was made.
    pub fn epoch(&self) -> f64 {
        match self {
            Record::Evaluation(record) => record.epoch,
            Record::Step(record) => record.epoch,
        }
    }
}

impl From<StepRecord> for Record {
    fn from(record: StepRecord) -> Self {
        Record::Step(record)
    }
}

impl From<EvaluationRecord> for Record {
    fn from(record: EvaluationRecord) -> Self {
        Record::Evaluation(record)
    }
}

/// JSON has no NaN: a diverged run writes `null`, read back as NaN.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// Appends records to a file; each line is on its way to the disk when `write` returns.
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

impl MetricsWriter {
    /// An empty file at `path`, replacing what is there.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the file cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|cause| unwritable(path, &cause))?;
        Ok(Self::new(path, file))
    }

    /// Goes on after `step`: drops later records (the run will write them again) and what is no
    /// record, such as a line torn by a crash. A missing file counts as an empty one.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the file cannot be read or written.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        let old = match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(cause) => return Err(unreadable(path, &cause)),
        };
        let kept: String = old
            .lines()
            .filter(|line| matches!(parse(line), Ok(record) if record.step() <= step))
            .flat_map(|line| [line, "\n"])
            .collect();
        if kept != old {
            let temporary = path.with_extension("jsonl.new");
            fs::write(&temporary, &kept).map_err(|cause| unwritable(&temporary, &cause))?;
            fs::rename(&temporary, path).map_err(|cause| unwritable(path, &cause))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self::new(
            path,
            file.map_err(|cause| unwritable(path, &cause))?,
        ))
    }

    fn new(path: &Path, file: File) -> Self {
        MetricsWriter {
            path: path.to_owned(),
            file,
        }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the file cannot be written (a full disk).
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let line = serde_json::to_string(record).map_err(|cause| error::data(cause.to_string()))?;
        // One call for the whole line, unbuffered: a killed run tears at most its last line.
        self.file
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|cause| unwritable(&self.path, &cause))
    }
}

/// All records of a file, in its order. The last line may be torn (a run that is still writing,
/// or was killed) and is left out then.
///
/// # Errors
/// [`crate::error::Error::Data`] when the file cannot be read, or another line is no record.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = fs::read(path).map_err(|cause| unreadable(path, &cause))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let mut records = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match parse(line) {
            Ok(record) => records.push(record),
            Err(_) if index + 1 == lines.len() => {}
            Err(cause) => {
                let place = format!("{}:{}", path.display(), index + 1);
                return Err(error::data(format!(
                    "{place}: not a metrics record: {cause}"
                )));
            }
        }
    }
    Ok(records)
}

fn parse(line: &str) -> serde_json::Result<Record> {
    // Untagged enums report no cause; telling the two kinds apart here keeps serde's own message.
    let value: Value = serde_json::from_str(line)?;
    if value.get("val_loss").is_some() {
        serde_json::from_value(value).map(Record::Evaluation)
    } else {
        serde_json::from_value(value).map(Record::Step)
    }
}

fn unreadable(path: &Path, cause: &std::io::Error) -> error::Error {
    error::data(format!("cannot read {}: {cause}", path.display()))
}

fn unwritable(path: &Path, cause: &std::io::Error) -> error::Error {
    error::data(format!("cannot write {}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Record {
        let mut extra = Map::new();
        extra.insert("dead_relus".into(), Value::from(0.25));
        Record::Step(StepRecord {
            step,
            epoch: step as f64 / 10.0,
            loss: 2.3,
            top1_error: 0.9,
            learning_rate: 0.01,
            images_per_second: 100.0,
            data_wait: 0.05,
            extra,
        })
    }

    fn evaluation(step: u64) -> Record {
        Record::Evaluation(EvaluationRecord {
            step,
            val_top1_error: 0.5,
            val_top5_error: 0.1,
            val_loss: 1.5,
            ..Default::default()
        })
    }

    #[test]
    fn records_come_back_as_written_extra_fields_included() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let records = vec![step(1), step(2), evaluation(2)];
        let mut writer = MetricsWriter::create(&path).unwrap();
        for record in &records {
            writer.write(record).unwrap();
        }
        // Read while the writer is still open: every line is out at once.
        assert_eq!(read(&path).unwrap(), records);
        let first = fs::read_to_string(&path).unwrap();
        let first: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
        assert_eq!(first["dead_relus"], 0.25);
        assert_eq!(first["step"], 1);
    }

    #[test]
    fn resuming_drops_later_records_and_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::create(&path).unwrap();
        for record in [step(1), step(2), evaluation(2), step(3), step(4)] {
            writer.write(&record).unwrap();
        }
        writer.file.write_all(b"{\"step\": 5, \"epo").unwrap();
        drop(writer);
        let mut writer = MetricsWriter::resume(&path, 2).unwrap();
        writer.write(&step(3)).unwrap();
        let expected = [step(1), step(2), evaluation(2), step(3)];
        assert_eq!(read(&path).unwrap(), expected);
        assert!(!path.with_extension("jsonl.new").exists());
    }

    #[test]
    fn resuming_without_a_file_starts_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        MetricsWriter::resume(&path, 7)
            .unwrap()
            .write(&step(8))
            .unwrap();
        assert_eq!(read(&path).unwrap(), [step(8)]);
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_a_bad_line_elsewhere_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let good = serde_json::to_string(&step(1)).unwrap();
        fs::write(&path, format!("{good}\n{{\"step\": 2, \"lo\u{0}")).unwrap();
        assert_eq!(read(&path).unwrap(), [step(1)]);
        fs::write(&path, format!("{{\"step\": 0}}\n{good}\n")).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(
            message.contains("metrics.jsonl:1: not a metrics record: missing field"),
            "{message}"
        );
        assert_eq!(
            read(&folder.path().join("none")).unwrap_err().exit_code(),
            3
        );
    }

    #[test]
    fn a_loss_that_is_not_a_number_is_null_in_the_file_and_nan_when_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let nan = StepRecord {
            loss: f64::NAN,
            ..Default::default()
        };
        MetricsWriter::create(&path)
            .unwrap()
            .write(&nan.into())
            .unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("\"loss\":null"));
        match &read(&path).unwrap()[0] {
            Record::Step(record) => assert!(record.loss.is_nan()),
            Record::Evaluation(_) => panic!("a step was read as an evaluation"),
        }
    }
}
