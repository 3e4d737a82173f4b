//! A load generator on kernel sockets: one process in the client's namespace, one in the server's.
//!
//! Each connection begins with a message of [`MESSAGE`] bytes whose first byte says what it is for.
//! Nothing counts that was not checked: answers must be those of their request, blocks must come in
//! order and all of them, and both ends must agree on how many bytes that was. Where a rate is
//! given, the loop is open: work begins when the schedule says so, and a latency runs from that
//! moment, whether or not the client was still busy with what came before.

mod bulk;
pub mod client;
mod connections;
pub mod held;
mod idle;
mod pace;
mod round_trip;
pub mod server;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::cpu::{Reading, Spent};
use crate::plan::Work;

pub use held::{PARTS, parts};
pub use pace::{Pace, sleep_until};
pub use wire::{MARKER, MESSAGE, echo};

/// What the client is told to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// None: one request, to see who answers.
    pub work: Option<Work>,
    pub server: SocketAddr,
    pub seconds: f64,
    /// A file to make when its connections stand; for round trips.
    pub ready: Option<std::path::PathBuf>,
    /// The gateways' processes.
    pub gateways: Vec<u32>,
    /// The bench itself: all that does not descend from it is foreign.
    pub root: u32,
}

/// What it says when it is done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub spent: Spent,
    /// Payload that crossed, both ways.
    pub bytes: u64,
    /// Connections, round trips or streams.
    pub count: u64,
    pub latency: Option<Latency>,
    pub memory: Option<Memory>,
    /// The caller's address as the server saw it.
    pub seen_as: Option<SocketAddr>,
}

/// From the intended start (of a connection: of its connect) to the whole answer, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Quantile and latency, for the curve.
    pub curve: Vec<(f64, f64)>,
}

/// What connections that do nothing hold, in KiB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Proportional set size of the gateways' processes before the first connection.
    pub base: f64,
    /// How much that grew.
    pub processes: f64,
    /// How much less the whole machine had available.
    pub machine: f64,
}

impl Job {
    fn reading(&self) -> anyhow::Result<Reading> {
        Reading::take(&self.gateways, self.root)
    }
}

impl Measured {
    fn new(spent: Spent, bytes: u64, count: u64) -> Self {
        Self { spent, bytes, count, ..Self::default() }
    }

    fn timed(self, times: &Histogram<u64>) -> Self {
        let at = |quantile| (quantile, times.value_at_quantile(quantile) as f64 / 1000.0);
        Self { latency: Some(Latency { curve: QUANTILES.iter().map(|quantile| at(*quantile)).collect() }), ..self }
    }
}

impl Latency {
    /// One of [`QUANTILES`].
    pub fn at(&self, quantile: f64) -> Option<f64> {
        self.curve.iter().find(|(q, _)| *q == quantile).map(|(_, value)| *value)
    }
}

pub const QUANTILES: [f64; 11] = [0.1, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0];

/// Nanoseconds up to a minute, with three digits.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}
