//! What lists and rules say to somebody who is not known yet: whose certificate would be admitted, who
//! could answer, and what turns on where the call comes from.

use std::net::SocketAddr;

use ::snapshot::{Action, Direction, Enforcement, IdPattern, PolicyRule, RefuseReason, RuleDirection, RuleId};

use super::explain::{SHOWN, Story, hypothetical};
use super::miss::LOOKED_AT;
use super::rules::{Ends, Seen};
use super::{AllowList, Route, Verdict, decide, distrusted, miss, shadow, why_not};
use crate::tls::Peer;

/// Most rules that one explanation names.
const MOST_RULES: usize = 4;

impl<'a> Story<'a> {
    pub fn tell_shadow(&mut self, route: &Route, peer: Option<&Peer>, verdict: Verdict) {
        if let Some(found) = shadow(self.compiled, route, peer, verdict) {
            self.say(format!("In shadow: it {}.", found.told(self.compiled)));
        }
    }

    /// Rules that would turn the answer if the caller called from elsewhere, or were somebody else.
    pub fn tell_rules(&mut self, what: &str, workload: usize, seen: &Seen<'_>, fits: impl Fn(&PolicyRule) -> bool) {
        let rules = self.compiled.rules_of(workload, seen.direction).take(LOOKED_AT);
        let enforced = |rule: &PolicyRule| rule.enforcement == Enforcement::Enforce;
        let told =
            rules.filter(|(_, rule)| enforced(rule) && miss::holds_port(rule, seen) && fits(rule)).take(MOST_RULES);
        let told: Vec<_> = told
            .map(|(id, rule)| (self.compiled.rule(id), rule))
            .map(|(source, rule)| format!("{what}: {rule}, by {} ({}).", source.name, source.place))
            .collect();
        told.into_iter().for_each(|sentence| self.say(sentence));
    }

    /// Whose certificates would be admitted from there.
    pub fn tell_admitted(&mut self, route: &Route, workload: usize, ends: Ends) {
        let callee = &self.compiled.workloads[workload];
        let seen = ends.seen(RuleDirection::Inbound, None);
        let allows = self.allows_there(workload, &seen);
        let none = AllowList::default();
        let list = callee.inbound.as_ref().unwrap_or(&none);
        if self.tell_distrusted(route, &[list], &allows) {
            return;
        }
        if !list.is_empty() || !allows.is_empty() {
            let by = if list.is_empty() { allows[0].0 } else { callee.inbound_rule };
            let admitted = with_allows(list, &allows);
            self.say(format!("Only a certificate of {admitted} is admitted."));
            self.tell_denied(workload, &seen);
            self.told.only_with = Some(admitted);
            return self.allow(Some(by));
        }
        let any = self.compiled.has_rule(workload, Action::Allow, RuleDirection::Inbound, Enforcement::Enforce);
        let reason = match callee.inbound.is_some() || any {
            true => RefuseReason::NotAllowedInbound,
            false => RefuseReason::NoInboundList,
        };
        self.tell_rules("Not from there", workload, &seen, |rule| rule.action == Action::Allow);
        self.refuse(reason, Some(callee.inbound_rule), None);
    }

    /// Who the server is shows in the handshake: the call is allowed if somebody could answer it.
    pub fn tell_egress(&mut self, route: &Route, to: SocketAddr) {
        let Route::Egress { workload, endpoint, rule, mode, source, ends } = *route else { return };
        let (caller, service) = (&self.compiled.workloads[workload], self.compiled.service_name(endpoint));
        let entry = &caller.egress[rule];
        self.told.direction = Some(Direction::Egress);
        self.told.mode = Some(mode);
        let place = self.name_rule(Some(entry.id)).unwrap_or_default();
        self.say(format!("{to} is service {service}, selected by {place}, mode {}.", mode.name()));
        self.tell_source(source);
        let seen = ends.seen(RuleDirection::Outbound, None);
        let lists: Vec<&AllowList> = [&entry.allowed, &caller.outbound].into_iter().flatten().collect();
        // Allows add to the workload's list, where there is one.
        let allows = if caller.outbound.is_some() { self.allows_there(workload, &seen) } else { vec![] };
        if self.tell_distrusted(route, &lists, &allows) {
            return;
        }
        if lists.is_empty() {
            self.say("No list restricts the server's SPIFFE ID.".into());
            self.tell_denied(workload, &seen);
            return self.allow(Some(entry.id));
        }
        // Both lists mostly say the same.
        let mut shown: Vec<_> = entry.allowed.iter().map(|list| list.shown(SHOWN)).collect();
        shown.extend(caller.outbound.iter().map(|list| with_allows(list, &allows)));
        shown.dedup();
        self.say(format!("The server must be one of: {}.", shown.join("; and one of: ")));
        let decided = |id: &str| decide(self.compiled, route, Some(&hypothetical(id)));
        let mut named = lists.iter().flat_map(|list| list.exact()).chain(exact(&allows));
        let patterned = has_patterns(&allows);
        let open = entry.allowed.as_ref().is_none_or(AllowList::has_patterns)
            && caller.outbound.as_ref().is_none_or(|list| list.has_patterns() || patterned);
        if open || named.any(|id| matches!(decided(id), Verdict::Allow(_))) {
            self.tell_denied(workload, &seen);
            return self.allow(Some(entry.id));
        }
        let detail = "no SPIFFE ID could be in every list that applies".to_owned();
        self.refuse(RefuseReason::NotAllowedOutbound, Some(entry.id), Some(detail));
    }

    /// Refuses what is refused whoever is at the other end: the workload itself is revoked, or everybody
    /// whom `lists` and `allows` name is, or is of a trust domain with a stale CRL, and they name nobody
    /// by a path.
    fn tell_distrusted(&mut self, route: &Route, lists: &[&AllowList], allows: &[(RuleId, &PolicyRule)]) -> bool {
        let by = |peer: Option<&Peer>| distrusted(self.compiled, route, peer);
        let named = lists.iter().flat_map(|list| list.exact()).chain(exact(allows));
        let named: Vec<_> = named.map(|id| by(Some(&hypothetical(id)))).collect();
        // Where as many allows are known as are looked at, there may be more.
        let open = has_patterns(allows) || allows.len() == MOST_RULES || lists.iter().any(|list| list.has_patterns());
        let everybody = named.iter().copied().collect::<Option<Vec<_>>>().filter(|all| !open && !all.is_empty());
        let Some((reason, rule)) = by(None).or_else(|| everybody?.into_iter().min()) else { return false };
        let detail = why_not(self.compiled, route, (reason, Some(rule)), None);
        self.refuse(reason, Some(rule), detail);
        true
    }

    /// Whom its denies would refuse all the same.
    fn tell_denied(&mut self, workload: usize, seen: &Seen<'_>) {
        let address = *seen;
        let fits = move |rule: &PolicyRule| rule.action == Action::Deny && miss::holds_address(rule, &address);
        self.tell_rules("But not", workload, seen, fits);
    }

    /// The allows whose other conditions hold.
    fn allows_there(&self, workload: usize, seen: &Seen<'_>) -> Allows<'a> {
        let enforced = |rule: &PolicyRule| (rule.action, rule.enforcement) == (Action::Allow, Enforcement::Enforce);
        let rules = self.compiled.rules_of(workload, seen.direction).take(LOOKED_AT);
        let there = |rule: &PolicyRule| miss::holds_address(rule, seen) && miss::holds_port(rule, seen);
        rules.filter(|(_, rule)| enforced(rule) && there(rule)).take(MOST_RULES).collect()
    }
}

/// The first few that hold.
type Allows<'a> = Vec<(RuleId, &'a PolicyRule)>;

fn peers<'a>(allows: &[(RuleId, &'a PolicyRule)]) -> impl Iterator<Item = &'a IdPattern> {
    allows.iter().flat_map(|(_, rule)| &rule.peers)
}

fn exact<'a>(allows: &[(RuleId, &'a PolicyRule)]) -> impl Iterator<Item = &'a str> {
    peers(allows).filter_map(|peer| match peer {
        IdPattern::Exact(id) => Some(id.as_str()),
        IdPattern::Under(_) => None,
    })
}

fn has_patterns(allows: &[(RuleId, &PolicyRule)]) -> bool {
    peers(allows).any(|peer| matches!(peer, IdPattern::Under(_)))
}

/// The entries of a list and the peers of allows, the first few of each.
fn with_allows(list: &AllowList, allows: &[(RuleId, &PolicyRule)]) -> String {
    let listed = Some(list).filter(|list| !list.is_empty()).map(|list| list.shown(SHOWN));
    let peers = allows.iter().flat_map(|(_, rule)| rule.peers.iter().take(SHOWN).map(ToString::to_string));
    listed.into_iter().chain(peers).collect::<Vec<_>>().join(", ")
}
