//! Where the time of reading images goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A stage that an image goes through before its batch is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Bytes from a file, an archive or a shard.
    Disk,
    /// JPEG or PNG to pixels, scaling included.
    Decode,
    /// The crop copied into the batch.
    Crop,
}

impl Stage {
    pub const ALL: [Stage; 3] = [Stage::Disk, Stage::Decode, Stage::Crop];

    /// Its name for tables and messages.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Disk => "disk",
            Stage::Decode => "decode",
            Stage::Crop => "crop",
        }
    }

    /// What most likely helps where a loader spends most of its time in this stage.
    pub fn remedy(self) -> &'static str {
        match self {
            Stage::Disk => {
                "a faster disk, `alexnet-mp prepare --store jpeg` (an eighth of the bytes), or \
                 data.shuffle_window for a disk that is slow to seek"
            }
            Stage::Decode => "`alexnet-mp prepare` with raw shards, or more data.workers",
            Stage::Crop => "more data.workers",
        }
    }
}

/// Time spent in each stage, summed over all threads.
#[derive(Debug, Default)]
pub struct Times {
    nanoseconds: [AtomicU64; 3],
}

impl Times {
    /// Runs a piece of work of a stage and counts its time.
    pub fn count<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.add(stage, start.elapsed());
        result
    }

    /// Counts time of a stage.
    pub fn add(&self, stage: Stage, time: Duration) {
        self.nanoseconds[stage as usize].fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Time spent in a stage by now.
    pub fn spent(&self, stage: Stage) -> Duration {
        Duration::from_nanos(self.nanoseconds[stage as usize].load(Ordering::Relaxed))
    }
}
