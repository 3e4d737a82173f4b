//! Simulated time: it stands still while anything happens, and jumps to the next event.

use std::cell::Cell;
use std::rc::Rc;

use dataplane::time::{Clock, Instant, Now};

/// What all simulations call "now" when they start, in seconds since the epoch.
pub const EPOCH: u64 = 1_800_000_000;

/// A handle on the one clock of a simulation.
#[derive(Debug, Clone, Default)]
pub struct SimClock(Rc<Cell<i64>>);

impl SimClock {
    /// Microseconds since the start.
    pub fn micros(&self) -> i64 {
        self.0.get()
    }

    pub fn mono(&self) -> Instant {
        Instant::from_micros(self.micros())
    }

    /// Seconds since the epoch.
    pub fn unix(&self) -> u64 {
        EPOCH + self.micros() as u64 / 1_000_000
    }

    pub fn advance_to(&self, micros: i64) {
        assert!(micros >= self.micros(), "time goes from {} back to {micros}", self.micros());
        self.0.set(micros);
    }
}

impl Clock for SimClock {
    fn now(&mut self) -> Now {
        Now { mono: self.mono(), unix_ms: EPOCH * 1000 + self.micros() as u64 / 1000 }
    }
}
