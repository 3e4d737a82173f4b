//! What a recorded call would come to: the same two questions as ever, asked for what was seen of it.
//!
//! Of the peer its SPIFFE ID is known, and neither serial nor chain; a rule about those says nothing here.

use std::net::SocketAddr;

use ::snapshot::{Direction, Flow, Outcome, RefuseReason, RuleId, Side, TlsMode};

use super::explain::hypothetical;
use super::route::Svids;
use super::{Known, Proof, Route, Verdict, decide, why_not};
use crate::snapshot::{Compiled, Whose};
use crate::tls::SpiffeId;

/// Under `compiled`, whether or not the workload has an SVID at this moment.
pub fn replay(compiled: &Compiled, flow: &Flow) -> Outcome {
    let (side, interface, proof) = match flow.direction {
        Direction::Inbound => (Side::Outside, "", Proof::of_listener(named_in(compiled, flow))),
        Direction::Egress | Direction::Local => inside(compiled, flow),
    };
    let client = SocketAddr::new(flow.client, 0);
    let route = compiled.route_with(Svids::AsTheyAre, proof, side, interface, client, flow.server);
    match &route {
        Route::Refuse { reason, rule, detail, .. } => {
            Outcome::Refused { reason: *reason, rule: named(compiled, *rule), detail: detail.clone() }
        }
        // Who is of this node is known by attestation, and who is relayed plain shows nothing.
        Route::Plain { .. } => judged(compiled, &route, None),
        Route::Local { from, .. } => judged(compiled, &route, Some(&compiled.workloads[*from].spiffe_id.clone())),
        Route::Inbound { mode: TlsMode::Simple | TlsMode::Disable, .. } => judged(compiled, &route, None),
        Route::Inbound { mode: TlsMode::Mutual | TlsMode::Permissive, .. } => match &flow.peer_id {
            // It was anonymous under SIMPLE: nobody has asked it for a certificate.
            None if flow.tls => unseen(compiled, &route),
            id => judged(compiled, &route, id.as_deref()),
        },
        Route::Egress { .. } => match &flow.peer_id {
            None => unseen(compiled, &route),
            id => judged(compiled, &route, id.as_deref()),
        },
    }
}

/// Where it would come in, and as whom.
fn inside<'c>(compiled: &'c Compiled, flow: &Flow) -> (Side, &'c str, Proof<'static>) {
    let known = named_in(compiled, flow);
    let own = || {
        let Known::Supposed(index) = known else { return None };
        let place = compiled.workloads[index].places.iter().find(|place| place.prefix.contains(flow.client))?;
        Some((Side::Inside, place.interface.as_str(), Proof { caller: known, listener: callee(compiled, flow) }))
    };
    let somebodys = || {
        let mut places = compiled.workloads.iter().flat_map(|workload| &workload.places);
        let at = |place: &&::snapshot::Place| {
            place.prefix.contains(flow.client)
                && !matches!(compiled.places.source(&place.interface, flow.client), Whose::Nobody)
        };
        places.find(at).map_or("", |place| place.interface.as_str())
    };
    own().unwrap_or_else(|| (Side::Inside, somebodys(), Proof::of_listener(callee(compiled, flow))))
}

/// The workload whose call it was, or who was called from the wire.
fn named_in(compiled: &Compiled, flow: &Flow) -> Known<'static> {
    let mut all = compiled.workloads.iter();
    all.position(|w| Some(&*w.name) == flow.workload.as_deref()).map_or(Known::Nothing, Known::Supposed)
}

/// Of a call between workloads of this node: who was called.
fn callee(compiled: &Compiled, flow: &Flow) -> Known<'static> {
    let mut there = compiled.destinations(flow.server.ip().to_canonical());
    let found = there.find(|&index| Some(&*compiled.workloads[index].spiffe_id) == flow.peer_id.as_deref());
    found.map_or(Known::Nothing, Known::Supposed)
}

fn judged(compiled: &Compiled, route: &Route, id: Option<&str>) -> Outcome {
    if let Some(domain) = id.and_then(SpiffeId::parse).map(|id| id.trust_domain)
        && compiled.roots(domain).is_none()
    {
        let detail = Some(format!("there is no bundle for trust domain {domain}"));
        return Outcome::Refused { reason: RefuseReason::PeerTrustDomainUnknown, rule: None, detail };
    }
    match decide(compiled, route, id.map(hypothetical).as_ref()) {
        Verdict::Allow(rule) => Outcome::Allowed { rule: named(compiled, rule) },
        Verdict::Refuse(reason, rule) => {
            let detail = why_not(compiled, route, (reason, rule), id);
            Outcome::Refused { reason, rule: named(compiled, rule), detail }
        }
    }
}

/// By what is known without a certificate: a refusal that no certificate would change, or nothing.
fn unseen(compiled: &Compiled, route: &Route) -> Outcome {
    match judged(compiled, route, None) {
        refused @ Outcome::Refused { reason: RefuseReason::DeniedByRule | RefuseReason::PeerRevoked, .. } => refused,
        Outcome::Allowed { rule } | Outcome::Refused { rule, .. } | Outcome::Open { rule } => Outcome::Open { rule },
    }
}

fn named(compiled: &Compiled, rule: Option<RuleId>) -> Option<String> {
    rule.map(|id| compiled.rule(id)).map(|rule| format!("{} ({})", rule.name, rule.place))
}
