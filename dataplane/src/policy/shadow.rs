//! What rules in shadow would change: the same call, decided as if they were enforced.

use ::snapshot::RefuseReason::NotAllowedOutbound;
use ::snapshot::RuleDirection::{Inbound, Outbound};
use ::snapshot::{Action, Enforcement, RefuseReason, RuleDirection, RuleId};

use super::Route;
use super::decide::{Judge, Verdict};
use super::rules::{Ends, Trial};
use crate::snapshot::Compiled;
use crate::tls::Peer;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Would {
    /// The call is allowed, and would not be.
    Refuse,
    /// The call is refused, and would be allowed.
    Admit,
}

impl Would {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refuse => "would be refused",
            Self::Admit => "would be admitted",
        }
    }
}

/// The rule in shadow that makes the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadow {
    pub would: Would,
    pub rule: RuleId,
}

impl Shadow {
    /// `would be refused by shop/partners spec.rules[0] (policy.yaml:12)`.
    pub fn told(self, compiled: &Compiled) -> String {
        let source = compiled.rule(self.rule);
        format!("{} by {} ({})", self.would.name(), source.name, source.place)
    }
}

/// `verdict` is what [`decide`](super::decide()) says of the same.
pub fn shadow(compiled: &Compiled, route: &Route, peer: Option<&Peer>, verdict: Verdict) -> Option<Shadow> {
    if !parties(route).any(|(workload, _, direction)| in_shadow(compiled, workload, direction)) {
        return None;
    }
    let then = Judge { compiled, trial: Trial::WithShadow }.decide(route, peer);
    match (verdict, then) {
        // What is enforced denies nothing here, and nobody is revoked, so it is one in shadow that would.
        (Verdict::Allow(_), Verdict::Refuse(_, rule)) => Some(Shadow { would: Would::Refuse, rule: rule? }),
        (Verdict::Refuse(reason, _), Verdict::Allow(_)) => {
            admitting(compiled, route, reason, peer.map(|peer| &*peer.spiffe_id))
                .map(|rule| Shadow { would: Would::Admit, rule })
        }
        (Verdict::Allow(_), Verdict::Allow(_)) | (Verdict::Refuse(..), Verdict::Refuse(..)) => None,
    }
}

/// Whose rules of which direction speak about the call.
fn parties(route: &Route) -> impl Iterator<Item = (usize, Ends, RuleDirection)> {
    let of = |workload: Option<usize>, ends: Option<Ends>, direction| {
        workload.zip(ends).map(|(workload, ends)| (workload, ends, direction))
    };
    let (outbound, inbound) = match *route {
        Route::Inbound { workload, ends, from, .. } => {
            (of(from, Some(ends), Outbound), of(Some(workload), Some(ends), Inbound))
        }
        Route::Egress { workload, ends, .. } => (of(Some(workload), Some(ends), Outbound), None),
        Route::Local { from, to, ends, .. } => {
            (of(Some(from), Some(ends), Outbound), of(Some(to), Some(ends), Inbound))
        }
        Route::Plain { workload, outbound, .. } => (of(workload, outbound, Outbound), None),
        Route::Refuse { .. } => (None, None),
    };
    outbound.into_iter().chain(inbound)
}

fn in_shadow(compiled: &Compiled, workload: usize, direction: RuleDirection) -> bool {
    [Action::Deny, Action::Allow]
        .into_iter()
        .any(|action| compiled.has_rule(workload, action, direction, Enforcement::Shadow))
}

/// The allow that the list which refused now lacks: it is one in shadow, since one that is enforced would
/// have been found already.
fn admitting(compiled: &Compiled, route: &Route, reason: RefuseReason, id: Option<&str>) -> Option<RuleId> {
    let wanted = if reason == NotAllowedOutbound { Outbound } else { Inbound };
    let (workload, ends, direction) = parties(route).find(|(_, _, direction)| *direction == wanted)?;
    let id = match (route, direction) {
        (Route::Local { to, .. }, Outbound) => Some(&*compiled.workloads[*to].spiffe_id),
        (Route::Local { from, .. }, Inbound) => Some(&*compiled.workloads[*from].spiffe_id),
        (Route::Inbound { .. } | Route::Egress { .. } | Route::Plain { .. } | Route::Refuse { .. }, _) => id,
    };
    compiled.first_rule(workload, Action::Allow, Trial::WithShadow, &ends.seen(direction, id))
}
