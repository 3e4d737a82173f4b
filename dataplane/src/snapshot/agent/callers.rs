//! What the agent does with decisions: into the log, the history, the audit log and the table of callers; and
//! its answer about callers.

use ::snapshot::channel::CALLERS_PER_REPLY;
use snapshot::{Called, ConnectionReport, Reply, ToCtrl};

use super::Agent;
use crate::admin::Topic;
use crate::snapshot::Compiled;
use crate::stats::Total;
use crate::time::{Clock, Now};

impl<C: Clock> Agent<C> {
    pub(super) fn on_ended(&mut self, report: ConnectionReport, now: Now) {
        self.log.write(&report, now.mono);
        if let Some(topic) = Topic::of(&report) {
            self.audit.write(topic, &report, report.ended_at.unwrap_or(now.unix_ms), now);
        }
        // Anybody can be refused, from whatever address: such calls have a record of their own.
        if report.refused.is_some() {
            self.refusals.note(&report, report.ended_at.unwrap_or(now.unix_ms) / 1000);
        }
        self.history.add(report);
    }

    pub(super) fn on_stood(&mut self, report: &ConnectionReport, at_ms: u64, now: Now) {
        self.audit.write(Topic::Accepted, report, at_ms, now);
        self.callers.note(report, at_ms / 1000);
        self.flows.note(report, at_ms / 1000);
    }

    /// After the reports, so that what was decided before is written before.
    pub(super) fn on_lost(&mut self, now: Now) {
        let lost = self.decisions_lost();
        self.audit.lost(lost - std::mem::replace(&mut self.lost, lost), now);
    }

    pub(super) fn decisions_lost(&self) -> u64 {
        self.workers.iter().map(|worker| worker.mailbox.counters.total(Total::DecisionsLost)).sum()
    }

    /// Takes what a snapshot says of them.
    pub(super) fn keep_account(&mut self, settings: Option<&::snapshot::Audit>, compiled: &Compiled, now: Now) {
        self.audit.configure(settings, now);
        self.callers.keep(|name| compiled.workload(name).is_some());
    }

    pub(super) fn reply_callers(&mut self, id: u64, of: Option<&str>) {
        let Some(compiled) = self.compiled.clone() else {
            return self.send(ToCtrl::Reply { id, reply: Reply::Failed("no snapshot is in force yet".into()) });
        };
        let chosen = match of {
            None => Ok((0..compiled.workloads.len()).collect()),
            Some(name) => chosen(&compiled, name),
        };
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(why) => return self.send(ToCtrl::Reply { id, reply: Reply::Failed(why) }),
        };
        let (since, lost) = (self.started_at, self.decisions_lost());
        let all = chosen.into_iter().map(|index| self.callers.of(&compiled, index));
        // Of all of them, those that nobody has called have nothing to say.
        let mut parts = parts(all.filter(|called| of.is_some() || !called.callers.is_empty()));
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.send(ToCtrl::Reply { id, reply: Reply::Callers { since, lost, part, more: true } });
        }
        self.send(ToCtrl::Reply { id, reply: Reply::Callers { since, lost, part: last, more: false } });
    }
}

/// Workloads by `namespace/name` or the name alone, and those behind a Service of that name.
fn chosen(compiled: &Compiled, name: &str) -> Result<Vec<usize>, String> {
    let named = |full: &str| full == name || full.rsplit('/').next() == Some(name);
    let workloads = compiled.workloads.iter().enumerate().filter(|(_, workload)| named(&workload.name));
    let mut found: Vec<usize> = workloads.map(|(index, _)| index).collect();
    let mut services = compiled.services.iter().filter(|service| named(&service.name)).peekable();
    let service = services.peek().map(|service| service.name.clone());
    let addresses = services.flat_map(|service| &service.endpoints).map(|endpoint| endpoint.address.ip());
    found.extend(addresses.flat_map(|address| compiled.destinations(address)));
    found.sort_unstable();
    found.dedup();
    match (found.is_empty(), service) {
        (false, _) => Ok(found),
        (true, Some(service)) => Err(format!("the Service {service} leads to no workload of this node: ask its own")),
        (true, None) => {
            Err(format!("no workload of this node and no Service is called {name:?}: see `sluice identities`"))
        }
    }
}

/// Each small enough for a message.
fn parts(all: impl Iterator<Item = Called>) -> Vec<Vec<Called>> {
    let split = |mut called: Called| {
        let callers = std::mem::take(&mut called.callers);
        let mut chunks: Vec<_> = callers.chunks(CALLERS_PER_REPLY).map(<[_]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        chunks.into_iter().map(move |callers| vec![Called { callers, ..called.clone() }]).collect::<Vec<_>>()
    };
    all.flat_map(split).collect()
}

#[cfg(test)]
mod tests {
    use ::snapshot::callers::Caller;
    use ::snapshot::channel::MAX_MESSAGE;
    use ::snapshot::{CallerName, TlsMode};

    use super::*;

    #[test]
    fn a_part_fits_a_message_however_long_its_names_are_and_none_is_lost() {
        let id = |nth: usize| CallerName::Id(format!("spiffe://example.com/{nth:0>2027}"));
        let caller = |nth| Caller {
            name: id(nth),
            port: Some(3000),
            mode: TlsMode::Permissive,
            mtls: true,
            connections: u64::MAX,
            last_seen: u64::MAX,
            mtls_since: Some(u64::MAX),
            bypasses: true,
        };
        let called = |callers| Called { workload: "w".repeat(317), mode: TlsMode::Permissive, admits: true, callers };
        let parts = parts([called(vec![]), called((0..CALLERS_PER_REPLY + 1).map(caller).collect())].into_iter());
        let counts: Vec<_> =
            parts.iter().map(|part| part.iter().map(|of| of.callers.len()).collect::<Vec<_>>()).collect();
        assert_eq!(counts, [vec![0], vec![CALLERS_PER_REPLY], vec![1]]);
        for part in parts {
            let reply = Reply::Callers { since: u64::MAX, lost: u64::MAX, part, more: true };
            let bytes = ::snapshot::codec::to_message(&ToCtrl::Reply { id: u64::MAX, reply }).expect("it fits");
            assert!(bytes.len() < MAX_MESSAGE);
        }
    }
}
