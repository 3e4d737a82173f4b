//! What passes between a worker and the rest of the process: bounded, lock-free, one way each.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crossbeam::queue::ArrayQueue;

use super::{Asked, HELD, Told};
use crate::neigh::Paths;
use crate::session::Which;
use crate::snapshot::Compiled;
use crate::stats::{CoreCounters, Report, Total};

/// Reports that may wait for the agent. What does not fit is counted (`reports_lost`).
const REPORTS: usize = 8_192;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Report every live connection that is meant, some a turn, then [`Report::LiveEnd`].
    ListLive { query: u64, which: Which },
    /// Report every endpoint that is known, some a turn, then [`Report::EndpointsEnd`].
    ListEndpoints { query: u64 },
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
            asked: ArrayQueue::new(2 * HELD),
            told: ArrayQueue::new(2 * HELD),
            counters: CoreCounters::default(),
            captures_grew: AtomicBool::new(false),
            drained: AtomicBool::new(false),
        }
    }
}

impl Mailbox {
    pub fn report(&self, report: Report) {
        if let Err(lost) = self.reports.push(report) {
            self.counters.add(Total::ReportsLost, 1);
            self.counters.add(Total::DecisionsLost, lost.is_decision().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use ::snapshot::{CloseReason, RefuseReason};

    use super::*;
    use crate::admin::example;

    #[test]
    fn a_decision_that_finds_no_room_is_counted_as_one() {
        let mailbox = Mailbox::default();
        let ended = |report| Report::Ended(Box::new(report));
        (0..REPORTS).for_each(|_| mailbox.report(Report::LiveEnd { query: 0 }));
        let lost = || [Total::ReportsLost, Total::DecisionsLost].map(|total| mailbox.counters.total(total));
        assert_eq!(lost(), [0, 0]);
        for (report, want) in [
            (Report::LiveEnd { query: 0 }, [1, 0]),
            (ended(example::closed(CloseReason::Finished)), [2, 0]),
            (ended(example::closed(CloseReason::PolicyChanged)), [3, 1]),
            (ended(example::refused(RefuseReason::DeniedByRule)), [4, 2]),
            (Report::Stood { at_ms: 0, connection: Box::new(example::accepted()) }, [5, 3]),
        ] {
            mailbox.report(report);
            assert_eq!(lost(), want);
        }
    }
}
