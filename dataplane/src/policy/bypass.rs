//! Plain callers that a workload under MUTUAL lets in by exact source address and exact port: probes.
//!
//! Such a permission is one by address alone, so it is given only where an address means something: to
//! callers from the wire. On an inside port whoever sends has an identity, or is nobody, whatever address
//! the packet shows. Calls of the node itself do not come by here: the guard lets them by
//! ([`captures`](super::captures)).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ::snapshot::{Admitted, Bypass, RuleId, TlsMode};

use super::Route;
use crate::planted::{self, Bug};

/// Of one workload, with what each entry has let in.
#[derive(Debug, Default)]
pub struct Bypasses {
    entries: Vec<Bypass>,
    /// An entry that stands as it did goes on counting, wherever it stands now. Every core counts here, so
    /// the addition is atomic; one a connection is no matter.
    hits: Vec<Arc<AtomicU64>>,
}

impl Bypasses {
    pub fn compile(entries: &[Bypass], before: Option<&Self>) -> Self {
        let counted = |entry: &Bypass| {
            let before = before?;
            let same = |old: &Bypass| (&old.sources, &old.ports) == (&entry.sources, &entry.ports);
            Some(before.hits[before.entries.iter().position(same)?].clone())
        };
        let hits = entries.iter().map(|entry| counted(entry).unwrap_or_default()).collect();
        Self { entries: entries.to_vec(), hits }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Bypass> {
        self.entries.iter()
    }

    /// The entry that lets in a plain call from there to this port.
    pub fn find(&self, source: IpAddr, port: u16) -> Option<RuleId> {
        let holds = |entry: &&Bypass| {
            entry.holds(source, port) || (planted::is(Bug::BypassAnyPort) && entry.sources.contains(&source))
        };
        self.entries.iter().find(holds).map(|entry| entry.rule)
    }

    /// The entry by which the guard lets such a call of the node itself through.
    pub fn of_node(&self, source: IpAddr, port: u16) -> Option<RuleId> {
        self.entries.iter().find(|entry| entry.pairs().any(|pair| pair == (source, port))).map(|entry| entry.rule)
    }

    pub fn hit(&self, rule: RuleId) {
        if let Some(at) = self.entries.iter().position(|entry| entry.rule == rule) {
            self.hits[at].fetch_add(1, Relaxed);
        }
    }

    pub fn hits(&self) -> impl Iterator<Item = (&Bypass, u64)> {
        self.entries.iter().zip(self.hits.iter().map(|hits| hits.load(Relaxed)))
    }
}

/// Why a call that is allowed is let in: None if it is for elsewhere. `plain`: the wire is.
pub fn admitted(route: &Route, plain: bool) -> Option<Admitted> {
    match *route {
        Route::Inbound { bypass: Some(_), .. } if plain => Some(Admitted::Bypass),
        Route::Inbound { mode: TlsMode::Mutual, .. } => Some(Admitted::Identity),
        Route::Inbound { mode: TlsMode::Permissive, .. } if !plain => Some(Admitted::Identity),
        Route::Inbound { mode: TlsMode::Permissive | TlsMode::Simple | TlsMode::Disable, .. } => Some(Admitted::Mode),
        Route::Local { mode_in, mode_out, .. } => Some(match (mode_in, mode_out) {
            (TlsMode::Mutual, _) | (TlsMode::Permissive, TlsMode::Mutual) => Admitted::Identity,
            (TlsMode::Permissive | TlsMode::Simple | TlsMode::Disable, _) => Admitted::Mode,
        }),
        Route::Egress { .. } | Route::Plain { .. } | Route::Refuse { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_stands_as_it_did_goes_on_counting_wherever_it_stands() {
        let entry = |rule, source: &str, port| Bypass {
            rule: RuleId(rule),
            sources: vec![source.parse().unwrap()],
            ports: vec![port],
            node: vec![],
        };
        let first = Bypasses::compile(&[entry(4, "198.18.9.1", 80), entry(5, "198.18.9.2", 80)], None);
        (0..3).for_each(|_| first.hit(RuleId(5)));
        first.hit(RuleId(9));
        let then = [entry(7, "198.18.9.2", 80), entry(8, "198.18.9.1", 81)];
        let second = Bypasses::compile(&then, Some(&first));
        second.hit(RuleId(7));
        assert_eq!(second.hits().map(|(entry, hits)| (entry.rule.0, hits)).collect::<Vec<_>>(), [(7, 4), (8, 0)]);
    }
}
