//! A Policy in all its parts: whom it means, its rules in the order that they are asked, what decides where none
//! of them does, and whom no policy means.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use snapshot::{Action, Enforcement, PolicyRule, RuleDirection, RuleHits, TlsMode};

use super::{Facts, Kind, Revision, Unknown, find};
use crate::config::policy::{Rule, Whom};
use crate::config::trust::domain_of;
use crate::config::{self, AllowList, Naming, Place, SpiffeId, WorkloadIdentity};

/// `GET /v1/describe/policy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// `namespace/name`.
    pub name: String,
    pub place: String,
    pub revision: Revision,
    /// Entries of `spec.workloads`.
    pub selects: Vec<NamedRow>,
    /// In the order that they are asked.
    pub rules: Vec<RuleRow>,
    pub workloads: Vec<WorkloadRow>,
    /// Workloads that are on this node and that no policy names.
    pub unnamed: Vec<String>,
    pub problems: Vec<String>,
    /// Why it is not known how many calls its rules have decided.
    pub not_counted: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRow {
    /// `shop/backend`, `spiffe://example.com/shop/*`.
    pub entry: String,
    pub place: String,
    /// Those that it means, by `namespace/name`.
    pub workloads: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRow {
    /// `shop/partners spec.rules[0] (policy.yaml:12)`, as every view names it.
    pub rule: String,
    /// `deny inbound spiffe://example.com/batch from 203.0.113.0/24`.
    pub says: String,
    pub action: Action,
    pub direction: RuleDirection,
    pub enforcement: Enforcement,
    pub asked: When,
    /// Calls that it has decided, in shadow would have. None: see `not_counted`.
    pub calls: Option<u64>,
}

/// When a rule is asked; what comes earlier decides. Of one kind, the first that matches is the one that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// A deny without peers: from addresses, before any work is spent.
    Addresses,
    /// Any other deny: once it is known who the other side is.
    Peer,
    /// An allow: where the workload's own list does not admit.
    List,
    /// In shadow: in a second decision, which changes nothing.
    Shadow,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadRow {
    pub workload: String,
    pub spiffe_id: String,
    /// It is attested on this node now.
    pub is_here: bool,
    /// What decides about calls that no rule of any policy does.
    pub inbound: Otherwise,
    pub outbound: Otherwise,
    /// Other policies that name it.
    pub others: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Otherwise {
    pub admits: Admits,
    /// `the list (policy.yaml:31), 2 entries`.
    pub says: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admits {
    Nobody,
    Listed,
    Everybody,
}

impl When {
    fn of(rule: &PolicyRule) -> Self {
        match (rule.enforcement, rule.action) {
            (Enforcement::Shadow, _) => Self::Shadow,
            (Enforcement::Enforce, Action::Allow) => Self::List,
            (Enforcement::Enforce, Action::Deny) if rule.peers.is_empty() => Self::Addresses,
            (Enforcement::Enforce, Action::Deny) => Self::Peer,
        }
    }

    pub const fn says(self) -> &'static str {
        match self {
            Self::Addresses => "at the SYN",
            Self::Peer => "of the peer",
            Self::List => "after the list",
            Self::Shadow => "in shadow",
        }
    }
}

/// One that the policy names.
type Meant<'l> = (&'l WorkloadIdentity, SpiffeId, Vec<u32>);

impl Policy {
    pub fn of(facts: &Facts<'_>, name: &str) -> Result<Self, Unknown> {
        let (policies, gateway) = (&facts.loaded.policies, &facts.loaded.gateway);
        let name = find(Kind::Policy, name, policies.iter().map(|policy| policy.name.as_str()))?;
        let index = policies.iter().position(|policy| policy.name == name).expect("it was found there");
        let (policy, naming) = (&policies[index], Naming::new(policies));
        let here: BTreeSet<&str> = facts
            .snapshot
            .iter()
            .flat_map(|snapshot| &snapshot.workloads)
            .filter(|workload| !workload.places.is_empty())
            .map(|workload| workload.name.as_str())
            .collect();
        let all = facts.loaded.identities.iter().map(|identity| {
            let id = identity.spiffe_id(&gateway.trust_domain);
            let of = naming.of(identity, Some(&id));
            (identity, id, of)
        });
        let all: Vec<Meant<'_>> = all.collect();
        let meant: Vec<_> = all.iter().filter(|(_, _, of)| of.contains(&(index as u32))).collect();
        let unnamed = all.iter().filter(|(identity, _, of)| of.is_empty() && here.contains(identity.name.as_str()));
        let mut rules: Vec<_> = policy.rules.iter().enumerate().map(|(nth, rule)| row(policy, nth, rule)).collect();
        // Those of one kind stay in the order of the file.
        rules.sort_by_key(|rule| rule.asked);
        Ok(Self {
            name: name.to_owned(),
            place: policy.place.to_string(),
            revision: facts.revision(facts.since.policy(name)),
            selects: policy.workloads.iter().map(|named| NamedRow::of(named, &meant)).collect(),
            rules,
            workloads: meant.iter().map(|one| WorkloadRow::of(one, index, policies, &here)).collect(),
            unnamed: unnamed.map(|(identity, ..)| identity.name.clone()).collect(),
            problems: problems(facts, policy),
            not_counted: None,
        })
    }

    /// What the dataplane has counted, or why that is not known.
    pub fn count(&mut self, counted: Result<&[RuleHits], String>) {
        match counted {
            Ok(hits) => {
                let hits: HashMap<_, _> = hits.iter().map(|hit| (&hit.rule, hit.hits)).collect();
                for rule in &mut self.rules {
                    rule.calls = Some(hits.get(&rule.rule).copied().unwrap_or(0));
                }
            }
            Err(why) => self.not_counted = Some(why),
        }
    }
}

fn row(policy: &config::Policy, nth: usize, Rule { place, rule }: &Rule) -> RuleRow {
    RuleRow {
        rule: format!("{} spec.rules[{nth}] ({place})", policy.name),
        says: rule.to_string(),
        action: rule.action,
        direction: rule.direction,
        enforcement: rule.enforcement,
        asked: When::of(rule),
        calls: None,
    }
}

impl NamedRow {
    fn of(named: &config::policy::Named, meant: &[&Meant<'_>]) -> Self {
        let is = |(identity, id, _): &&&Meant<'_>| named.whom.is(identity, Some(id));
        Self {
            entry: match &named.whom {
                Whom::Name(name) => name.clone(),
                Whom::Id(pattern) => pattern.to_string(),
            },
            place: named.place.to_string(),
            workloads: meant.iter().filter(is).map(|(identity, ..)| identity.name.clone()).collect(),
        }
    }
}

impl WorkloadRow {
    fn of((identity, id, of): &Meant<'_>, own: usize, policies: &[config::Policy], here: &BTreeSet<&str>) -> Self {
        let others = of.iter().map(|&at| at as usize).filter(|&at| at != own);
        Self {
            workload: identity.name.clone(),
            spiffe_id: id.as_str().to_owned(),
            is_here: here.contains(identity.name.as_str()),
            inbound: inbound(identity),
            outbound: outbound(identity),
            others: others.map(|at| policies[at].name.clone()).collect(),
        }
    }
}

fn inbound(identity: &WorkloadIdentity) -> Otherwise {
    let mut otherwise = match (identity.mode, &identity.inbound) {
        (TlsMode::Disable, _) => Otherwise::of(Admits::Everybody, "DISABLE: nothing is asked"),
        (TlsMode::Simple, _) => Otherwise::of(Admits::Everybody, "SIMPLE: callers show no identity"),
        (TlsMode::Permissive, None) => Otherwise::of(Admits::Everybody, "PERMISSIVE without a list"),
        (TlsMode::Mutual, None) => Otherwise::of(Admits::Nobody, "MUTUAL without a list"),
        (TlsMode::Mutual, Some(list)) => listed(list),
        (TlsMode::Permissive, Some(list)) => {
            let listed = listed(list);
            Otherwise { says: format!("{}; who calls plain is served", listed.says), ..listed }
        }
    };
    for (port, mode) in identity.ports.iter().filter(|(_, mode)| **mode != identity.mode) {
        otherwise.says.push_str(&format!("; port {port} is {}", mode.name()));
    }
    otherwise
}

fn outbound(identity: &WorkloadIdentity) -> Otherwise {
    match &identity.outbound {
        None => Otherwise::of(Admits::Everybody, "no list: whom its egress entries admit"),
        Some(list) => listed(list),
    }
}

fn listed(list: &AllowList) -> Otherwise {
    let place = &list.place;
    match list.patterns.len() {
        0 => Otherwise::of(Admits::Nobody, format!("the list ({place}) is empty")),
        1 => Otherwise::of(Admits::Listed, format!("the list ({place}), 1 entry")),
        count => Otherwise::of(Admits::Listed, format!("the list ({place}), {count} entries")),
    }
}

impl Otherwise {
    fn of(admits: Admits, says: impl Into<String>) -> Self {
        Self { admits, says: says.into() }
    }
}

fn problems(facts: &Facts<'_>, policy: &config::Policy) -> Vec<String> {
    let mut found = Vec::new();
    if facts.since.policy(&policy.name).is_none() {
        found.push("no snapshot has it yet: it decides nothing".to_owned());
    }
    if let Some(snapshot) = facts.snapshot {
        let verified = snapshot.bundles.iter().filter(|bundle| !bundle.roots.is_empty());
        let verified: BTreeSet<&str> = verified.map(|bundle| bundle.trust_domain.as_str()).collect();
        for Rule { place, rule } in &policy.rules {
            let mut foreign = rule.peers.iter().filter(|peer| !verified.contains(domain_of(peer)));
            let Some(first) = foreign.next() else { continue };
            let so = match rule.action {
                Action::Allow => "this admits nobody of it",
                Action::Deny => "nobody of it is admitted anyway",
            };
            let domain = domain_of(first);
            found.push(format!("{first}: trust domain {domain} has no bundle in force, so {so} ({place})"));
        }
    }
    let named = policy.workloads.iter().map(|named| &named.place);
    let rules = policy.rules.iter().map(|rule| &rule.place);
    let places: Vec<&Place> = [&policy.place].into_iter().chain(named).chain(rules).collect();
    // Bundles are looked at above, as they are now.
    found.extend(facts.warned_at(&places, "spec.rules.peers"));
    found
}
