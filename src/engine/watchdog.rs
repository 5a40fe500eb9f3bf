//! Ends the process when a device hangs: a blocked driver call cannot be interrupted otherwise.

use crate::sync::{Arc, Condvar, Mutex, PoisonError, thread};
use std::time::{Duration, Instant};

/// How many times its usual time a step may take, where that is more than the limit.
const PATIENCE: f64 = 10.0;
/// Weight of the newest step in the usual time.
const NEWEST: f64 = 0.1;

/// The watchdog looks at the clock this often: where it comes back much later, the whole process
/// was stopped (Ctrl-Z), and nobody hangs.
const LOOK: Duration = Duration::from_millis(500);

/// What devices are busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Step,
    Evaluation,
    /// The host waits for what was issued.
    Wait,
    /// Parameters are copied.
    Copy,
}

/// A piece of work that has taken too long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Late {
    pub work: Work,
    /// Seconds it was given.
    pub limit: f64,
}

struct Watched {
    /// What is under way, since when, and until when it may take.
    work: Option<(Work, Instant, Instant)>,
    /// Seconds of a usual step; 0 before the first.
    usual: f64,
    over: bool,
}

/// A thread that watches one piece of work at a time.
pub struct Watchdog {
    shared: Arc<(Mutex<Watched>, Condvar)>,
    limit: f64,
    thread: Option<thread::JoinHandle<()>>,
}

impl Watchdog {
    /// Watches with a limit of so many seconds a piece of work, or of ten usual steps where that
    /// is more. The first that takes longer is given to `alarm`, on another thread.
    pub fn new(limit: f64, alarm: impl FnOnce(Late) + Send + 'static) -> Self {
        let watched = Watched {
            work: None,
            usual: 0.0,
            over: false,
        };
        let shared = Arc::new((Mutex::new(watched), Condvar::new()));
        let seen = shared.clone();
        let thread = thread::spawn(move || {
            if let Some(late) = watch(&seen) {
                alarm(late);
            }
        });
        Watchdog {
            shared,
            limit,
            thread: Some(thread),
        }
    }

    /// Watches `work` from now on.
    pub fn begin(&self, work: Work) {
        self.change(|watched| {
            let now = Instant::now();
            let limit = allowed(self.limit, watched.usual);
            watched.work = Some((work, now, now + Duration::from_secs_f64(limit)));
        });
    }

    /// The work is done.
    pub fn end(&self) {
        self.change(|watched| {
            if let Some((Work::Step, since, _)) = watched.work.take() {
                let seconds = since.elapsed().as_secs_f64();
                watched.usual = if watched.usual > 0.0 {
                    (1.0 - NEWEST) * watched.usual + NEWEST * seconds
                } else {
                    seconds
                };
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Watched)) {
        let (state, changed) = &*self.shared;
        change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }
}

/// Seconds that work may take.
pub(super) fn allowed(limit: f64, usual: f64) -> f64 {
    limit.max(PATIENCE * usual)
}

/// Waits until the watched work is late, or all is over (`None`).
fn watch((state, changed): &(Mutex<Watched>, Condvar)) -> Option<Late> {
    let mut watched = state.lock().unwrap_or_else(PoisonError::into_inner);
    while !watched.over {
        let now = Instant::now();
        watched = match watched.work {
            Some((work, since, until)) if until <= now => {
                let limit = (until - since).as_secs_f64();
                return Some(Late { work, limit });
            }
            Some((_, _, until)) => {
                let look = LOOK.min(until - now);
                let (mut watched, _) = changed
                    .wait_timeout(watched, look)
                    .unwrap_or_else(PoisonError::into_inner);
                let stopped = now.elapsed().saturating_sub(look);
                if stopped > LOOK
                    && let Some((_, since, until)) = &mut watched.work
                {
                    *since += stopped;
                    *until += stopped + LOOK;
                }
                watched
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
        self.change(|watched| watched.over = true);
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, has been printed.
            let _ = thread.join();
        }
    }
}
