//! The schedule of an open loop: when the next piece of work is meant to begin.

use std::time::{Duration, Instant};

/// Equal steps from one beginning. A step that comes late does not move those after it.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    next: Instant,
    /// None: as fast as it goes.
    step: Option<Duration>,
}

impl Pace {
    pub fn free() -> Self {
        Self { next: Instant::now(), step: None }
    }

    pub fn every(step: Duration) -> Self {
        Self { next: Instant::now(), step: Some(step) }
    }

    /// Waits for the next step.
    pub fn wait(&mut self) {
        if let Some(step) = self.step {
            sleep_until(self.next);
            self.next += step;
        }
    }
}

/// Timers that fire when they are due, and not up to 50 µs later: for the calling thread.
pub fn sharp_timers() -> anyhow::Result<()> {
    Ok(rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?)
}

/// Returns at once if that moment is past.
pub fn sleep_until(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        #[expect(clippy::disallowed_methods, reason = "the clock is the event that an open loop waits for")]
        std::thread::sleep(left);
    }
}
