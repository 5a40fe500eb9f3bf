//! A bounded channel of loom's locks, with what the program uses of crossbeam's: it blocks where
//! full or empty, and an end without its other ends fails.

use loom::sync::{Arc, Condvar, Mutex};
use std::collections::VecDeque;

/// Nothing is left and no sender either.
#[derive(Debug)]
pub struct Disconnected;

struct State<T> {
    queue: VecDeque<T>,
    room: usize,
    senders: usize,
    receivers: usize,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

pub struct Sender<T>(Arc<Shared<T>>);
pub struct Receiver<T>(Arc<Shared<T>>);

pub fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
    let state = State {
        queue: VecDeque::new(),
        room,
        senders: 1,
        receivers: 1,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        changed: Condvar::new(),
    });
    (Sender(shared.clone()), Receiver(shared))
}

impl<T> Sender<T> {
    pub fn send(&self, item: T) -> Result<(), T> {
        let mut state = self.0.state.lock().unwrap();
        while state.queue.len() == state.room && state.receivers > 0 {
            state = self.0.changed.wait(state).unwrap();
        }
        if state.receivers == 0 {
            return Err(item);
        }
        state.queue.push_back(item);
        self.0.changed.notify_all();
        Ok(())
    }

    pub fn try_send(&self, item: T) -> Result<(), T> {
        let mut state = self.0.state.lock().unwrap();
        if state.queue.len() == state.room || state.receivers == 0 {
            return Err(item);
        }
        state.queue.push_back(item);
        self.0.changed.notify_all();
        Ok(())
    }
}

impl<T> Receiver<T> {
    pub fn recv(&self) -> Result<T, Disconnected> {
        let mut state = self.0.state.lock().unwrap();
        while state.queue.is_empty() && state.senders > 0 {
            state = self.0.changed.wait(state).unwrap();
        }
        let item = state.queue.pop_front().ok_or(Disconnected)?;
        self.0.changed.notify_all();
        Ok(item)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().unwrap().senders += 1;
        Sender(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.state.lock().unwrap().receivers += 1;
        Receiver(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().senders -= 1;
        self.0.changed.notify_all();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap();
        state.receivers -= 1;
        // As crossbeam's: what nobody can take any more is dropped at once.
        if state.receivers == 0 {
            state.queue.clear();
        }
        self.0.changed.notify_all();
    }
}
