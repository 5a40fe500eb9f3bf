//! SIGINT and SIGTERM: the first asks the run to stop after its step, a second ends it at once; so does the first while
//! there is nothing to save.

use crate::error::{Error, Result, usage};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Remembers which signal asked the run to stop.
#[derive(Clone, Default)]
pub struct Signals {
    received: Arc<AtomicUsize>,
    /// Whether the next signal ends the process.
    armed: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over SIGINT and SIGTERM for this process.
    ///
    /// # Errors
    /// `Usage` where the system refuses to install a handler.
    pub fn install() -> Result<Self> {
        let signals = Signals::default();
        let armed = &signals.armed;
        let install = || -> std::io::Result<()> {
            for signal in [SIGINT, SIGTERM] {
                // In this order a first signal arms, and a second finds it armed.
                flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?;
                flag::register(signal, armed.clone())?;
                flag::register_usize(signal, signals.received.clone(), signal as usize)?;
            }
            Ok(())
        };
        install().map_err(|e| usage(format!("cannot handle signals: {e}")))?;
        Ok(signals)
    }

    /// Whether a signal may end the process at once, with the exit code it has otherwise: until the first step is done,
    /// which may take minutes of reading data.
    pub fn nothing_to_save(&self, nothing: bool) {
        // Once a signal has come, a second one ends the process in any case.
        if self.stop().is_none() {
            self.armed.store(nothing, Ordering::Relaxed);
        }
    }

    /// The error to stop with, if a signal has come.
    pub fn stop(&self) -> Option<Error> {
        match self.received.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(Error::Interrupted(signal as i32)),
        }
    }
}
