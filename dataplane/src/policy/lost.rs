//! What a living connection has lost under a newer snapshot: its permission, which `onChange` is about,
//! or one of its ends, which nothing keeps.
//!
//! "May they speak?" has an operator's answer for what speaks already. "Is that still who we believed it
//! to be?" has not: whoever is revoked, chains to a root that nobody trusts any more, or has an address
//! that is another workload's now, is cut by every word of `onChange`.

use std::net::SocketAddr;

use ::snapshot::RefuseReason::{CrlStale, PeerRevoked, PolicyChanged};
use ::snapshot::{Living, RefuseReason, RuleId};

use super::attest::Proof;
use super::decide::{Standing, Wire, distrust};
use super::{Route, distrusted, why_not};
use crate::planted::{self, Bug};
use crate::snapshot::Compiled;
use crate::tls::{Peer, Refusal};

/// Why a living connection would not be allowed now, and how it would go instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub refusal: Refusal,
    pub what: What,
    pub route: Route,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Permission,
    End,
}

/// Of a connection that `compiled` has on this route: its workload's word, of both where it is two's.
pub fn living(compiled: &Compiled, route: &Route) -> Living {
    let of = |workload: usize| compiled.workloads[workload].living;
    match *route {
        Route::Inbound { workload, .. } | Route::Egress { workload, .. } => of(workload),
        Route::Local { from, to, .. } => of(from).stricter(of(to)),
        Route::Plain { workload, .. } | Route::Refuse { workload, .. } => workload.map_or(compiled.living, of),
    }
}

impl Standing {
    /// Adds to a refusal what it is about. `at`: interface, client and server.
    pub(super) fn lost(
        &self,
        newer: &Compiled,
        (route, refusal): (Route, Refusal),
        proof: Proof<'_>,
        at: (&str, SocketAddr, SocketAddr),
    ) -> Lost {
        if planted::is(Bug::RevokedKept) {
            return Lost { refusal, what: What::Permission, route };
        }
        if let Some(refusal) = self.forsaken(newer, &route) {
            return Lost { refusal, what: What::End, route };
        }
        let what = if self.are_there(newer, proof, at) { What::Permission } else { What::End };
        Lost { refusal, what, route }
    }

    /// Why an end is not believed any more. Asked of each end by what it is known by, since the newer
    /// snapshot's route may lead to nobody.
    fn forsaken(&self, newer: &Compiled, route: &Route) -> Option<Refusal> {
        let peer = self.peer();
        let lists = &newer.revoked;
        let own = || lists.id(self.local_id.as_deref()?);
        let callee = || match &self.wire {
            Wire::Local(id) => lists.id(id),
            Wire::Mutual(_) | Wire::Server(_) | Wire::Anonymous | Wire::Plain => None,
        };
        let rule = peer.and_then(|peer| lists.peer(peer)).or_else(own).or_else(callee);
        let stale = || peer.and_then(|peer| lists.stale(peer)).map(|rule| (CrlStale, rule));
        let found = rule.map(|rule| (PeerRevoked, rule)).or_else(stale);
        if let Some(why) = found.or_else(|| distrusted(newer, route, peer)) {
            return Some(revocation(newer, route, why, peer));
        }
        peer.and_then(|peer| distrust(newer, peer)).map(|detail| Refusal::new(PolicyChanged, detail))
    }

    /// Whether the addresses, and the processes that called and listened, still belong to the workloads that this
    /// connection is of.
    fn are_there(
        &self,
        newer: &Compiled,
        proof: Proof<'_>,
        (interface, client, server): (&str, SocketAddr, SocketAddr),
    ) -> bool {
        let source = newer.places.source(interface, client.ip().to_canonical());
        let destination = newer.places.destination(server.ip());
        let calls = |id: &str| newer.may_be(source, proof.caller, id);
        let is_called = |id: &str| newer.may_be(destination, proof.listener, id);
        let own = self.local_id.as_deref();
        match &self.wire {
            // Replicas have one ID: each end has to be at its own address.
            Wire::Local(callee) => own.is_none_or(calls) && is_called(callee),
            Wire::Mutual(_) | Wire::Server(_) | Wire::Anonymous | Wire::Plain => {
                own.is_none_or(|id| calls(id) || is_called(id))
            }
        }
    }

    pub(super) fn peer(&self) -> Option<&Peer> {
        match &self.wire {
            Wire::Mutual(peer) | Wire::Server(peer) => Some(peer),
            Wire::Anonymous | Wire::Plain | Wire::Local(_) => None,
        }
    }
}

fn revocation(newer: &Compiled, route: &Route, why: (RefuseReason, RuleId), peer: Option<&Peer>) -> Refusal {
    let (reason, rule) = why;
    let why = why_not(newer, route, (reason, Some(rule)), peer.map(|peer| &*peer.spiffe_id));
    let detail = why.map_or_else(|| reason.to_string(), |why| format!("{reason}: {why}"));
    Refusal { reason: PolicyChanged, rule: Some(rule), detail: Some(detail) }
}
