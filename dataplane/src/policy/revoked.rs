//! Whom nobody speaks to any more: asked by [`decide`](super::decide) before any list.
//!
//! Handshakes, chains that are known from before and living connections all go through `decide`, so
//! whoever is revoked is refused in each of them by the same line.

use ::snapshot::RefuseReason::{self, CrlStale, PeerRevoked};
use ::snapshot::{Crl, IdPattern, RuleId};

use super::Route;
use crate::planted::{self, Bug};
use crate::snapshot::{Compiled, Map};
use crate::tls::{Issued, Peer};

/// The deny lists of all trust domains. An ID belongs to one of them by its beginning, so theirs share
/// a table; a serial means something within its trust domain only.
#[derive(Debug, Default)]
pub struct Revoked {
    exact: Map<Box<str>, RuleId>,
    /// Up to and with the `/` before the star.
    under: Map<Box<str>, RuleId>,
    /// By trust domain.
    serials: Map<Box<str>, Map<Box<str>, RuleId>>,
    /// By trust domain.
    crls: Map<Box<str>, Crls>,
}

/// What a CRL revokes, and the CRL.
type Listed = (Map<Box<str>, ()>, RuleId);

/// The CRLs of one trust domain.
#[derive(Debug, Default)]
struct Crls {
    by_issuer: Map<[u8; 32], Listed>,
    /// The one that is the first to fail, and the second after which it does.
    fails: Option<(u64, RuleId)>,
    /// One that has failed already.
    stale: Option<RuleId>,
}

impl Crls {
    fn new(lists: &[Crl]) -> Self {
        let serials = |crl: &Crl| crl.serials.iter().map(|text| (text.as_str().into(), ())).collect();
        Self {
            by_issuer: lists.iter().map(|crl| (crl.issuer, (serials(crl), crl.rule))).collect(),
            fails: lists.iter().filter_map(|crl| Some((crl.fails_after?, crl.rule))).min(),
            stale: lists.iter().find(|crl| crl.is_stale).map(|crl| crl.rule),
        }
    }

    /// The CRL that revokes a certificate.
    fn revokes(&self, issued: &Issued) -> Option<RuleId> {
        if planted::is(Bug::IssuerIgnored) {
            let mut all = self.by_issuer.values();
            return all.find(|(serials, _)| serials.contains_key(&issued.serial)).map(|(_, rule)| *rule);
        }
        let (serials, rule) = self.by_issuer.get(&issued.issuer)?;
        serials.contains_key(&issued.serial).then_some(*rule)
    }
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
            if !list.crls.is_empty() {
                revoked.crls.insert(list.trust_domain.as_str().into(), Crls::new(&list.crls));
            }
        }
        revoked
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.under.is_empty() && self.serials.is_empty() && self.crls.is_empty()
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

    /// The entry that revokes a peer that has proven who it is: by its ID, by its certificate's serial, or
    /// by a CRL that has a certificate of its chain.
    pub fn peer(&self, peer: &Peer) -> Option<RuleId> {
        self.id(&peer.spiffe_id).or_else(|| {
            if self.serials.is_empty() && self.crls.is_empty() {
                return None;
            }
            let trust_domain = trust_domain(peer)?;
            let listed = self.serials.get(trust_domain).and_then(|serials| serials.get(&*peer.serial).copied());
            listed.or_else(|| {
                let crls = self.crls.get(trust_domain)?;
                peer.issued.iter().find_map(|issued| crls.revokes(issued))
            })
        })
    }

    /// The CRL of the peer's trust domain that had failed when the snapshot was made.
    pub(super) fn stale(&self, peer: &Peer) -> Option<RuleId> {
        if self.crls.is_empty() || planted::is(Bug::StaleServed) {
            return None;
        }
        self.crls.get(trust_domain(peer)?)?.stale
    }

    /// The one that has failed at `now`, in seconds since the epoch.
    pub fn stale_at(&self, peer: &Peer, now: u64) -> Option<RuleId> {
        if self.crls.is_empty() {
            return None;
        }
        let (after, rule) = self.crls.get(trust_domain(peer)?)?.fails?;
        (now > after && !planted::is(Bug::StaleServed)).then_some(rule)
    }
}

/// `spiffe:`, nothing, the trust domain, the path.
fn trust_domain(peer: &Peer) -> Option<&str> {
    peer.spiffe_id.split('/').nth(2)
}

/// Why nobody speaks to an end of the call, whatever rules say, and by which entry or CRL.
pub fn distrusted(compiled: &Compiled, route: &Route, peer: Option<&Peer>) -> Option<(RefuseReason, RuleId)> {
    let lists = &compiled.revoked;
    if lists.is_empty() {
        return None;
    }
    let stale = || peer.and_then(|peer| lists.stale(peer)).map(|rule| (CrlStale, rule));
    revoked(compiled, route, peer).map(|rule| (PeerRevoked, rule)).or_else(stale)
}

/// The entry that revokes an end of the call. Workloads of this node are ends too: a revoked one is
/// refused here already, and to a far side that has no such list.
fn revoked(compiled: &Compiled, route: &Route, peer: Option<&Peer>) -> Option<RuleId> {
    let lists = &compiled.revoked;
    if planted::is(Bug::RevokedServed) {
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
                crls: vec![],
            },
            ::snapshot::Revoked {
                trust_domain: "b.org".into(),
                ids: vec![(under("spiffe://b.org/"), RuleId(4))],
                ..Default::default()
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

    fn crl(issuer: u8, serials: &[&str], rule: u32, fails_after: Option<u64>) -> Crl {
        let serials = serials.iter().map(|text| (*text).into()).collect();
        Crl { issuer: [issuer; 32], serials, rule: RuleId(rule), fails_after, is_stale: false }
    }

    /// Whose chain is of these issuers and serials, its own certificate first.
    fn chained(id: &str, chain: &[(u8, &str)]) -> Peer {
        let issued = chain.iter().map(|(issuer, serial)| Issued { issuer: [*issuer; 32], serial: (*serial).into() });
        Peer { serial: chain[0].1.into(), issued: issued.collect(), ..super::super::tests::peer(id) }
    }

    #[test]
    fn a_crl_revokes_certificates_of_its_own_issuer_in_its_own_trust_domain_wherever_in_the_chain() {
        let list = |domain: &str, crls| ::snapshot::Revoked {
            trust_domain: domain.into(),
            crls,
            ..::snapshot::Revoked::default()
        };
        let revoked = Revoked::new(&[
            list("a.org", vec![crl(1, &["beef", "01"], 1, None), crl(2, &["cafe"], 2, None)]),
            list("b.org", vec![crl(1, &["f00d"], 3, None)]),
        ]);
        for (name, id, chain, want) in [
            ("its own", "spiffe://a.org/x", &[(1, "beef")][..], Some(1)),
            ("another serial", "spiffe://a.org/x", &[(1, "beee")], None),
            ("a serial of another issuer", "spiffe://a.org/x", &[(2, "beef")], None),
            ("an issuer without a CRL", "spiffe://a.org/x", &[(3, "beef")], None),
            ("the second CRL", "spiffe://a.org/x", &[(2, "cafe")], Some(2)),
            ("an issuer of the same name elsewhere", "spiffe://b.org/x", &[(1, "beef")], None),
            ("that one's own", "spiffe://b.org/x", &[(1, "f00d")], Some(3)),
            ("a trust domain without CRLs", "spiffe://c.org/x", &[(1, "beef")], None),
            ("an intermediate", "spiffe://a.org/x", &[(3, "07"), (1, "01")], Some(1)),
            ("an intermediate's serial at the leaf", "spiffe://a.org/x", &[(3, "01"), (1, "02")], None),
        ] {
            assert_eq!(revoked.peer(&chained(id, chain)), want.map(RuleId), "{name}");
        }
        assert!(!revoked.is_empty());
    }

    #[test]
    fn a_crl_fails_its_trust_domain_in_the_second_after_its_next_update_if_it_says_so() {
        let mut list = ::snapshot::Revoked { trust_domain: "a.org".into(), ..Default::default() };
        list.crls = vec![crl(1, &[], 1, None), crl(2, &[], 2, Some(200)), crl(3, &[], 3, Some(100))];
        let revoked = Revoked::new(&[list.clone()]);
        let (own, other) = (chained("spiffe://a.org/x", &[(1, "01")]), chained("spiffe://b.org/x", &[(1, "01")]));
        for (now, want) in [(99, None), (100, None), (101, Some(3)), (300, Some(3))] {
            assert_eq!(revoked.stale_at(&own, now), want.map(RuleId), "{now}");
            assert_eq!(revoked.stale_at(&other, now), None, "{now}");
        }
        assert_eq!(revoked.stale(&own), None, "nobody has said so yet");
        list.crls[1].is_stale = true;
        let revoked = Revoked::new(&[list]);
        assert_eq!((revoked.stale(&own), revoked.stale(&other)), (Some(RuleId(2)), None));
    }
}
