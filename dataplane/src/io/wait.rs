//! Sleeping until there is something to do, and being woken by another thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};

/// Most sockets of one core.
pub const MAX_SOCKETS: usize = 127;

#[derive(Debug)]
struct Bell {
    event: OwnedFd,
    /// Rung and not yet heard: ringing again costs no syscall.
    rung: AtomicBool,
}

/// Ends a core's sleep, from any thread.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Bell>);

impl Waker {
    pub fn wake(&self) {
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // Cannot fail but by a full counter, which also wakes.
            let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        }
    }
}

/// The sleeping side.
#[derive(Debug)]
pub struct Sleeper(Arc<Bell>);

impl Sleeper {
    pub fn new() -> rustix::io::Result<Self> {
        let event = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(Bell { event, rung: AtomicBool::new(false) })))
    }

    pub fn waker(&self) -> Waker {
        Waker(self.0.clone())
    }

    /// Sleeps until one of the sockets can be read, the waker was called, or the time is over.
    /// True: the waker was called.
    pub fn sleep<'a>(&self, sockets: impl Iterator<Item = BorrowedFd<'a>>, timeout: Option<Duration>) -> bool {
        let bell = self.0.event.as_fd();
        let mut polled: [PollFd<'_>; MAX_SOCKETS + 1] =
            std::array::from_fn(|_| PollFd::from_borrowed_fd(bell, PollFlags::IN));
        let mut count = 1;
        for (slot, socket) in polled[1..].iter_mut().zip(sockets) {
            *slot = PollFd::from_borrowed_fd(socket, PollFlags::IN);
            count += 1;
        }
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        // A signal ends the sleep early, as any wake-up may: the caller looks at everything.
        let _ = rustix::event::poll(&mut polled[..count], timeout.as_ref());
        let woken = !polled[0].revents().is_empty();
        if woken {
            let _ = rustix::io::read(&self.0.event, &mut [0; 8]);
            // A swap, so that what the waking thread did before is seen after.
            self.0.rung.swap(false, Ordering::AcqRel);
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_sleep_is_not_lost_and_two_are_one() {
        let sleeper = Sleeper::new().unwrap();
        let waker = sleeper.waker();
        waker.wake();
        waker.wake();
        assert!(sleeper.sleep(std::iter::empty(), None));
        assert!(!sleeper.sleep(std::iter::empty(), Some(Duration::ZERO)), "heard twice");
        waker.wake();
        assert!(sleeper.sleep(std::iter::empty(), None));
    }

    #[test]
    fn another_thread_ends_an_endless_sleep() {
        let sleeper = Sleeper::new().unwrap();
        let waker = sleeper.waker();
        std::thread::scope(|scope| {
            scope.spawn(move || waker.wake());
            assert!(sleeper.sleep(std::iter::empty(), None));
        });
    }
}
