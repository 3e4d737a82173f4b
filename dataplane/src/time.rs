//! The two times of a turn. They are read once, at its start, and handed down as an argument.

pub use tcp_stack::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, for everything that waits.
    pub mono: Instant,
    /// Milliseconds since the epoch, for certificates and for people.
    pub unix_ms: u64,
}

impl Now {
    /// Seconds since the epoch.
    pub fn unix(&self) -> u64 {
        self.unix_ms / 1000
    }
}

/// One of the two seams of a worker (the other is [`crate::io::PacketIo`]).
pub trait Clock {
    fn now(&mut self) -> Now;
}
