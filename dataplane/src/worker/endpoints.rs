//! Endpoints behind virtual addresses: lists of them, and the flows of those that a call has left.

use snapshot::EndpointLoad;

use super::Worker;
use crate::flow::FlowRef;
use crate::io::PacketIo;
use crate::session::Left;
use crate::stats::Report;
use crate::time::{Clock, Instant};

/// Endpoints that one turn lists.
const SLICE: usize = 64;

impl<P: PacketIo, C: Clock> Worker<P, C> {
    /// A slice of the first list that is under way. The agent reads at its own pace, and a list waits for it.
    pub(super) fn list_endpoints(&mut self) {
        let room = self.mailbox.reports.capacity() - self.mailbox.reports.len();
        let Some(&(query, from)) = self.upkeep.endpoints.front().filter(|_| room > 2 * SLICE) else { return };
        let (core, now) = (self.settings.core, self.now);
        for shown in self.balancer.shown(from, SLICE, now.mono) {
            let left = |until: Instant| now.unix_ms + (until - now.mono).total_millis();
            let endpoint = EndpointLoad {
                core,
                address: shown.address,
                active: shown.active,
                connected: shown.connected,
                failed: shown.failed,
                streak: shown.streak,
                ejections: shown.ejections,
                ejected_until: shown.ejected_until.map(left),
            };
            self.mailbox.report(Report::Endpoint { query, endpoint: Box::new(endpoint) });
        }
        self.upkeep.endpoints[0].1 = from + SLICE;
        if from + SLICE >= self.balancer.places() {
            self.upkeep.endpoints.pop_front();
            self.mailbox.report(Report::EndpointsEnd { query });
        }
    }

    /// The flow to an endpoint that a call has left rests as long as the call's own, unless it is another
    /// session's by now.
    pub(super) fn rest(&mut self, left: Left, until: Instant) {
        let Some((key, since)) = left.flow else { return };
        if !matches!(self.flows.find(&key), Some(FlowRef::Dead { until }) if until == since) {
            return;
        }
        self.flows.insert(key, FlowRef::Dead { until });
        if let Some(oldest) = self.spent.keep(until, [key, key]) {
            self.forget(oldest);
        }
    }
}
