//! What passes between a worker and the rest of the process: bounded, lock-free, one way each.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam::queue::ArrayQueue;

use super::{Asked, HELD, Told};
use crate::neigh::Paths;
use crate::session::Which;
use crate::snapshot::Compiled;
use crate::stats::{CoreCounters, Report};

/// Reports that may wait for the agent. What does not fit is counted (`reports_lost`).
const REPORTS: usize = 8_192;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Report every live connection that is meant, some a turn, then [`Report::LiveEnd`].
    ListLive { query: u64, which: Which },
    /// Take no new connections; reset what is left when `timeouts.drain` is over, and end the loop.
    Drain,
    /// Reset every connection and end the loop.
    Stop,
    /// The port's interface came back or changed: [`crate::io::PacketIo::reopen`] it.
    Reopen(crate::io::PortId),
}

/// Shared between one worker and the agent.
#[derive(Debug)]
pub struct Mailbox {
    /// Holds the newest one: a worker that slept through two adopts the second.
    pub compiled: ArrayQueue<Arc<Compiled>>,
    pub paths: ArrayQueue<Arc<Paths>>,
    pub commands: ArrayQueue<Command>,
    pub reports: ArrayQueue<Report>,
    /// SYNs whose process is to be found out, and what was.
    pub asked: ArrayQueue<Asked>,
    pub told: ArrayQueue<Told>,
    pub counters: CoreCounters,
    /// The snapshot in `compiled` captures what the one before did not: connections that are older
    /// may pass for a while.
    pub captures_grew: AtomicBool,
    /// It stops, and nothing lives any more.
    pub drained: AtomicBool,
}

impl Default for Mailbox {
    fn default() -> Self {
        Self {
            compiled: ArrayQueue::new(1),
            paths: ArrayQueue::new(1),
            commands: ArrayQueue::new(64),
            reports: ArrayQueue::new(REPORTS),
            asked: ArrayQueue::new(HELD),
            told: ArrayQueue::new(HELD),
            counters: CoreCounters::default(),
            captures_grew: AtomicBool::new(false),
            drained: AtomicBool::new(false),
        }
    }
}

impl Mailbox {
    pub fn report(&self, report: Report) {
        if self.reports.push(report).is_err() {
            self.counters.add(crate::stats::Total::ReportsLost, 1);
        }
    }
}
