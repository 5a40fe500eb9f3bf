//! Writes in the background, so that training goes on meanwhile.

use crate::error::{Error, Result, checkpoint, panic_text};
use crate::sync::{Arc, Condvar, Mutex, PoisonError, thread};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What the two sides share.
struct State<J> {
    /// The job to be written next.
    next: Option<J>,
    /// Whether one is being written.
    busy: bool,
    failed: Option<Error>,
    over: bool,
}

/// A thread that writes one job after another, in the order they were handed over.
pub struct Saver<J> {
    shared: Arc<(Mutex<State<J>>, Condvar)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl<J: Send + 'static> Saver<J> {
    /// Jobs are written by `write`.
    pub fn new(mut write: impl FnMut(J) -> Result<()> + Send + 'static) -> Self {
        let state = State {
            next: None,
            busy: false,
            failed: None,
            over: false,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let seen = shared.clone();
        let thread = thread::spawn(move || {
            while let Some(job) = next(&seen) {
                let written =
                    catch_unwind(AssertUnwindSafe(|| write(job))).unwrap_or_else(|panic| {
                        let text = panic_text(&*panic);
                        Err(checkpoint(format!("internal error while saving: {text}")))
                    });
                let (state, changed) = &*seen;
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.busy = false;
                state.failed = state.failed.take().or(written.err());
                changed.notify_all();
            }
        });
        Saver {
            shared,
            thread: Some(thread),
        }
    }

    /// Hands a job over. Waits only while another one waits already to be written.
    ///
    /// # Errors
    /// What went wrong with an earlier job.
    pub fn submit(&self, job: J) -> Result<()> {
        self.wait_while(|state| state.next.is_some(), None)?;
        let (state, changed) = &*self.shared;
        state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next
            .replace(job);
        changed.notify_all();
        Ok(())
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// What went wrong with a job.
    pub fn finish(&self) -> Result<()> {
        self.wait_while(|state| state.busy || state.next.is_some(), None)
    }

    /// As [`finish`](Saver::finish), but no longer than this.
    pub fn finish_within(&self, longest: Duration) -> Result<()> {
        self.wait_while(
            |state| state.busy || state.next.is_some(),
            Some(Instant::now() + longest),
        )
    }

    /// What went wrong with a job, without waiting.
    pub fn check(&self) -> Result<()> {
        self.wait_while(|_| false, None)
    }

    fn wait_while(&self, still: impl Fn(&State<J>) -> bool, until: Option<Instant>) -> Result<()> {
        let (state, changed) = &*self.shared;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.failed.is_none() && still(&state) {
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => {
                    changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        state.failed.take().map_or(Ok(()), Err)
    }
}

/// Waits for a job and takes it; none once all is over and written.
fn next<J>((state, changed): &(Mutex<State<J>>, Condvar)) -> Option<J> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(job) = state.next.take() {
            state.busy = true;
            changed.notify_all();
            return Some(job);
        }
        if state.over {
            return None;
        }
        state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

impl<J> Drop for Saver<J> {
    /// What was handed over is still written.
    fn drop(&mut self) {
        let (state, changed) = &*self.shared;
        state.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It catches panics of the writing itself.
            let _ = thread.join();
        }
    }
}
