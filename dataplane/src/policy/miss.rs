//! What a refusal says beyond its reason: the list or the rule, and what came nearest to admitting.

use ::snapshot::RefuseReason::{self, *};
use ::snapshot::RuleDirection::{Inbound, Outbound};
use ::snapshot::{Action, Enforcement, IdPattern, PolicyRule, RuleDirection, RuleId};

use super::allow::common;
use super::rules::{Ends, Seen};
use super::{AllowList, Route};
use crate::snapshot::Compiled;

/// Rules, and peers of each, that are looked at for a near miss, so that a long policy makes no refusal dear.
pub(super) const LOOKED_AT: usize = 1_024;
const PEERS: usize = 64;

/// `id`: the peer's, if it proved one.
pub fn why_not(
    compiled: &Compiled,
    route: &Route,
    (reason, rule): (RefuseReason, Option<RuleId>),
    id: Option<&str>,
) -> Option<String> {
    if let (NotAttested, Route::Refuse { detail, .. }) = (reason, route) {
        return detail.clone();
    }
    if reason == PeerRevoked {
        let source = compiled.rule(rule?);
        return Some(format!("{} in {} revokes it", source.name, source.place));
    }
    if reason == CrlStale {
        let source = compiled.rule(rule?);
        return Some(format!("{} in {} is past its nextUpdate, and says onStale: fail", source.name, source.place));
    }
    if reason == DeniedByRule {
        return compiled.policy_rule(rule?).map(|rule| format!("the rule is: {rule}"));
    }
    if reason == NotAllowedInbound {
        return not_in_inbound(compiled, route, id);
    }
    if reason == NotAllowedOutbound {
        return not_in_outbound(compiled, route, id);
    }
    let id = id.filter(|_| reason == NoInboundList)?;
    Some(format!("{id} would have to be in an inbound list, and there is none"))
}

/// Where the call's own side stands, and what it shows: between workloads of one node nobody has to show
/// anything.
fn not_in_inbound(compiled: &Compiled, route: &Route, id: Option<&str>) -> Option<String> {
    let (workload, ends, id) = match *route {
        Route::Inbound { workload, ends, .. } => (workload, ends, id?),
        Route::Local { from, to, ends, .. } => (to, ends, &*compiled.workloads[from].spiffe_id),
        Route::Egress { .. } | Route::Plain { .. } | Route::Refuse { .. } => return None,
    };
    let callee = &compiled.workloads[workload];
    let whose = format!("the inbound list of {}", callee.name);
    Some(nearest(compiled, workload, callee.inbound.as_ref(), whose, &ends.seen(Inbound, Some(id)), id))
}

fn not_in_outbound(compiled: &Compiled, route: &Route, id: Option<&str>) -> Option<String> {
    let (workload, rule, ends, id): (_, _, Ends, _) = match *route {
        Route::Egress { workload, rule, ends, .. } => (workload, Some(rule), ends, id?),
        Route::Local { from, to, rule, ends, .. } => (from, rule, ends, &*compiled.workloads[to].spiffe_id),
        Route::Inbound { .. } | Route::Plain { .. } | Route::Refuse { .. } => return None,
    };
    let caller = &compiled.workloads[workload];
    let entry = rule.map(|rule| &caller.egress[rule]);
    if let Some((list, entry)) = entry.and_then(|e| Some((e.allowed.as_ref().filter(|l| !l.admits(id))?, e))) {
        return Some(miss(list, format!("the list of {}", compiled.rule(entry.id).name), id));
    }
    let whose = format!("the outbound list of {}", caller.name);
    Some(nearest(compiled, workload, caller.outbound.as_ref(), whose, &ends.seen(Outbound, Some(id)), id))
}

fn miss(list: &AllowList, whose: String, id: &str) -> String {
    match list.nearest(id) {
        Some(nearest) => format!("{id} is not in {whose}; the nearest entry is {nearest}"),
        None => format!("{id} is not in {whose}, which is empty"),
    }
}

/// The list's nearest entry, and the allow that comes nearest: one that names the peer and fails by
/// address or port before one that names somebody else.
fn nearest(
    compiled: &Compiled,
    workload: usize,
    list: Option<&AllowList>,
    whose: String,
    seen: &Seen<'_>,
    id: &str,
) -> String {
    let of_list = match list {
        Some(list) => miss(list, whose, id),
        None => format!("{id} is in no rule, and there is no list"),
    };
    let allows = allows(compiled, workload, seen.direction);
    let Some((rule, allow)) = allows.max_by_key(|(id, rule)| (closeness(rule, seen), std::cmp::Reverse(*id))) else {
        return of_list;
    };
    let source = compiled.rule(rule);
    let expected = expected(allow, seen).unwrap_or_default();
    format!("{of_list}; the nearest rule is {} ({}): expected {expected}", source.name, source.place)
}

fn allows(
    compiled: &Compiled,
    workload: usize,
    direction: RuleDirection,
) -> impl Iterator<Item = (RuleId, &PolicyRule)> {
    let enforced = |rule: &&PolicyRule| rule.action == Action::Allow && rule.enforcement == Enforcement::Enforce;
    compiled.rules_of(workload, direction).take(LOOKED_AT).filter(move |(_, rule)| enforced(rule))
}

/// First those that name the peer, the more conditions hold the nearer; then by how far the names agree.
fn closeness(rule: &PolicyRule, seen: &Seen<'_>) -> (bool, usize, usize) {
    let id = seen.id.unwrap_or_default();
    let holding = usize::from(holds_address(rule, seen)) + usize::from(holds_port(rule, seen));
    let peers = || rule.peers.iter().take(PEERS);
    let shared = peers().map(|peer| common(text(peer), id)).max().unwrap_or(0);
    (peers().any(|peer| peer.matches(id)), holding, shared)
}

/// What a pattern says, without the star.
fn text(pattern: &IdPattern) -> &str {
    match pattern {
        IdPattern::Exact(text) | IdPattern::Under(text) => text,
    }
}

/// The first condition that does not hold, and what came instead.
fn expected(rule: &PolicyRule, seen: &Seen<'_>) -> Option<String> {
    let id = seen.id.unwrap_or("nobody");
    if !names(rule, seen) {
        let near = |peer: &&IdPattern| common(text(peer), id);
        return rule.peers.iter().take(PEERS).max_by_key(near).map(|peer| format!("{peer}, got {id}"));
    }
    let list = |items: &[String]| items.join(" or ");
    if !holds_address(rule, seen) {
        let cidrs: Vec<_> = rule.cidrs.iter().take(4).map(ToString::to_string).collect();
        let way = match seen.direction {
            Inbound => "from",
            Outbound => "to",
        };
        return Some(format!("{way} {}, got {}", list(&cidrs), seen.address));
    }
    let ports: Vec<_> = rule.ports.iter().take(4).map(ToString::to_string).collect();
    (!holds_port(rule, seen)).then(|| format!("port {}, got {}", list(&ports), seen.port))
}

/// Whether the rule's peers hold the other side.
pub(super) fn names(rule: &PolicyRule, seen: &Seen<'_>) -> bool {
    rule.peers.is_empty() || seen.id.is_some_and(|id| rule.peers.iter().any(|peer| peer.matches(id)))
}

pub(super) fn holds_address(rule: &PolicyRule, seen: &Seen<'_>) -> bool {
    rule.cidrs.is_empty() || rule.cidrs.iter().any(|cidr| cidr.contains(seen.address))
}

pub(super) fn holds_port(rule: &PolicyRule, seen: &Seen<'_>) -> bool {
    rule.ports.is_empty() || rule.ports.iter().any(|range| range.contains(seen.port))
}
