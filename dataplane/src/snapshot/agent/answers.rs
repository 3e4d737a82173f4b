//! What the agent tells ctrl: the workers' reports as they come, and answers to its queries.

use std::os::fd::OwnedFd;

use snapshot::channel::{CONNECTIONS_PER_REPLY, RULES_PER_REPLY};
use snapshot::report::PortReport;
use snapshot::{ConnectionReport, Query, Reply, RuleHits, ToCtrl, Version};

use super::{Agent, Listing, shortened};
use crate::admin;
use crate::io::PortId;
use crate::policy;
use crate::session::Which;
use crate::stats::{Report, Total};
use crate::time::{Clock, Now};
use crate::worker::Command;

/// Wishes for neighbours that wait for ctrl, at the most.
const MOST_RESOLVES: usize = 256;

impl<C: Clock> Agent<C> {
    pub(super) fn collect_reports(&mut self, now: Now) {
        for worker in &mut self.workers {
            let version = worker.mailbox.counters.total(Total::SnapshotVersion);
            worker.adopted = (version > 0).then_some(Version(version));
        }
        self.acknowledge();
        for at in 0..self.workers.len() {
            while let Some(report) = self.workers[at].mailbox.reports.pop() {
                self.on_report(report, now);
            }
        }
        self.on_lost(now);
    }

    fn on_report(&mut self, report: Report, now: Now) {
        match report {
            Report::Ended(report) => self.on_ended(*report, now),
            Report::Stood { at_ms, connection } => self.on_stood(&connection, at_ms, now),
            Report::Shadow(report) => self.log.write_shadow(&report, now.mono),
            Report::Outlived(report) => self.log.write_outlived(&report, now.mono),
            Report::Live { query, connection } => {
                if let Some(listing) = self.listings.iter_mut().find(|listing| listing.query == query) {
                    listing.found.push(*connection);
                }
            }
            Report::LiveEnd { query } => {
                let Some(at) = self.listings.iter().position(|listing| listing.query == query) else { return };
                self.listings[at].waiting -= 1;
                if self.listings[at].waiting == 0 {
                    let listing = self.listings.swap_remove(at);
                    self.reply_connections(query, listing.found);
                }
            }
            Report::Endpoint { query, endpoint } => self.on_endpoint(query, *endpoint),
            Report::EndpointsEnd { query } => self.on_endpoints_end(query),
            Report::Resolve { port, address } => {
                let interface = self.boot.ports[usize::from(port.0)].interface.clone();
                let same = |m: &ToCtrl| matches!(m, ToCtrl::Resolve { interface: i, address: a } if *i == interface && *a == address);
                // Hostile packets may ask for any address, and ctrl may be slow.
                if self.outbox.len() < MOST_RESOLVES && !self.outbox.iter().any(same) {
                    self.send(ToCtrl::Resolve { interface, address });
                }
            }
        }
    }

    pub(super) fn answer(&mut self, id: u64, query: Query, descriptor: Option<OwnedFd>, now: Now) {
        let counters = self.workers.iter().map(|worker| &worker.mailbox.counters);
        let audit = self.audit.status();
        let reply = match query {
            Query::Counters => Reply::Counters(admin::counters(counters, self.steering.counters(), &self.audit)),
            Query::Status => Reply::Status(admin::status(
                self.started_at,
                self.network.revision,
                self.port_reports(),
                self.workers.iter().map(|worker| (worker.core, worker.adopted, &worker.mailbox.counters)),
                self.last_nack.clone(),
                self.compiled.as_ref().map(|compiled| shortened(&compiled.unusable)).unwrap_or_default(),
                audit,
            )),
            Query::Explain { from, to } => match &self.compiled {
                Some(compiled) => Reply::Explanation(policy::explain(compiled, &from, to, now.unix())),
                None => Reply::Failed("no snapshot is in force yet".into()),
            },
            Query::Endpoints => return self.list_endpoints(id),
            Query::Callers { of } => return self.reply_callers(id, of.as_deref()),
            Query::Rules => return self.reply_rules(id),
            Query::Bypasses => return self.reply_bypasses(id),
            Query::Replay { since } => return self.reply_replayed(id, since, descriptor),
            Query::Refused => return self.reply_connections(id, self.history.refused()),
            Query::Closed => return self.reply_connections(id, self.history.closed()),
            Query::Live => return self.list_live(id, Which::All),
            Query::With { peer, local } => return self.list_live(id, Which::With { peer, local }),
        };
        self.send(ToCtrl::Reply { id, reply });
    }

    fn list_live(&mut self, query: u64, which: Which) {
        let mut waiting = 0;
        for worker in &self.workers {
            waiting += usize::from(worker.mailbox.commands.push(Command::ListLive { query, which }).is_ok());
            worker.waker.wake();
        }
        if waiting == 0 {
            return self.send(ToCtrl::Reply { id: query, reply: Reply::Failed("the workers are busy".into()) });
        }
        self.listings.push(Listing { query, waiting, found: Vec::new() });
    }

    fn reply_connections(&mut self, id: u64, all: Vec<ConnectionReport>) {
        let mut parts = all.chunks(CONNECTIONS_PER_REPLY).map(<[_]>::to_vec).collect::<Vec<_>>();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len() - 1;
        for (at, part) in parts.into_iter().enumerate() {
            self.send(ToCtrl::Reply { id, reply: Reply::Connections { part, more: at < last } });
        }
    }

    /// Those that decided something, as they stand in the snapshot in force.
    fn reply_rules(&mut self, id: u64) {
        let mut all = Vec::new();
        if let Some(compiled) = &self.compiled {
            for (rule, hits) in compiled.policies.iter().flat_map(|rules| rules.hits()) {
                let source = compiled.rule(rule);
                all.push(RuleHits { rule: format!("{} ({})", source.name, source.place), hits });
            }
        }
        let mut parts = all.chunks(RULES_PER_REPLY).map(<[_]>::to_vec).collect::<Vec<_>>();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.send(ToCtrl::Reply { id, reply: Reply::Rules { part, more: true } });
        }
        self.send(ToCtrl::Reply { id, reply: Reply::Rules { part: last, more: false } });
    }

    fn port_reports(&self) -> Vec<PortReport> {
        let ports = (0..).map(PortId).zip(&self.boot.ports);
        let report = |(id, port): (PortId, &::snapshot::Port)| {
            let link = self.network.links.iter().find(|link| link.name == port.interface);
            PortReport {
                interface: port.interface.clone(),
                side: port.side,
                up: link.is_some_and(|link| link.up),
                xdp: self.steering.mode(id),
                mtu: link.map_or(0, |link| link.mtu),
                queues: self.steering.queues(id),
            }
        };
        ports.map(report).collect()
    }
}
