//! Where every device is in a step, for whoever has to tell which one does not go on.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a device's thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    Nothing,
    Working,
    /// Waiting for another device, to take a message or to send one.
    Waiting,
}

/// Written by the devices' threads, read by the watchdog.
#[derive(Debug)]
pub struct Board {
    devices: Vec<(String, AtomicU8)>,
    step: AtomicU64,
}

impl Board {
    pub fn new(names: impl Iterator<Item = String>) -> Self {
        let named = |(index, name): (usize, String)| {
            let label = format!("device {index} ({name})");
            (label, AtomicU8::new(Doing::Nothing as u8))
        };
        Board {
            devices: names.enumerate().map(named).collect(),
            step: AtomicU64::new(0),
        }
    }

    /// Notes that this device now does this.
    pub fn set(&self, device: usize, doing: Doing) {
        self.devices[device].1.store(doing as u8, Ordering::Relaxed);
    }

    /// Notes the step under way, from 1.
    pub fn set_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    pub fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    /// "device 1 (CPU, 1 thread)".
    pub fn name(&self, device: usize) -> &str {
        &self.devices[device].0
    }

    /// Those that do not go on by themselves: the ones at work, or else all that are not done.
    pub fn stuck(&self) -> String {
        let at = |wanted: &[Doing]| -> Vec<&str> {
            let are = |state: &AtomicU8| {
                let state = state.load(Ordering::Relaxed);
                wanted.iter().any(|w| *w as u8 == state)
            };
            let found = self.devices.iter().filter(|(_, state)| are(state));
            found.map(|(name, _)| name.as_str()).collect()
        };
        let mut found = at(&[Doing::Working]);
        if found.is_empty() {
            found = at(&[Doing::Waiting]);
        }
        if found.is_empty() {
            found = at(&[Doing::Nothing]);
        }
        found.join(" and ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_at_work_is_stuck_rather_than_one_that_waits_for_it() {
        let names = ["CPU, 1 thread", "CPU, 2 threads"].map(String::from);
        let board = Board::new(names.into_iter());
        board.set(0, Doing::Waiting);
        board.set(1, Doing::Working);
        assert_eq!(board.stuck(), "device 1 (CPU, 2 threads)");
        board.set(1, Doing::Waiting);
        assert_eq!(
            board.stuck(),
            "device 0 (CPU, 1 thread) and device 1 (CPU, 2 threads)"
        );
    }
}
