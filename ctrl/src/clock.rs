//! The one place of the control process that reads clocks, and says when they disagree.
//!
//! Certificates live by the wall clock, timers by one that neither is set nor runs in suspend. When
//! the wall clock is set, or the machine has slept, what was planned by it is void. The kernel says
//! so by cancelling a timer (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`; on resume too), so nobody
//! has to look; how far it jumped, three clocks tell together.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

/// Seconds since the epoch.
pub fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// Three clocks at one moment, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Can be set.
    pub wall: i64,
    /// Since the machine started.
    pub boot: i64,
    /// The same without the time that it slept.
    pub awake: i64,
}

/// How the wall clock has come to where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// It was set by this much.
    pub set_by: i64,
    pub slept: i64,
}

impl Clocks {
    pub fn read() -> Self {
        let ms = |id| {
            let at = clock_gettime(id);
            at.tv_sec * 1000 + at.tv_nsec / 1_000_000
        };
        Self { wall: ms(ClockId::Realtime), boot: ms(ClockId::Boottime), awake: ms(ClockId::Monotonic) }
    }

    /// None while the clocks have gone alike, but for less than a second: time services do that.
    pub fn jump_since(&self, before: &Self) -> Option<Jump> {
        let booted = self.boot - before.boot;
        let jump = Jump { set_by: self.wall - before.wall - booted, slept: booted - (self.awake - before.awake) };
        (jump.set_by.abs() >= LEAST || jump.slept >= LEAST).then_some(jump)
    }
}

/// Wakes whoever waits when the clock was set or the machine has slept.
pub struct Jumps {
    /// None: the kernel does not say; then it is seen whenever something else happens.
    timer: Option<AsyncFd<OwnedFd>>,
    last: Clocks,
}

impl Jumps {
    pub fn watch() -> Self {
        let timer = timer().inspect_err(|error| warn!("the kernel does not say when the clock is set: {error}")).ok();
        Self { timer, last: Clocks::read() }
    }

    /// Until it may have jumped. Can be dropped and asked again at any time.
    pub async fn woken(&self) {
        let Some(timer) = &self.timer else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = timer.readable().await else { return std::future::pending().await };
            let mut ticks = [0; 8];
            match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut ticks)?)) {
                // Nothing has happened yet.
                Err(_would_block) => {}
                // ECANCELED is what was waited for.
                Ok(Ok(_) | Err(_)) => return,
            }
        }
    }

    /// The jump since it was last asked, if there was one.
    pub fn seen(&mut self) -> Option<Jump> {
        let now = Clocks::read();
        let jump = now.jump_since(&self.last)?;
        self.last = now;
        info!(set_by_ms = jump.set_by, slept_ms = jump.slept, "the clock has jumped: identities are looked at anew");
        Some(jump)
    }
}

/// Set to a time that never comes, and cancelled when the clock is set.
fn timer() -> io::Result<AsyncFd<OwnedFd>> {
    let fd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    let never = Timespec { tv_sec: YEAR_2255, tv_nsec: 0 };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
    timerfd_settime(&fd, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &once)?;
    // An OwnedFd keeps its descriptor, which is all that is asked for.
    #[allow(deprecated, reason = "what came instead is unsafe, for types that might change theirs")]
    AsyncFd::new(fd)
}

const LEAST: i64 = 1_000;
/// The kernel counts nanoseconds in 63 bits.
const YEAR_2255: i64 = 9_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_and_a_machine_that_slept_are_told_apart_from_time_that_passes() {
        let start = Clocks { wall: 1_800_000_000_000, boot: 90_000, awake: 80_000 };
        let after = |wall: i64, boot: i64, awake: i64| {
            let now = Clocks { wall: start.wall + wall, boot: start.boot + boot, awake: start.awake + awake };
            now.jump_since(&start).map(|jump| (jump.set_by, jump.slept))
        };
        for (name, got, want) in [
            ("time passes", after(3_600_000, 3_600_000, 3_600_000), None),
            ("a time service nudges", after(10_999, 10_000, 10_000), None),
            ("set ahead", after(11_000, 10_000, 10_000), Some((1_000, 0))),
            ("set back by a day", after(-86_390_000, 10_000, 10_000), Some((-86_400_000, 0))),
            ("slept", after(28_810_000, 28_810_000, 10_000), Some((0, 28_800_000))),
            ("slept for less than a second", after(10_999, 10_999, 10_000), None),
            ("slept, and set when it woke", after(20_000, 15_000, 10_000), Some((5_000, 5_000))),
        ] {
            assert_eq!(got, want, "{name}");
        }
    }
}
