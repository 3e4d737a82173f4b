//! Whom nobody speaks to any more: asked by [`decide`](super::decide) before any list.
//!
//! Handshakes, chains that are known from before and living connections all go through `decide`, so
//! whoever is revoked is refused in each of them by the same line.

use ::snapshot::{IdPattern, RuleId};

use super::Route;
use crate::planted::{self, Bug};
use crate::snapshot::{Compiled, Map};
use crate::tls::Peer;

/// The deny lists of all trust domains. An ID belongs to one of them by its beginning, so theirs share
/// a table; a serial means something within its trust domain only.
#[derive(Debug, Default)]
pub struct Revoked {
    exact: Map<Box<str>, RuleId>,
    /// Up to and with the `/` before the star.
    under: Map<Box<str>, RuleId>,
    /// By trust domain.
    serials: Map<Box<str>, Map<Box<str>, RuleId>>,
}

impl Revoked {
    /// `lists` have passed [`snapshot::check`](::snapshot::check::check): each ID is of its list's domain.
    pub fn new(lists: &[::snapshot::Revoked]) -> Self {
        let mut revoked = Self::default();
        for list in lists {
            for (pattern, rule) in &list.ids {
                let (table, text) = match pattern {
                    IdPattern::Exact(id) => (&mut revoked.exact, id),
                    IdPattern::Under(prefix) => (&mut revoked.under, prefix),
                };
                table.entry(text.as_str().into()).or_insert(*rule);
            }
            if !list.serials.is_empty() {
                let serials = list.serials.iter().map(|(text, rule)| (text.as_str().into(), *rule)).collect();
                revoked.serials.insert(list.trust_domain.as_str().into(), serials);
            }
        }
        revoked
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.under.is_empty() && self.serials.is_empty()
    }

    /// The entry that revokes `id`.
    pub fn id(&self, id: &str) -> Option<RuleId> {
        if let Some(rule) = self.exact.get(id) {
            return Some(*rule);
        }
        if self.under.is_empty() {
            return None;
        }
        let ends = id.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at + 1);
        ends.filter(|end| *end < id.len()).find_map(|end| self.under.get(&id[..end]).copied())
    }

    /// The entry that revokes a peer that has proven who it is, by its ID or its certificate's serial.
    pub fn peer(&self, peer: &Peer) -> Option<RuleId> {
        self.id(&peer.spiffe_id).or_else(|| {
            if self.serials.is_empty() {
                return None;
            }
            // `spiffe:`, nothing, the trust domain, the path.
            let trust_domain = peer.spiffe_id.split('/').nth(2)?;
            self.serials.get(trust_domain)?.get(&*peer.serial).copied()
        })
    }
}

/// The entry that revokes an end of the call. Workloads of this node are ends too: a revoked one is
/// refused here already, and to a far side that has no such list.
pub fn revoked(compiled: &Compiled, route: &Route, peer: Option<&Peer>) -> Option<RuleId> {
    let lists = &compiled.revoked;
    if lists.is_empty() || planted::is(Bug::RevokedServed) {
        return None;
    }
    let own = |workload: usize| lists.id(&compiled.workloads[workload].spiffe_id);
    let local = match *route {
        Route::Inbound { workload, from, .. } => own(workload).or_else(|| own(from?)),
        Route::Egress { workload, .. } => own(workload),
        Route::Local { from, to, .. } => own(from).or_else(|| own(to)),
        // No identity is used, or it is refused already.
        Route::Plain { .. } | Route::Refuse { .. } => None,
    };
    peer.and_then(|peer| lists.peer(peer)).or(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_revoked_by_itself_or_by_a_path_above_it_and_a_serial_in_its_own_trust_domain_only() {
        let under = |text: &str| IdPattern::Under(text.into());
        let lists = [
            ::snapshot::Revoked {
                trust_domain: "a.org".into(),
                ids: vec![
                    (IdPattern::Exact("spiffe://a.org/x".into()), RuleId(1)),
                    (under("spiffe://a.org/y/"), RuleId(2)),
                ],
                serials: vec![("beef".into(), RuleId(3))],
            },
            ::snapshot::Revoked {
                trust_domain: "b.org".into(),
                ids: vec![(under("spiffe://b.org/"), RuleId(4))],
                serials: vec![],
            },
        ];
        let revoked = Revoked::new(&lists);
        for (id, serial, want) in [
            ("spiffe://a.org/x", "01", Some(1)),
            ("spiffe://a.org/x/y", "01", None),
            ("spiffe://a.org/xx", "01", None),
            ("spiffe://a.org/y", "01", None),
            ("spiffe://a.org/y/z", "01", Some(2)),
            ("spiffe://a.org/y/z/1", "01", Some(2)),
            ("spiffe://a.org/z", "beef", Some(3)),
            ("spiffe://a.org/x", "beef", Some(1)),
            ("spiffe://a.org/z", "beef00", None),
            ("spiffe://c.org/z", "beef", None),
            ("spiffe://b.org/z", "01", Some(4)),
            ("spiffe://b.org.evil/z", "01", None),
        ] {
            let peer = Peer { serial: serial.into(), ..super::super::tests::peer(id) };
            assert_eq!(revoked.peer(&peer), want.map(RuleId), "{id} {serial}");
        }
        assert!(!revoked.is_empty() && Revoked::new(&[]).is_empty());
    }
}
