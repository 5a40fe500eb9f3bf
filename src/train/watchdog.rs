//! Ends the process when a device hangs: a blocked driver call cannot be interrupted otherwise.

use crate::error::device;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Default)]
struct Watched {
    /// What is under way, and until when it may take.
    work: Option<(String, Instant)>,
    over: bool,
}

/// A thread that watches one piece of work at a time.
pub struct Watchdog {
    shared: Arc<(Mutex<Watched>, Condvar)>,
    limit: Duration,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watchdog {
    /// Watches with a limit of so many seconds a piece of work; past it the process prints what
    /// hung and exits with code 5.
    pub fn new(seconds: f64) -> Self {
        Self::with_alarm(seconds, |message| {
            eprintln!("error: {message}");
            std::process::exit(i32::from(device("").exit_code()));
        })
    }

    fn with_alarm(seconds: f64, alarm: impl FnOnce(String) + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Watched::default()), Condvar::new()));
        let watched = shared.clone();
        let limit = Duration::from_secs_f64(seconds);
        let thread = std::thread::spawn(move || {
            if let Some(work) = watch(&watched) {
                alarm(format!(
                    "{work} has not ended within {seconds} s: a device hangs; the last checkpoint is good (train.step_timeout sets the limit)"
                ));
            }
        });
        Watchdog {
            shared,
            limit,
            thread: Some(thread),
        }
    }

    /// Runs `work` under watch; `name` tells the user what it was.
    pub fn watch<T>(&self, name: impl FnOnce() -> String, work: impl FnOnce() -> T) -> T {
        self.set(Some((name(), Instant::now() + self.limit)));
        let result = work();
        self.set(None);
        result
    }

    fn set(&self, work: Option<(String, Instant)>) {
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .work = work;
        self.shared.1.notify_all();
    }
}

/// Waits until the watched work is over (`None`) or late (its name).
fn watch((state, changed): &(Mutex<Watched>, Condvar)) -> Option<String> {
    let mut watched = state.lock().unwrap_or_else(PoisonError::into_inner);
    while !watched.over {
        let now = Instant::now();
        watched = match &watched.work {
            Some((name, until)) if *until <= now => return Some(name.clone()),
            Some((_, until)) => {
                let left = *until - now;
                changed
                    .wait_timeout(watched, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => changed
                .wait(watched)
                .unwrap_or_else(PoisonError::into_inner),
        };
    }
    None
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .over = true;
        self.shared.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, has been printed.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn work_that_hangs_raises_the_alarm_with_its_name() {
        let (send, receive) = mpsc::channel();
        let dog = Watchdog::with_alarm(0.05, move |message| send.send(message).unwrap());
        dog.watch(
            || "step 3".into(),
            || {
                let message = receive.recv_timeout(Duration::from_secs(20)).unwrap();
                assert!(
                    message.starts_with("step 3 has not ended within 0.05 s"),
                    "{message}"
                );
            },
        );
    }

    #[test]
    fn work_that_ends_in_time_raises_none() {
        let (send, receive) = mpsc::channel();
        let dog = Watchdog::with_alarm(30.0, move |message| send.send(message).unwrap());
        for _ in 0..1000 {
            dog.watch(String::new, || ());
        }
        drop(dog);
        assert!(receive.try_recv().is_err());
    }
}
