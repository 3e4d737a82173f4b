//! Who called each workload of this node, and whether by mTLS or plain: what a switch to MUTUAL is judged by.
//!
//! A table of fixed size. Who finds no room is counted with the `Others` of its workload, so that a full table
//! can hide a name, and never that somebody called plain.

use std::net::IpAddr;
use std::sync::Arc;

use ::snapshot::callers::{COUNTS_FOR, Caller};
use ::snapshot::{Action, Called, CallerName, ConnectionReport, Direction, Enforcement, RuleDirection, TlsMode};

use crate::snapshot::{Compiled, Map, Workload};

/// Callers of one workload, and of all.
const OF_ONE: usize = 256;
const OF_ALL: usize = 16_384;

pub struct Callers {
    workloads: Map<Arc<str>, Table>,
    kept: usize,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub of_one: usize,
    pub of_all: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { of_one: OF_ONE, of_all: OF_ALL }
    }
}

#[derive(Default)]
struct Table {
    seen: Map<(u16, CallerName), Seen>,
    /// Of those without a place: plain ones, and those by mTLS.
    others: [Option<Seen>; 2],
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    connections: u64,
    last: u64,
    mtls_since: Option<u64>,
}

impl Seen {
    /// Once more.
    fn again(before: Option<Self>, now: u64) -> Self {
        Self { connections: before.map_or(0, |before| before.connections) + 1, last: now, mtls_since: None }
    }
}

impl Callers {
    pub fn new(limits: Limits) -> Self {
        Self { workloads: Map::default(), kept: 0, limits }
    }

    /// A connection that came to stand. Calls within the node are none: both ends are attested, and no mode
    /// changes that.
    pub fn note(&mut self, report: &ConnectionReport, now: u64) {
        let (Direction::Inbound, Some(workload)) = (report.direction, &report.workload) else { return };
        let called = report.endpoint.unwrap_or(report.server);
        let (port, address) = (called.port(), report.client.ip().to_canonical());
        match (&report.peer_id, report.tls.is_some()) {
            (Some(id), true) => {
                self.see(workload, port, CallerName::Id(id.clone()), now);
                self.moved(workload, port, address, now);
            }
            (_, false) => self.see(workload, port, CallerName::Address(address), now),
            // SIMPLE: whoever it is showed no certificate, and was not asked for one.
            (None, true) => {}
        }
    }

    fn see(&mut self, workload: &str, port: u16, name: CallerName, now: u64) {
        let table = self.workloads.entry_ref(workload).or_default();
        let key = (port, name);
        if let Some(seen) = table.seen.get_mut(&key) {
            *seen = Seen::again(Some(*seen), now);
            return;
        }
        let full = |seen: usize, kept: usize| seen >= self.limits.of_one || kept >= self.limits.of_all;
        if full(table.seen.len(), self.kept) {
            let before = table.seen.len();
            table.seen.retain(|_, seen| now.saturating_sub(seen.last) < COUNTS_FOR);
            self.kept -= before - table.seen.len();
        }
        if full(table.seen.len(), self.kept) {
            let others = &mut table.others[usize::from(is_id(&key.1))];
            *others = Some(Seen::again(*others, now));
            return;
        }
        table.seen.insert(key, Seen::again(None, now));
        self.kept += 1;
    }

    /// Who called plain from this address calls by mTLS now.
    fn moved(&mut self, workload: &str, port: u16, address: IpAddr, now: u64) {
        let table = self.workloads.get_mut(workload);
        if let Some(seen) = table.and_then(|table| table.seen.get_mut(&(port, CallerName::Address(address)))) {
            seen.mtls_since = Some(now);
        }
    }

    /// Forgets workloads that are no more.
    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.workloads.retain(|name, _| is_there(name));
        self.kept = self.workloads.values().map(|table| table.seen.len()).sum();
    }

    /// The workload at this index of `compiled`.
    pub fn of(&self, compiled: &Compiled, index: usize) -> Called {
        let workload = &compiled.workloads[index];
        let rows = self.rows(&workload.name, |port| port.map_or(workload.mode, |port| workload.mode_of(port)));
        let marked = |row: Caller| Caller { bypasses: is_let_by(workload, &row), ..row };
        let allows = |at| compiled.has_rule(at, Action::Allow, RuleDirection::Inbound, Enforcement::Enforce);
        Called {
            workload: workload.name.to_string(),
            mode: workload.mode,
            admits: workload.inbound.is_some() || allows(index),
            callers: rows.into_iter().map(marked).collect(),
        }
    }

    /// In the order of ports and names, and then the others.
    fn rows(&self, workload: &str, mode_of: impl Fn(Option<u16>) -> TlsMode) -> Vec<Caller> {
        let Some(table) = self.workloads.get(workload) else { return vec![] };
        let row = |name: CallerName, port: Option<u16>, seen: Seen| Caller {
            mtls: is_id(&name),
            name,
            port,
            mode: mode_of(port),
            connections: seen.connections,
            last_seen: seen.last,
            mtls_since: seen.mtls_since,
            bypasses: false,
        };
        let seen = table.seen.iter();
        let mut rows: Vec<_> = seen.map(|((port, name), seen)| row(name.clone(), Some(*port), *seen)).collect();
        rows.sort_by(|a, b| (a.port, &a.name).cmp(&(b.port, &b.name)));
        let others = table.others.iter().zip([false, true]).filter_map(|(seen, mtls)| Some(((*seen)?, mtls)));
        rows.extend(others.map(|(seen, mtls)| Caller { mtls, ..row(CallerName::Others, None, seen) }));
        rows
    }
}

/// Whether a bypass lets it in, whatever the mode.
fn is_let_by(workload: &Workload, caller: &Caller) -> bool {
    match (&caller.name, caller.port) {
        (CallerName::Address(address), Some(port)) => workload.bypass.find(*address, port).is_some(),
        (CallerName::Id(_) | CallerName::Others | CallerName::Address(_), _) => false,
    }
}

/// Whoever has a SPIFFE ID has shown it by mTLS.
fn is_id(name: &CallerName) -> bool {
    match name {
        CallerName::Id(_) => true,
        CallerName::Address(_) | CallerName::Others => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::example;

    const WORKLOAD: &str = "shop/backend";

    fn plain(last: u8) -> ConnectionReport {
        ConnectionReport { client: format!("198.18.9.{last}:4000").parse().unwrap(), ..example::plain() }
    }

    fn by_mtls(last: u8, id: &str) -> ConnectionReport {
        ConnectionReport { peer_id: Some(id.into()), client: plain(last).client, ..example::accepted() }
    }

    fn rows(callers: &Callers) -> Vec<(String, u64, u64, Option<u64>)> {
        let rows = callers.rows(WORKLOAD, |_| TlsMode::Permissive).into_iter();
        rows.map(|row| {
            let name = match row.name {
                CallerName::Id(id) => id,
                CallerName::Address(address) => address.to_string(),
                CallerName::Others => format!("others, mTLS {}", row.mtls),
            };
            (name, row.connections, row.last_seen, row.mtls_since)
        })
        .collect()
    }

    #[test]
    fn a_full_table_counts_whom_it_has_no_room_for_and_old_ones_make_room() {
        for limits in [Limits { of_one: 3, of_all: 100 }, Limits { of_one: 100, of_all: 3 }] {
            let mut callers = Callers::new(limits);
            (1..=8).for_each(|last| callers.note(&plain(last), 10));
            callers.note(&by_mtls(1, "spiffe://example.com/a"), 11);
            callers.note(&plain(2), 20);
            let kept = |last: u8, n, at, since| (format!("198.18.9.{last}"), n, at, since);
            let others = |mtls, n, at| (format!("others, mTLS {mtls}"), n, at, None);
            let first = [kept(1, 1, 10, Some(11)), kept(2, 2, 20, None), kept(3, 1, 10, None)];
            let all = [&first[..], &[others(false, 5, 10), others(true, 1, 11)]].concat();
            assert_eq!(rows(&callers), all, "{limits:?}");

            // To the second: who was seen a day ago goes, and not a second earlier.
            callers.note(&plain(9), 10 + COUNTS_FOR - 1);
            assert_eq!(rows(&callers)[3], others(false, 6, 10 + COUNTS_FOR - 1), "{limits:?}");
            callers.note(&plain(9), 10 + COUNTS_FOR);
            let now = [kept(2, 2, 20, None), kept(9, 1, 10 + COUNTS_FOR, None)];
            assert_eq!(rows(&callers)[..2], now, "{limits:?}");

            callers.keep(|_| false);
            assert_eq!((rows(&callers), callers.kept), (vec![], 0), "{limits:?}");
        }
    }

    #[test]
    fn an_address_that_called_plain_has_moved_until_it_calls_plain_again() {
        let mut callers = Callers::new(Limits::default());
        callers.note(&plain(1), 10);
        callers.note(&by_mtls(2, "spiffe://example.com/a"), 11);
        assert_eq!(rows(&callers)[1].3, None, "another address");
        let elsewhere =
            ConnectionReport { server: "198.18.2.2:9090".parse().unwrap(), ..by_mtls(1, "spiffe://example.com/a") };
        callers.note(&elsewhere, 12);
        assert_eq!(rows(&callers)[1].3, None, "another port");
        callers.note(&by_mtls(1, "spiffe://example.com/a"), 13);
        assert_eq!(rows(&callers)[1].3, Some(13));
        callers.note(&plain(1), 14);
        assert_eq!(rows(&callers)[1], ("198.18.9.1".into(), 2, 14, None));
    }

    #[test]
    fn only_calls_over_the_wire_by_mtls_or_plain_are_noted() {
        let mut callers = Callers::new(Limits::default());
        callers.note(&ConnectionReport { direction: Direction::Egress, ..plain(1) }, 1);
        callers.note(&ConnectionReport { direction: Direction::Local, ..plain(1) }, 1);
        callers.note(&ConnectionReport { peer_id: None, ..example::accepted() }, 1);
        assert_eq!(rows(&callers), []);
    }
}
