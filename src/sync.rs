//! What threads hand over to one another with. One place, so that a model checker's versions can
//! stand in for these (`tests/hand_offs`).

pub use crossbeam::channel;
pub use std::sync::atomic;
pub use std::sync::{Arc, Condvar, Mutex, PoisonError};
pub use std::thread;
