//! The hand-off between a sender and a receiver thread: one message at a time, in turn.

use crate::error::{Result, device};
use crate::sync::{Condvar, Mutex, PoisonError};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Full,
    Abandoned,
}

/// A slot for one message of type `T`. `T` is kept between messages, so its memory is reused.
pub struct Rendezvous<T> {
    inner: Mutex<(State, T)>,
    changed: Condvar,
}

impl<T> Rendezvous<T> {
    /// An empty slot with its storage.
    pub fn new(storage: T) -> Self {
        Rendezvous {
            inner: Mutex::new((State::Empty, storage)),
            changed: Condvar::new(),
        }
    }

    /// Waits until the slot is empty, lets `fill` write the message, and marks it full.
    pub fn put<R>(&self, fill: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        self.turn(State::Empty, State::Full, fill)
    }

    /// Waits until the slot is full, lets `empty` take the message, and marks it empty.
    pub fn take<R>(&self, empty: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        self.turn(State::Full, State::Empty, empty)
    }

    fn turn<R>(
        &self,
        from: State,
        to: State,
        action: impl FnOnce(&mut T) -> Result<R>,
    ) -> Result<R> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.0 != from {
            if inner.0 == State::Abandoned {
                return Err(device("the other column's device stopped"));
            }
            inner = self
                .changed
                .wait(inner)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let result = action(&mut inner.1)?;
        inner.0 = to;
        self.changed.notify_all();
        Ok(result)
    }

    /// Makes every wait, now and later, return an error.
    pub fn abandon(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).0 = State::Abandoned;
        self.changed.notify_all();
    }
}
