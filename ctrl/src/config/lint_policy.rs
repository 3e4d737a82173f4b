//! Policies beside what they are about: rules that can never match, that change nothing, or that are more
//! than a dataplane takes.
//!
//! Only what is certain is said, and only while it is cheap to find out: large policies are taken as they are.

use std::collections::BTreeSet;

use snapshot::check::{MOST_ENTRIES, MOST_POLICIES};
use snapshot::{Action, Enforcement, IdPattern, PolicyRule, PortRange, Prefix, RuleDirection, TlsMode};

use super::policy::{Naming, Policy, Rule, Whom};
use super::{Diagnostic, Resources, Service, SpiffeId, Target, WorkloadIdentity};

/// Comparisons that one load may spend on warnings: some tenths of a second.
const CHEAP: usize = 20_000_000;

/// What is left of them.
struct Budget(usize);

impl Budget {
    /// Whether so many may be made; then they are spent.
    fn affords(&mut self, comparisons: usize) -> bool {
        let left = self.0.checked_sub(comparisons);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// One that a policy names; its ID is not known while no Gateway says the trust domain.
type Workload<'r> = (&'r WorkloadIdentity, Option<SpiffeId>);

/// The workloads that an enforced inbound allow names: they need no list to be called.
pub fn lint<'r>(resources: &'r Resources, found: &mut Vec<Diagnostic>) -> BTreeSet<&'r str> {
    let naming = Naming::new(&resources.policies);
    let mut named: Vec<Vec<Workload<'_>>> = vec![Vec::new(); resources.policies.len()];
    for identity in &resources.identities {
        let id = resources.gateway.as_ref().map(|gateway| identity.spiffe_id(&gateway.trust_domain));
        let policies = naming.of(identity, id.as_ref());
        if policies.len() > MOST_POLICIES {
            let message = format!("{} policies name {}; at most {MOST_POLICIES} may", policies.len(), identity.name);
            let help = "put their rules together into fewer";
            found.push(Diagnostic::error(&identity.place, "metadata.name", message).help(help));
        }
        policies.iter().for_each(|&policy| named[policy as usize].push((identity, id.clone())));
    }
    let (mut entries, mut budget) = (0, Budget(CHEAP));
    let mut admitted = BTreeSet::new();
    for (policy, workloads) in resources.policies.iter().zip(&named) {
        too_many(policy, &mut entries, found);
        if budget.affords(policy.workloads.len().saturating_mul(workloads.len())) {
            names_nobody(policy, workloads, resources.gateway.is_some(), found);
        }
        if !workloads.is_empty()
            && budget.affords(weight(policy.rules.iter()).saturating_mul(width(workloads, resources)))
        {
            pointless(policy, workloads, &resources.services, found);
        }
        if budget.affords(weight(denies(policy).map(|(_, deny)| deny)).saturating_mul(weight(policy.rules.iter()))) {
            covered(policy, found);
        }
        if policy.rules.iter().any(|rule| admits(&rule.rule)) {
            admitted.extend(workloads.iter().map(|(identity, _)| identity.name.as_str()));
        }
    }
    admitted
}

fn admits(rule: &PolicyRule) -> bool {
    (rule.action, rule.direction, rule.enforcement) == (Action::Allow, RuleDirection::Inbound, Enforcement::Enforce)
}

/// All that is written in some rules.
fn weight<'r>(rules: impl Iterator<Item = &'r Rule>) -> usize {
    rules.map(|Rule { rule, .. }| 1 + rule.peers.len() + rule.cidrs.len() + rule.ports.len()).sum()
}

/// What a rule is compared with at most: ports of the workloads, and addresses that they may call.
fn width(workloads: &[Workload<'_>], resources: &Resources) -> usize {
    let addresses: usize = resources.services.iter().map(|service| service.addresses.len() + 1).sum();
    let selectors =
        |identity: &WorkloadIdentity| identity.egress.iter().map(|entry| entry.selectors.len()).sum::<usize>();
    let of =
        |(identity, _): &Workload<'_>| 1 + identity.ports.len() + (1 + selectors(identity)).saturating_mul(addresses);
    workloads.iter().map(of).fold(0, usize::saturating_add)
}

/// Without a Gateway the SPIFFE IDs are not known, and nothing is said about entries of that kind.
fn names_nobody(policy: &Policy, workloads: &[Workload<'_>], ids_known: bool, found: &mut Vec<Diagnostic>) {
    for (nth, named) in policy.workloads.iter().enumerate() {
        let unknown = !ids_known && matches!(named.whom, Whom::Id(_));
        if !unknown && !workloads.iter().any(|(identity, id)| named.whom.is(identity, id.as_ref())) {
            let message = "no WorkloadIdentity is meant by this: the entry names nobody";
            found.push(Diagnostic::warning(&named.place, format!("spec.workloads[{nth}]"), message));
        }
    }
}

fn too_many(policy: &Policy, entries: &mut usize, found: &mut Vec<Diagnostic>) {
    for (nth, rule) in policy.rules.iter().enumerate() {
        let before = *entries;
        *entries = entries.saturating_add(rule.rule.entries());
        if before <= MOST_ENTRIES && *entries > MOST_ENTRIES {
            let message = format!(
                "{} combinations of peers, cidrs and ports; with it all policies have more than {MOST_ENTRIES}",
                rule.rule.entries()
            );
            let help = "name peers by path, and addresses by CIDR";
            found.push(Diagnostic::error(&rule.place, format!("spec.rules[{nth}]"), message).help(help));
        }
    }
}

/// Rules that do nothing for any of the workloads, and denies that do not reach everybody.
fn pointless(policy: &Policy, workloads: &[Workload<'_>], services: &[Service], found: &mut Vec<Diagnostic>) {
    for (nth, Rule { place, rule }) in policy.rules.iter().enumerate() {
        let path = format!("spec.rules[{nth}]");
        let why: Vec<_> = workloads.iter().map(|(identity, _)| idle(rule, identity, services)).collect();
        if let Some(Some(why)) = why.iter().all(Option::is_some).then(|| why[0]) {
            found.push(Diagnostic::warning(place, path, format!("the rule changes nothing: {why}")));
        } else if let Some((name, by)) = workloads.iter().find_map(|(i, _)| Some((&i.name, lets_by(rule, i)?))) {
            let message = format!("{name} is {by}, is served although it is denied by its ID");
            found.push(Diagnostic::warning(place, path, message).help("use MUTUAL, or deny without peers"));
        }
    }
}

/// Why the rule does nothing for a workload, if that is certain.
fn idle(rule: &PolicyRule, identity: &WorkloadIdentity, services: &[Service]) -> Option<&'static str> {
    let modes = modes(identity, &rule.ports);
    let all = |set: &[TlsMode]| modes.iter().all(|mode| set.contains(mode));
    use TlsMode::{Disable, Permissive, Simple};
    match (rule.direction, rule.action) {
        (RuleDirection::Inbound, _) if all(&[Disable]) => Some("what DISABLE leaves alone meets no rule"),
        (RuleDirection::Inbound, Action::Allow) if all(&[Simple, Disable]) => {
            Some("callers under SIMPLE show no identity, and none is asked for")
        }
        (RuleDirection::Inbound, Action::Allow)
            if identity.inbound.is_none() && all(&[Permissive, Simple, Disable]) =>
        {
            Some(
                "PERMISSIVE without an inbound list admits every caller that it knows; write [] to admit by rules alone",
            )
        }
        (RuleDirection::Outbound, Action::Allow) if identity.outbound.is_none() => {
            Some("there is no outbound list that it could add to; write [] to allow by rules alone")
        }
        (RuleDirection::Outbound, Action::Allow) if !reaches(rule, identity, services) => {
            Some("no Service that the egress entries select has such an address and port")
        }
        (RuleDirection::Inbound | RuleDirection::Outbound, Action::Allow | Action::Deny) => None,
    }
}

/// The mode under which a peer that the rule denies is served all the same, and which peer. Those of the
/// same node are known by attestation.
fn lets_by(rule: &PolicyRule, identity: &WorkloadIdentity) -> Option<&'static str> {
    if (rule.action, rule.direction) != (Action::Deny, RuleDirection::Inbound) || rule.peers.is_empty() {
        return None;
    }
    let modes = modes(identity, &rule.ports);
    if modes.contains(&TlsMode::Permissive) {
        return Some("PERMISSIVE: who speaks plain TCP, and is not of this node");
    }
    modes.contains(&TlsMode::Simple).then_some("SIMPLE: who calls from another node, and so shows no identity")
}

/// The modes of the ports that a rule is about.
fn modes(identity: &WorkloadIdentity, ports: &[PortRange]) -> Vec<TlsMode> {
    let within = |port: u16| ports.is_empty() || ports.iter().any(|range| range.contains(port));
    let own = identity.ports.iter().filter(|(port, _)| within(**port)).map(|(_, mode)| *mode);
    let mut modes: Vec<_> = own.collect();
    let overridden = |range: &PortRange| range.count() == 1 && identity.ports.contains_key(&range.first());
    if ports.is_empty() || !ports.iter().all(overridden) {
        modes.push(identity.mode);
    }
    modes
}

/// Whether a call that the workload's lists are asked about could fit. What a name, or a Service of a cluster,
/// stands for may change.
fn reaches(rule: &PolicyRule, identity: &WorkloadIdentity, services: &[Service]) -> bool {
    let mut selected = services.iter().filter(|service| identity.egress.iter().any(|entry| entry.selects(service)));
    let mut addresses = selected.clone().flat_map(|service| &service.addresses);
    selected.any(|service| service.kubernetes.is_some())
        || addresses.any(|address| {
            let port = rule.ports.is_empty() || rule.ports.iter().any(|range| range.contains(address.port));
            let fits = match &address.target {
                Target::Ip(ip) => {
                    rule.cidrs.is_empty() || rule.cidrs.iter().any(|cidr| cidr.contains(ip.to_canonical()))
                }
                Target::Name(_) => true,
            };
            port && fits
        })
}

/// Rules of which an enforced deny leaves nothing: an allow at any place, a deny behind it.
fn covered(policy: &Policy, found: &mut Vec<Diagnostic>) {
    let denies: Vec<_> = denies(policy).collect();
    for (nth, Rule { place, rule }) in policy.rules.iter().enumerate() {
        let before = |at: usize| rule.action == Action::Allow || at < nth;
        let cover = denies.iter().find(|(at, deny)| *at != nth && before(*at) && covers(&deny.rule, rule));
        if let Some((at, deny)) = cover {
            let message = format!("the rule never matches: spec.rules[{at}] ({}) denies all of it", deny.place);
            found.push(Diagnostic::warning(place, format!("spec.rules[{nth}]"), message));
        }
    }
}

fn denies(policy: &Policy) -> impl Iterator<Item = (usize, &Rule)> {
    let enforced = |rule: &PolicyRule| (rule.action, rule.enforcement) == (Action::Deny, Enforcement::Enforce);
    policy.rules.iter().enumerate().filter(move |(_, rule)| enforced(&rule.rule))
}

/// Whether each call that `rule` matches is one that `deny` matches.
fn covers(deny: &PolicyRule, rule: &PolicyRule) -> bool {
    fn all_of<T>(outer: &[T], inner: &[T], holds: impl Fn(&T, &T) -> bool) -> bool {
        outer.is_empty() || (!inner.is_empty() && inner.iter().all(|i| outer.iter().any(|o| holds(o, i))))
    }
    let network = |o: &Prefix, i: &Prefix| o.length <= i.length && o.contains(i.address);
    let range = |o: &PortRange, i: &PortRange| o.first() <= i.first() && i.last() <= o.last();
    deny.direction == rule.direction
        && all_of(&deny.peers, &rule.peers, holds_pattern)
        && all_of(&deny.cidrs, &rule.cidrs, network)
        && all_of(&deny.ports, &rule.ports, range)
}

fn holds_pattern(outer: &IdPattern, inner: &IdPattern) -> bool {
    match (outer, inner) {
        (_, IdPattern::Exact(id)) => outer.matches(id),
        (IdPattern::Under(outer), IdPattern::Under(inner)) => inner.starts_with(outer.as_str()),
        (IdPattern::Exact(_), IdPattern::Under(_)) => false,
    }
}
