//! Where the time of reading images goes.

use crate::report::format::percent;
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

/// Share of the time spent waiting for images from which it is warned of.
const MUCH_WAITING: f64 = 0.1;

/// Decides whether a run must be told that its devices wait for images: once, and not for its
/// first lap, in which the loader starts.
#[derive(Debug, Default)]
pub struct WaitWarning {
    laps: usize,
    given: bool,
}

impl WaitWarning {
    /// After a lap in which the devices waited for `share` of the time, while the loader's
    /// `workers` had spent most of theirs in `stage` by then: the warning, with the likely remedy.
    pub fn after_lap(&mut self, share: f64, stage: Stage, workers: usize) -> Option<String> {
        self.laps += 1;
        if share <= MUCH_WAITING || self.laps == 1 || self.given {
            return None;
        }
        self.given = true;
        Some(format!(
            "{} of the time is spent waiting for images, most of it on {} ({workers} loader workers); likely to help: {}; see `alexnet-mp bench --loader`",
            percent(share, 0),
            stage.name(),
            stage.remedy()
        ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_above_ten_per_cent_is_warned_of_with_the_remedy_of_its_stage() {
        let remedies = [
            (Stage::Disk, "prepare --store jpeg"),
            (Stage::Decode, "`alexnet-mp prepare` with raw shards"),
            (Stage::Crop, "more data.workers"),
        ];
        for (stage, remedy) in remedies {
            let mut warning = WaitWarning::default();
            // As it starts, a loader is always waited for.
            assert_eq!(warning.after_lap(0.9, stage, 2), None);
            assert_eq!(warning.after_lap(0.0, stage, 2), None);
            assert_eq!(warning.after_lap(0.1, stage, 2), None);
            let given = warning.after_lap(0.34, stage, 2).unwrap();
            let start = format!(
                "34 % of the time is spent waiting for images, most of it on {} (2 loader workers)",
                stage.name()
            );
            assert!(given.starts_with(&start), "{given}");
            assert!(given.contains(remedy), "{given}");
            assert!(!given.contains('\n'), "{given}");
            assert_eq!(warning.after_lap(0.5, stage, 2), None, "said once");
        }
    }

    #[test]
    fn times_of_threads_add_up_by_stage() {
        let times = Times::default();
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| times.add(Stage::Crop, Duration::from_millis(250)));
            }
        });
        assert_eq!(times.spent(Stage::Crop), Duration::from_secs(1));
        assert_eq!(times.spent(Stage::Disk), Duration::ZERO);
    }
}
