//! A sans-IO TCP connection: segments, time and randomness come in as arguments.

#![forbid(unsafe_code)]

pub use smoltcp::time::{Duration, Instant};
