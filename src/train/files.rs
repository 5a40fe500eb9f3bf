//! The checkpoints of a run: the newest, older ones beside it, the best weights.

use super::saver::Saver;
use crate::checkpoint::{self, Checkpoint, FILE_NAME};
use crate::error::Result;
use crate::network::params::Tensors;
use crate::report::format::shell_word;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const BEST: &str = "best.safetensors";
/// Stands for no checkpoint.
const NONE: u64 = u64::MAX;

/// Something to write.
enum Job {
    Checkpoint(Box<Checkpoint>),
    /// The weights of the lowest validation error so far.
    Best(Tensors),
}

/// Writes checkpoints in the background.
pub struct Files {
    path: PathBuf,
    saver: Saver<Job>,
    /// The step of the newest checkpoint on the disk.
    saved: Arc<AtomicU64>,
}

impl Files {
    /// The checkpoints in folder `path`, `keep` older ones beside the newest; `newest` is the step
    /// of the one that is there already.
    pub fn new(path: &Path, keep: usize, newest: Option<u64>) -> Self {
        let saved = Arc::new(AtomicU64::new(newest.unwrap_or(NONE)));
        let (folder, newest) = (path.to_path_buf(), saved.clone());
        // A run that was killed while it wrote leaves a part of a file.
        let _ = std::fs::remove_file(path.join(FILE_NAME).with_extension("tmp"));
        let saver = Saver::new(move |job| match job {
            Job::Checkpoint(checkpoint) => {
                write(&folder, keep, &checkpoint)?;
                newest.store(checkpoint.state.step, Ordering::Relaxed);
                Ok(())
            }
            Job::Best(parameters) => checkpoint::write_tensors(&folder.join(BEST), &parameters),
        });
        Files {
            path: path.into(),
            saver,
            saved,
        }
    }

    /// Hands a checkpoint over to be written.
    ///
    /// # Errors
    /// `Checkpoint` where an earlier one could not be written.
    pub fn save(&self, checkpoint: Checkpoint) -> Result<()> {
        self.saver.submit(Job::Checkpoint(Box::new(checkpoint)))
    }

    /// Hands the weights of the lowest validation error so far over to be written.
    pub fn save_best(&self, parameters: Tensors) -> Result<()> {
        self.saver.submit(Job::Best(parameters))
    }

    /// What could not be written, if anything.
    pub fn check(&self) -> Result<()> {
        self.saver.check()
    }

    /// Waits until all is on the disk.
    pub fn finish(&self) -> Result<()> {
        self.saver.finish()
    }

    /// As [`finish`](Files::finish), but no longer than this.
    pub fn finish_within(&self, longest: Duration) -> Result<()> {
        self.saver.finish_within(longest)
    }

    /// The newest checkpoint on the disk before step `bound`, read back, and those after it
    /// removed from beside the newest; none where there is none.
    pub fn go_back(&self, bound: u64) -> Result<Option<Checkpoint>> {
        self.finish()?;
        let newest = self.saved.load(Ordering::Relaxed);
        if newest != NONE && newest < bound {
            return Checkpoint::load(&self.path.join(FILE_NAME)).map(Some);
        }
        let mut older = numbered(&self.path);
        while let Some((step, path)) = older.pop() {
            if step < bound {
                return Checkpoint::load(&path).map(Some);
            }
            let _ = std::fs::remove_file(path);
        }
        Ok(None)
    }

    /// The step of the newest checkpoint on the disk.
    pub fn saved(&self) -> Option<u64> {
        Some(self.saved.load(Ordering::Relaxed)).filter(|&step| step != NONE)
    }

    /// What of the run is safe, in words.
    pub fn kept(&self) -> String {
        self.saved().map_or_else(
            || "no checkpoint was written yet".into(),
            |step| format!("the checkpoint of step {step} is good"),
        )
    }

    /// The same with how to go on from it.
    pub fn go_on(&self) -> String {
        let how = self.saved().map_or_else(String::new, |_| {
            format!(": go on with --resume --out {}", shell_word(&self.path))
        });
        self.kept() + &how
    }
}

fn write(folder: &Path, keep: usize, checkpoint: &Checkpoint) -> Result<()> {
    let newest = folder.join(FILE_NAME);
    checkpoint.save(&newest)?;
    if keep > 0 {
        let name = format!("checkpoint-{:09}.safetensors", checkpoint.state.step);
        let beside = folder.join(name);
        // One of an earlier run through this step, before a rollback.
        let _ = std::fs::remove_file(&beside);
        // A link costs nothing; where the file system knows none, only the newest is kept.
        let _ = std::fs::hard_link(&newest, beside);
        rotate(folder, keep);
    }
    Ok(())
}

/// Removes all numbered checkpoints but the newest and `keep` older ones.
fn rotate(folder: &Path, keep: usize) {
    for (_, path) in numbered(folder).iter().rev().skip(keep + 1) {
        let _ = std::fs::remove_file(path);
    }
}

/// The newest of a folder's numbered checkpoints that is whole, and its step.
pub fn newest_intact(folder: &Path) -> Option<(u64, PathBuf)> {
    let mut found = numbered(folder).into_iter().rev();
    found.find(|(_, path)| Checkpoint::load(path).is_ok())
}

/// The numbered checkpoints of a folder, oldest first.
fn numbered(folder: &Path) -> Vec<(u64, PathBuf)> {
    let step = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        let number = name.strip_prefix("checkpoint-")?;
        number.strip_suffix(".safetensors")?.parse().ok()
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| Some((step(&entry.path())?, entry.path())))
        .collect();
    found.sort();
    found
}
