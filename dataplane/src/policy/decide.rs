//! Whether an authenticated peer may: not if it is revoked, then by the lists of both ends (D11).

use std::net::SocketAddr;
use std::sync::Arc;

use ::snapshot::RefuseReason::{self, *};
use ::snapshot::{RuleId, Side, SourceAddress, TlsMode};

use super::revoked;
use super::route::{Route, Svids};
use crate::planted::{self, Bug};
use crate::snapshot::Compiled;
use crate::tls::{Peer, Refusal};

/// With the rule that decided, where one did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow(Option<RuleId>),
    Refuse(RefuseReason, Option<RuleId>),
}

/// Decides about `route`, which `compiled` gave, for `peer`: who calls (inbound) or who was called
/// (egress), None if it is plain or anonymous.
pub fn decide(compiled: &Compiled, route: &Route, peer: Option<&Peer>) -> Verdict {
    if planted::is(Bug::VerdictSkipped) {
        return Verdict::Allow(None);
    }
    if let Some(rule) = revoked(compiled, route, peer) {
        return Verdict::Refuse(PeerRevoked, Some(rule));
    }
    let id = peer.map(|peer| &*peer.spiffe_id);
    match *route {
        Route::Inbound { workload, mode, .. } => decide_inbound(compiled, workload, mode, id),
        Route::Egress { workload, rule, .. } => decide_outbound(compiled, workload, rule, id),
        Route::Local { from, to, rule, mode_in, mode_out } => {
            decide_local(compiled, from, to, rule, (mode_in, mode_out))
        }
        Route::Plain { rule, .. } => Verdict::Allow(rule),
        Route::Refuse { reason, rule, .. } => Verdict::Refuse(reason, rule),
    }
}

fn decide_inbound(compiled: &Compiled, workload: usize, mode: TlsMode, caller: Option<&str>) -> Verdict {
    let callee = &compiled.workloads[workload];
    let rule = Some(callee.inbound_rule);
    match (mode, caller, &callee.inbound) {
        // Server-only TLS: whoever calls is nobody in particular.
        (TlsMode::Simple, _, _) | (TlsMode::Disable, _, _) => Verdict::Allow(rule),
        (TlsMode::Mutual, None, _) => Verdict::Refuse(PlaintextRefused, rule),
        (TlsMode::Mutual, Some(_), None) => Verdict::Refuse(NoInboundList, rule),
        (TlsMode::Permissive, None, _) | (TlsMode::Permissive, Some(_), None) => Verdict::Allow(rule),
        (TlsMode::Mutual | TlsMode::Permissive, Some(id), Some(list)) => match list.admits(id) {
            true => Verdict::Allow(rule),
            false => Verdict::Refuse(NotAllowedInbound, rule),
        },
    }
}

/// The entry's own list AND the workload's.
fn decide_outbound(compiled: &Compiled, workload: usize, rule: usize, server: Option<&str>) -> Verdict {
    let caller = &compiled.workloads[workload];
    let entry = &caller.egress[rule];
    let lists = [(&entry.allowed, entry.id), (&caller.outbound, caller.outbound_rule)];
    for (list, id) in lists {
        let admitted = list.as_ref().is_none_or(|list| server.is_some_and(|server| list.admits(server)));
        if !admitted {
            return Verdict::Refuse(NotAllowedOutbound, Some(id));
        }
    }
    Verdict::Allow(Some(entry.id))
}

/// Both ends are attested here, so both policies apply as they would on the wire; a caller whose
/// own mode is plain counts as known to MUTUAL, and is served by PERMISSIVE like any plain caller.
fn decide_local(
    compiled: &Compiled,
    from: usize,
    to: usize,
    rule: Option<usize>,
    (mode_in, mode_out): (TlsMode, TlsMode),
) -> Verdict {
    let (caller, callee) = (&compiled.workloads[from], &compiled.workloads[to]);
    if let Some(rule) = rule {
        let refused @ Verdict::Refuse(..) = decide_outbound(compiled, from, rule, Some(&callee.spiffe_id)) else {
            return decide_local_inbound(compiled, to, &caller.spiffe_id, (mode_in, mode_out));
        };
        return refused;
    }
    decide_local_inbound(compiled, to, &caller.spiffe_id, (mode_in, mode_out))
}

fn decide_local_inbound(
    compiled: &Compiled,
    to: usize,
    caller: &str,
    (mode_in, mode_out): (TlsMode, TlsMode),
) -> Verdict {
    let shown = mode_in == TlsMode::Mutual || mode_out == TlsMode::Mutual;
    decide_inbound(compiled, to, mode_in, shown.then_some(caller))
}

/// What a refusal by list says beyond its reason: which list, and its entry nearest to `id`, the peer's
/// if it proved one.
pub fn why_not(
    compiled: &Compiled,
    route: &Route,
    (reason, rule): (RefuseReason, Option<RuleId>),
    id: Option<&str>,
) -> Option<String> {
    if reason == PeerRevoked {
        let source = compiled.rule(rule?);
        return Some(format!("{} in {} revokes it", source.name, source.place));
    }
    let id = id?;
    let (inbound, outbound) = match *route {
        Route::Inbound { workload, .. } => (Some(workload), None),
        Route::Egress { workload, rule, .. } => (None, Some((workload, Some(rule)))),
        Route::Local { from, to, rule, .. } => (Some(to), Some((from, rule))),
        Route::Plain { .. } | Route::Refuse { .. } => (None, None),
    };
    let miss = |list: &super::AllowList, whose: String| match list.nearest(id) {
        Some(nearest) => format!("{id} is not in {whose}; the nearest entry is {nearest}"),
        None => format!("{id} is not in {whose}, which is empty"),
    };
    if reason == NotAllowedInbound {
        let callee = &compiled.workloads[inbound?];
        return Some(miss(callee.inbound.as_ref()?, format!("the inbound list of {}", callee.name)));
    }
    if reason == NotAllowedOutbound {
        let (workload, rule) = outbound?;
        let caller = &compiled.workloads[workload];
        let entry = rule.map(|rule| &caller.egress[rule]);
        if let Some((list, entry)) = entry.and_then(|e| Some((e.allowed.as_ref().filter(|l| !l.admits(id))?, e))) {
            return Some(miss(list, format!("the list of {}", compiled.rule(entry.id).name)));
        }
        return Some(miss(caller.outbound.as_ref()?, format!("the outbound list of {}", caller.name)));
    }
    (reason == NoInboundList).then(|| format!("{id} would have to be in an inbound list, and there is none"))
}

/// What a living connection must keep of itself to be decided again under a newer snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The identity that it runs under on this node (callee's if inbound, caller's if egress or
    /// local).
    pub local_id: Option<Arc<str>>,
    pub wire: Wire,
    pub source: SourceAddress,
}

/// How a living connection is on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wire {
    /// Both sides proved who they are.
    Mutual(Peer),
    /// SIMPLE egress: the server did.
    Server(Peer),
    /// TLS with an anonymous caller.
    Anonymous,
    Plain,
    /// Between two workloads of this node: the callee's SPIFFE ID.
    Local(Arc<str>),
}

impl Standing {
    /// Of a connection that `route` was decided for under `compiled`.
    pub fn new(compiled: &Compiled, route: &Route, tls: bool, peer: Option<&Peer>) -> Self {
        let id = |workload: usize| compiled.workloads[workload].spiffe_id.clone();
        let (local, wire) = match *route {
            Route::Local { from, to, .. } => (Some(from), Wire::Local(id(to))),
            Route::Inbound { workload, .. } | Route::Egress { workload, .. } => {
                (Some(workload), Wire::of(route, tls, peer))
            }
            Route::Plain { workload, .. } | Route::Refuse { workload, .. } => (workload, Wire::of(route, tls, peer)),
        };
        Self { local_id: local.map(id), wire, source: route.source() }
    }

    /// Decides again under `newer`, for the same addresses. A call that would now be carried in
    /// another way (other identity, encrypted instead of plain or plain instead of encrypted, from
    /// another address) is [`PolicyChanged`], like one that is now refused; an SVID that has expired since is not.
    pub fn decide_again(
        &self,
        newer: &Compiled,
        side: Side,
        interface: &str,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Result<(Route, Option<RuleId>), Refusal> {
        let route = newer.route_with(Svids::AsTheyAre, side, interface, client, server);
        let peer = match &self.wire {
            Wire::Mutual(peer) | Wire::Server(peer) => Some(peer),
            Wire::Anonymous | Wire::Plain | Wire::Local(_) => None,
        };
        let now = Self::new(newer, &route, self.wire != Wire::Plain, peer);
        if !carried_alike(&route, &self.wire) || now.local_id != self.local_id {
            let detail = "the call would now be carried in another way, or under another identity";
            return Err(Refusal::new(PolicyChanged, detail));
        }
        // A refusal names itself below.
        if now.source != self.source && !matches!(route, Route::Refuse { .. }) {
            let detail = format!("the call would now leave with source: {}", now.source.name());
            return Err(Refusal::new(PolicyChanged, detail));
        }
        if let (Wire::Local(then), Wire::Local(now)) = (&self.wire, &now.wire)
            && then != now
        {
            return Err(Refusal::new(PolicyChanged, "the destination is another workload now"));
        }
        if let Some(detail) = peer.and_then(|peer| distrust(newer, peer)) {
            return Err(Refusal::new(PolicyChanged, detail));
        }
        match decide(newer, &route, peer) {
            Verdict::Allow(rule) => Ok((route, rule)),
            Verdict::Refuse(reason, rule) => {
                let why = why_not(newer, &route, (reason, rule), peer.map(|peer| &*peer.spiffe_id));
                let detail = why.map_or_else(|| reason.to_string(), |why| format!("{reason}: {why}"));
                Err(Refusal { reason: PolicyChanged, rule, detail: Some(detail) })
            }
        }
    }
}

impl Wire {
    fn of(route: &Route, tls: bool, peer: Option<&Peer>) -> Self {
        match (peer, tls) {
            (Some(peer), _) if matches!(route, Route::Egress { mode: TlsMode::Simple, .. }) => {
                Self::Server(peer.clone())
            }
            (Some(peer), _) => Self::Mutual(peer.clone()),
            (None, true) => Self::Anonymous,
            (None, false) => Self::Plain,
        }
    }
}

/// Refusals are left to [`decide`], which names them.
fn carried_alike(route: &Route, wire: &Wire) -> bool {
    match (route, wire) {
        (Route::Refuse { .. }, _) => true,
        (Route::Inbound { mode: TlsMode::Mutual, .. }, Wire::Mutual(_)) => true,
        (Route::Inbound { mode: TlsMode::Permissive, .. }, Wire::Mutual(_) | Wire::Plain) => true,
        (Route::Inbound { mode: TlsMode::Simple, .. }, Wire::Anonymous) => true,
        (Route::Egress { mode: TlsMode::Mutual, .. }, Wire::Mutual(_)) => true,
        (Route::Egress { mode: TlsMode::Simple, .. }, Wire::Mutual(_) | Wire::Server(_)) => true,
        (Route::Plain { .. }, Wire::Plain) => true,
        (Route::Local { .. }, Wire::Local(_)) => true,
        (Route::Inbound { .. } | Route::Egress { .. } | Route::Plain { .. } | Route::Local { .. }, _) => false,
    }
}

/// Why a peer that was verified once would not be now. None: its root still stands.
fn distrust(compiled: &Compiled, peer: &Peer) -> Option<String> {
    let domain = crate::tls::SpiffeId::parse(&peer.spiffe_id).map_or("", |id| id.trust_domain);
    let Some(roots) = compiled.roots(domain) else {
        return Some(format!(
            "{PeerTrustDomainUnknown}: there is no bundle for the trust domain of {} any more",
            peer.spiffe_id
        ));
    };
    let trusted = roots.trusts(&peer.root) || planted::is(Bug::DroppedRootTrusted);
    (!trusted).then(|| {
        let root = peer.root.name();
        format!("{PeerUntrusted}: {} chains to root {root}, which trust domain {domain} has no more", peer.spiffe_id)
    })
}
