//! How fast a run goes.

use std::time::{Duration, Instant};

/// Time and images since the last log and in all; monotonic.
pub(super) struct Clock {
    logged: Instant,
    logged_wait: Duration,
    pub images: u64,
    /// What the last lap came to.
    last: (f64, f64),
    /// Images a second of every lap.
    laps: Vec<f64>,
}

impl Clock {
    /// Starts now.
    pub fn new() -> Self {
        Clock {
            logged: Instant::now(),
            logged_wait: Duration::ZERO,
            images: 0,
            last: (0.0, 0.0),
            laps: vec![],
        }
    }

    /// Images a second and the share of time waited since the last lap; those of the last lap
    /// where no image has come since.
    pub fn rates(&self, waited: Duration) -> (f64, f64) {
        if self.images == 0 {
            return self.last;
        }
        let seconds = self.logged.elapsed().as_secs_f64().max(1e-9);
        let wait = waited.saturating_sub(self.logged_wait).as_secs_f64();
        (self.images as f64 / seconds, (wait / seconds).min(1.0))
    }

    /// Ends a lap.
    pub fn lap(&mut self, waited: Duration) {
        self.last = self.rates(waited);
        self.laps.push(self.last.0);
        self.restart(waited);
    }

    /// Images a second, the median of the laps.
    pub fn median_rate(&self) -> f64 {
        let mut rates = self.laps.clone();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(0.0)
    }

    /// Starts a lap anew, after something that is not training.
    pub fn restart(&mut self, waited: Duration) {
        self.logged = Instant::now();
        self.logged_wait = waited;
        self.images = 0;
    }
}
