//! Simulated time: it stands still while anything happens, and jumps to the next event.

use std::cell::Cell;
use std::rc::Rc;

use dataplane::time::{Clock, Instant, Now};

/// What all simulations call "now" when they start, in seconds since the epoch.
pub const EPOCH: u64 = 1_800_000_000;

/// A handle on the one clock of a simulation.
#[derive(Debug, Clone, Default)]
pub struct SimClock {
    now: Rc<Cell<i64>>,
    /// Seconds by which somebody has set the wall clock.
    set: Rc<Cell<i64>>,
}

impl SimClock {
    /// Microseconds since the start.
    pub fn micros(&self) -> i64 {
        self.now.get()
    }

    pub fn mono(&self) -> Instant {
        Instant::from_micros(self.micros())
    }

    /// Seconds since the epoch.
    pub fn unix(&self) -> u64 {
        (EPOCH + self.micros() as u64 / 1_000_000).saturating_add_signed(self.set.get())
    }

    pub fn advance_to(&self, micros: i64) {
        assert!(micros >= self.micros(), "time goes from {} back to {micros}", self.micros());
        self.now.set(micros);
    }

    /// Sets the wall clock forward, or back, for all who look at it; what waits does not notice.
    pub fn set_wall(&self, seconds: i64) {
        self.set.set(self.set.get() + seconds);
    }
}

impl Clock for SimClock {
    fn now(&mut self) -> Now {
        let unix_ms = EPOCH * 1000 + self.micros() as u64 / 1000;
        Now { mono: self.mono(), unix_ms: unix_ms.saturating_add_signed(self.set.get() * 1000) }
    }
}
