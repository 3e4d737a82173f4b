//! Whether an authenticated peer may: not if an end is revoked or a rule denies it, then by the lists of
//! both ends (D11).

use std::net::SocketAddr;
use std::sync::Arc;

use ::snapshot::RefuseReason::{self, *};
use ::snapshot::RuleDirection::{Inbound, Outbound};
use ::snapshot::{Action, Enforcement, RuleId, Side, SourceAddress, TlsMode};

use super::attest::Proof;
use super::lost::Lost;
use super::miss::why_not;
use super::route::{Route, Svids};
use super::rules::{Ends, Trial};
use super::{AllowList, distrusted};
use crate::planted::{self, Bug};
use crate::snapshot::Compiled;
use crate::tls::{Peer, Refusal};

/// With the rule that decided, where one did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow(Option<RuleId>),
    Refuse(RefuseReason, Option<RuleId>),
}

impl Verdict {
    pub const fn rule(self) -> Option<RuleId> {
        match self {
            Self::Allow(rule) | Self::Refuse(_, rule) => rule,
        }
    }
}

/// Decides about `route`, which `compiled` gave, for `peer`: who calls (inbound) or who was called
/// (egress), None if it is plain or anonymous.
pub fn decide(compiled: &Compiled, route: &Route, peer: Option<&Peer>) -> Verdict {
    Judge { compiled, trial: Trial::Enforced }.decide(route, peer)
}

/// The verdict where addresses are enough for one. None: the handshake will tell who calls, or is called.
pub fn at_once(compiled: &Compiled, route: &Route) -> Option<Verdict> {
    match route {
        Route::Local { .. } | Route::Plain { .. } => Some(decide(compiled, route, None)),
        Route::Refuse { reason, rule, .. } => Some(Verdict::Refuse(*reason, *rule)),
        Route::Inbound { .. } | Route::Egress { .. } => None,
    }
}

/// Decides by the rules that count in `trial`.
pub(super) struct Judge<'c> {
    pub compiled: &'c Compiled,
    pub trial: Trial,
}

impl Judge<'_> {
    pub fn decide(&self, route: &Route, peer: Option<&Peer>) -> Verdict {
        if planted::is(Bug::VerdictSkipped) {
            return Verdict::Allow(None);
        }
        // Before every rule, whatever is on trial: no allow lets in who is revoked.
        if let Some((reason, rule)) = distrusted(self.compiled, route, peer) {
            return Verdict::Refuse(reason, Some(rule));
        }
        let id = peer.map(|peer| &*peer.spiffe_id);
        if let Some(rule) = self.denies(route, id) {
            return Verdict::Refuse(DeniedByRule, Some(rule));
        }
        match *route {
            Route::Inbound { workload, mode, ends, bypass, .. } => self.inbound(workload, mode, id, ends, bypass),
            Route::Egress { workload, rule, ends, .. } => self.outbound(workload, rule, id, ends),
            Route::Local { from, to, rule, mode_in, mode_out, ends } => {
                self.local(from, to, rule, (mode_in, mode_out), ends)
            }
            Route::Plain { rule, .. } => Verdict::Allow(rule),
            Route::Refuse { reason, rule, .. } => Verdict::Refuse(reason, rule),
        }
    }

    /// Explicit denies come before every list. Who is of this node is known by attestation too, whatever
    /// it shows.
    fn denies(&self, route: &Route, id: Option<&str>) -> Option<RuleId> {
        let of = |workload, direction, ends: Ends, id| {
            self.compiled.first_rule(workload, Action::Deny, self.trial, &ends.seen(direction, id))
        };
        let attested = |workload: usize| Some(&*self.compiled.workloads[workload].spiffe_id);
        let within =
            |from, to, ends| of(from, Outbound, ends, attested(to)).or_else(|| of(to, Inbound, ends, attested(from)));
        match *route {
            Route::Inbound { workload, ends, from, .. } => {
                of(workload, Inbound, ends, id).or_else(|| within(from?, workload, ends))
            }
            Route::Egress { workload, ends, .. } => of(workload, Outbound, ends, id),
            Route::Local { from, to, ends, .. } => within(from, to, ends),
            Route::Plain { workload, outbound, .. } => of(workload?, Outbound, outbound?, None),
            Route::Refuse { .. } => None,
        }
    }

    fn inbound(
        &self,
        workload: usize,
        mode: TlsMode,
        caller: Option<&str>,
        ends: Ends,
        bypass: Option<RuleId>,
    ) -> Verdict {
        let callee = &self.compiled.workloads[workload];
        let rule = Some(callee.inbound_rule);
        let by_mode = callee.mode_rule(ends.server.port()).or(rule);
        match (mode, caller, &callee.inbound) {
            // Server-only TLS: whoever calls is nobody in particular.
            (TlsMode::Simple, _, _) | (TlsMode::Disable, _, _) => Verdict::Allow(by_mode),
            (TlsMode::Mutual, None, _) => match bypass {
                Some(entry) => Verdict::Allow(Some(entry)),
                None => Verdict::Refuse(PlaintextRefused, rule),
            },
            (TlsMode::Permissive, None, _) | (TlsMode::Permissive, Some(_), None) => Verdict::Allow(by_mode),
            (TlsMode::Mutual | TlsMode::Permissive, Some(id), list) => {
                if list.as_ref().is_some_and(|list| list.admits(id)) {
                    return Verdict::Allow(rule);
                }
                let seen = ends.seen(Inbound, Some(id));
                match self.compiled.first_rule(workload, Action::Allow, self.trial, &seen) {
                    Some(allow) => Verdict::Allow(Some(allow)),
                    None if list.is_none() && !self.has_allows(workload) => Verdict::Refuse(NoInboundList, rule),
                    None => Verdict::Refuse(NotAllowedInbound, rule),
                }
            }
        }
    }

    fn has_allows(&self, workload: usize) -> bool {
        self.compiled.has_rule(workload, Action::Allow, Inbound, Enforcement::Enforce)
    }

    /// The entry's own list AND the workload's, which allows add to.
    fn outbound(&self, workload: usize, rule: usize, server: Option<&str>, ends: Ends) -> Verdict {
        let caller = &self.compiled.workloads[workload];
        let entry = &caller.egress[rule];
        let admits = |list: &AllowList| server.is_some_and(|server| list.admits(server));
        if !entry.allowed.as_ref().is_none_or(admits) {
            return Verdict::Refuse(NotAllowedOutbound, Some(entry.id));
        }
        if caller.outbound.as_ref().is_none_or(admits) {
            return Verdict::Allow(Some(entry.id));
        }
        match self.compiled.first_rule(workload, Action::Allow, self.trial, &ends.seen(Outbound, server)) {
            Some(allow) => Verdict::Allow(Some(allow)),
            None => Verdict::Refuse(NotAllowedOutbound, Some(caller.outbound_rule)),
        }
    }

    /// Both ends are attested here, so both policies apply as they would on the wire; a caller whose
    /// own mode is plain counts as known to MUTUAL, and is served by PERMISSIVE like any plain caller.
    fn local(
        &self,
        from: usize,
        to: usize,
        rule: Option<usize>,
        (mode_in, mode_out): (TlsMode, TlsMode),
        ends: Ends,
    ) -> Verdict {
        let (caller, callee) = (&self.compiled.workloads[from], &self.compiled.workloads[to]);
        if let Some(rule) = rule
            && let refused @ Verdict::Refuse(..) = self.outbound(from, rule, Some(&callee.spiffe_id), ends)
        {
            return refused;
        }
        let shown = mode_in == TlsMode::Mutual || mode_out == TlsMode::Mutual;
        self.inbound(to, mode_in, shown.then_some(&*caller.spiffe_id), ends, None)
    }
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
    /// another address) is [`PolicyChanged`], like one that is now refused; an SVID that has expired since
    /// is not: that is `onPeerExpiry`'s.
    pub fn decide_again(
        &self,
        newer: &Compiled,
        proof: Proof<'_>,
        side: Side,
        interface: &str,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Result<(Route, Option<RuleId>), Box<Lost>> {
        let route = newer.route_with(Svids::AsTheyAre, proof, side, interface, client, server);
        match self.still_allowed(newer, &route) {
            Ok(rule) => Ok((route, rule)),
            Err(refusal) => Err(Box::new(self.lost(newer, (route, refusal), proof, (interface, client, server)))),
        }
    }

    fn still_allowed(&self, newer: &Compiled, route: &Route) -> Result<Option<RuleId>, Refusal> {
        let peer = self.peer();
        if planted::is(Bug::BypassOutlived) && self.wire == Wire::Plain {
            return Ok(None);
        }
        let now = Self::new(newer, route, self.wire != Wire::Plain, peer);
        // A refusal names itself below.
        let refused = matches!(route, Route::Refuse { .. });
        if !carried_alike(route, &self.wire) || (now.local_id != self.local_id && !refused) {
            let detail = "the call would now be carried in another way, or under another identity";
            return Err(Refusal::new(PolicyChanged, detail));
        }
        if now.source != self.source && !refused {
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
        match decide(newer, route, peer) {
            Verdict::Allow(rule) => Ok(rule),
            Verdict::Refuse(reason, rule) => {
                let why = why_not(newer, route, (reason, rule), peer.map(|peer| &*peer.spiffe_id));
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
        (Route::Inbound { mode: TlsMode::Mutual, bypass, .. }, Wire::Plain) => bypass.is_some(),
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
pub(super) fn distrust(compiled: &Compiled, peer: &Peer) -> Option<String> {
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
