//! TensorBoard event files: scalars and PNG images.
//!
//! Written here rather than by a crate: `tensorboard-rs` calls itself inactive and brings a second
//! `image` (0.23) and `protobuf` 2; `tfrecord` 0.15 brings prost 0.12 and two more itertools, thirty
//! crates in all. The format is small
//! (the sibling module `event`).

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use super::event::{Event, Image, SESSION_START, SessionLog, Summary, SummaryValue, framed};
use super::metrics::Record;
use super::picture::Picture;
use crate::error::{self, Result};

/// Writes one event file. TensorBoard reads all files of a folder as one run.
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventWriter {
    /// A new event file in `folder`, which is made if missing. `resumed_after` is the last step
    /// that still counts when a run is resumed: TensorBoard then drops the folder's later events.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the folder or file cannot be written.
    pub fn create(folder: &Path, resumed_after: Option<u64>) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|cause| unwritable(folder, &cause))?;
        let (path, file) = new_file(folder)?;
        let mut writer = EventWriter {
            path,
            file: BufWriter::new(file),
        };
        writer.write(Event {
            file_version: Some("brain.Event:2".into()),
            ..Default::default()
        })?;
        if let Some(step) = resumed_after {
            writer.write(Event {
                step: step as i64 + 1,
                session_log: Some(SessionLog {
                    status: SESSION_START,
                }),
                ..Default::default()
            })?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// The file written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Several values of one step, each under its tag (`group/name`).
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let value = |&(tag, value): &(&str, f64)| SummaryValue {
            tag: tag.into(),
            simple_value: Some(value as f32),
            image: None,
        };
        self.summary(step, values.iter().map(value).collect())
    }

    /// The values of a metrics record, training and validation side by side in each group, and
    /// its extra numbers in the group that their name begins with (`group/name`), else in `more`.
    /// An evaluation flushes.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the file cannot be written.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        let (mut values, extra) = match record {
            Record::Step(r) => (
                vec![
                    ("loss/training", r.loss),
                    ("top1_error/training", r.top1_error),
                    ("learning_rate", r.learning_rate),
                    ("speed/images_per_second", r.images_per_second),
                    ("speed/data_wait", r.data_wait),
                ],
                &r.extra,
            ),
            Record::Evaluation(r) => (
                vec![
                    ("loss/validation", r.val_loss),
                    ("top1_error/validation", r.val_top1_error),
                    ("top5_error/validation", r.val_top5_error),
                ],
                &r.extra,
            ),
        };
        values.push(("epoch", record.epoch()));
        let tag = |name: &String| match name.contains('/') {
            true => name.clone(),
            false => format!("more/{name}"),
        };
        let tags: Vec<String> = extra.keys().map(tag).collect();
        for (tag, value) in tags.iter().zip(extra.values()) {
            values.extend(value.as_f64().map(|value| (tag.as_str(), value)));
        }
        self.scalars(record.step(), &values)?;
        match record {
            Record::Evaluation(_) => self.flush(),
            Record::Step(_) => Ok(()),
        }
    }

    /// A picture, stored as PNG; flushes.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the file cannot be written.
    pub fn image(&mut self, tag: &str, step: u64, picture: &Picture) -> Result<()> {
        let value = SummaryValue {
            tag: tag.into(),
            simple_value: None,
            image: Some(Image {
                height: picture.height() as i32,
                width: picture.width() as i32,
                colorspace: 3,
                encoded_image_string: picture.png()?,
            }),
        };
        self.summary(step, vec![value])?;
        self.flush()
    }

    /// Hands everything written so far to the operating system.
    ///
    /// # Errors
    /// [`crate::error::Error::Data`] when the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file
            .flush()
            .map_err(|cause| unwritable(&self.path, &cause))
    }

    fn summary(&mut self, step: u64, value: Vec<SummaryValue>) -> Result<()> {
        self.write(Event {
            step: step as i64,
            summary: Some(Summary { value }),
            ..Default::default()
        })
    }

    fn write(&mut self, mut event: Event) -> Result<()> {
        event.wall_time = since_1970().as_secs_f64();
        self.file
            .write_all(&framed(&event.encode_to_vec()))
            .map_err(|cause| unwritable(&self.path, &cause))
    }
}

/// A file name that is new in `folder` and sorts after the earlier ones, as TensorBoard reads
/// the files of a run in the order of their names.
fn new_file(folder: &Path) -> Result<(PathBuf, File)> {
    let process = std::process::id();
    let seconds = since_1970().as_secs();
    for serial in 0.. {
        let name = format!("events.out.tfevents.{seconds:010}.{serial:03}.alexnet-mp.{process}");
        let path = folder.join(name);
        match File::create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(unwritable(&path, &cause)),
        }
    }
    Err(error::data(format!("{} is full", folder.display())))
}

fn since_1970() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn unwritable(path: &Path, cause: &std::io::Error) -> error::Error {
    error::data(format!("cannot write {}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::records;
    use super::super::metrics::{EvaluationRecord, StepRecord};
    use super::*;

    fn events(path: &Path) -> Vec<Event> {
        let decode = |data: Vec<u8>| Event::decode(data.as_slice()).unwrap();
        records(path).into_iter().map(decode).collect()
    }

    #[test]
    fn scalars_and_images_come_back_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), None).unwrap();
        let step = StepRecord {
            step: 3,
            loss: 2.25,
            ..Default::default()
        };
        writer.record(&step.into()).unwrap();
        let picture = Picture::new(5, 4, [10, 200, 30]);
        writer.image("conv1/column 0", 3, &picture).unwrap();
        let events = events(writer.path());
        assert_eq!(events.len(), 3);
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        let loss = &events[1].summary.as_ref().unwrap().value[0];
        assert_eq!(events[1].step, 3);
        assert_eq!(
            (loss.tag.as_str(), loss.simple_value),
            ("loss/training", Some(2.25))
        );
        let image = events[2].summary.as_ref().unwrap().value[0].image.as_ref();
        let image = image.unwrap();
        assert_eq!((image.width, image.height, image.colorspace), (5, 4, 3));
        let decoded = image::load_from_memory(&image.encoded_image_string).unwrap();
        assert_eq!(decoded.to_rgb8().get_pixel(4, 3).0, [10, 200, 30]);
    }

    #[test]
    fn an_evaluation_is_flushed_and_extra_numbers_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), None).unwrap();
        let mut evaluation = EvaluationRecord::default();
        evaluation.extra.insert("dead".into(), 0.5.into());
        evaluation.extra.insert("note".into(), "text".into());
        writer.record(&evaluation.into()).unwrap();
        let events = events(writer.path());
        let values = &events[1].summary.as_ref().unwrap().value;
        let tags: Vec<&str> = values.iter().map(|value| value.tag.as_str()).collect();
        assert_eq!(tags[3..], ["epoch", "more/dead"]);
    }

    #[test]
    fn a_resumed_run_writes_a_later_file_that_drops_the_steps_after_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let first = EventWriter::create(folder.path(), None).unwrap();
        let second = EventWriter::create(folder.path(), Some(20)).unwrap();
        assert!(second.path() > first.path());
        let start = &events(second.path())[1];
        assert_eq!(start.step, 21);
        assert_eq!(start.session_log.as_ref().unwrap().status, SESSION_START);
    }
}
