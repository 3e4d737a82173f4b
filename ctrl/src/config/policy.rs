//! The `Policy` kind: rules about the calls of workloads that it names, beside their own lists.
//!
//! A kind of its own, since `WorkloadIdentity` is not ours to add to without end, and since whoever
//! denies (a security team, an incident) is rarely who owns the workload. What rules mean is said in
//! [`snapshot::rules`].

use std::collections::HashMap;
use std::net::IpAddr;

use snapshot::{Action, Enforcement, IdPattern, PolicyRule, PortRange, Prefix, RuleDirection};

use super::decode::{Faults, Field};
use super::resource::Meta;
use super::spiffe::parse_pattern;
use super::tree::Value;
use super::{Place, SpiffeId, WorkloadIdentity};

#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// `namespace/name`.
    pub name: String,
    pub place: Place,
    pub workloads: Vec<Named>,
    pub rules: Vec<Rule>,
}

/// One entry of `spec.workloads`.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    pub place: Place,
    pub whom: Whom,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// A WorkloadIdentity by `namespace/name`.
    Name(String),
    /// Every workload of this node whose SPIFFE ID matches.
    Id(IdPattern),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub place: Place,
    pub rule: PolicyRule,
}

/// Which policies name a workload, asked of all of them at once.
#[derive(Debug, Default)]
pub struct Naming<'p> {
    names: HashMap<&'p str, Vec<u32>>,
    ids: HashMap<&'p str, Vec<u32>>,
    /// By the path that everything is under, with the slash at its end.
    under: HashMap<&'p str, Vec<u32>>,
}

impl<'p> Naming<'p> {
    pub fn new(policies: &'p [Policy]) -> Self {
        let mut naming = Self::default();
        for (index, policy) in (0..).zip(policies) {
            for named in &policy.workloads {
                match &named.whom {
                    Whom::Name(name) => naming.names.entry(name).or_default().push(index),
                    Whom::Id(IdPattern::Exact(id)) => naming.ids.entry(id).or_default().push(index),
                    Whom::Id(IdPattern::Under(path)) => naming.under.entry(path).or_default().push(index),
                }
            }
        }
        naming
    }

    /// In the order of the policies. `id`: None while no Gateway says the trust domain.
    pub fn of(&self, identity: &WorkloadIdentity, id: Option<&SpiffeId>) -> Vec<u32> {
        let id = id.map(SpiffeId::as_str);
        let by_name = self.names.get(identity.name.as_str());
        let by_id = id.and_then(|id| self.ids.get(id));
        let paths = id.into_iter().flat_map(|id| id.match_indices('/').map(|(at, _)| &id[..=at]));
        let under = paths.filter_map(|path| self.under.get(path));
        let mut found: Vec<u32> = by_name.into_iter().chain(by_id).chain(under).flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Policy {
    pub fn decode(meta: Meta, spec: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = spec.fields(faults)?;
        let workloads = fields.required("workloads", faults).and_then(|field| {
            let entries = field.list(faults)?;
            if entries.is_empty() {
                faults.error(field.at(), &field.path, "names no workload", WHOM);
            }
            Some(entries.iter().filter_map(|entry| Named::decode(entry, faults)).collect())
        });
        let rules = fields.required("rules", faults).and_then(|field| field.list(faults));
        let rules = rules.map(|rules| rules.iter().filter_map(|rule| Rule::decode(rule, faults)).collect());
        fields.finish(faults);
        Some(Self { name: meta.full_name(), place: meta.place, workloads: workloads?, rules: rules? })
    }
}

impl Whom {
    /// Whether it is the workload. `id` as for [`Naming::of`].
    pub fn is(&self, identity: &WorkloadIdentity, id: Option<&SpiffeId>) -> bool {
        match self {
            Self::Name(name) => *name == identity.name,
            Self::Id(pattern) => id.is_some_and(|id| pattern.matches(id.as_str())),
        }
    }
}

impl Named {
    fn decode(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let parse = |text: &str| match text.split_once('/') {
            _ if text.starts_with("spiffe:") => parse_pattern(text).map(Whom::Id).map_err(|error| error.to_string()),
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Whom::Name(text.to_owned()))
            }
            Some(_) | None => Err("neither namespace/name nor a SPIFFE ID".to_owned()),
        };
        let whom = entry.parsed(parse, WHOM, faults)?;
        Some(Self { place: faults.place(entry.at()), whom })
    }
}

impl Rule {
    fn decode(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = entry.fields(faults)?;
        let place = faults.place(fields.at);
        let at = fields.at;
        let action = fields.required("action", faults).and_then(|field| field.choice(ACTIONS, faults));
        let direction = fields.required("direction", faults).and_then(|field| field.choice(DIRECTIONS, faults));
        let enforcement = fields
            .optional("enforcement")
            .map_or(Some(Enforcement::Enforce), |field| field.choice(ENFORCEMENTS, faults));
        let peers = list(fields.optional("peers"), faults, |entry, faults| {
            entry.parsed(parse_pattern, "an ID, or all under a path: spiffe://example.com/myapp/*", faults)
        });
        let cidrs = list(fields.optional("cidrs"), faults, cidr);
        let ports = list(fields.optional("ports"), faults, ports);
        fields.finish(faults);
        if action == Some(Action::Allow) && peers.as_ref().is_some_and(Vec::is_empty) {
            let help = "say whom by peers; cidrs and ports only narrow that";
            faults.error(at, &entry.path, "an allow without peers: an address is no identity, and admits nobody", help);
        }
        let rule = PolicyRule {
            action: action?,
            direction: direction?,
            enforcement: enforcement?,
            peers: peers?,
            cidrs: cidrs?,
            ports: ports?,
        };
        Some(Self { place, rule })
    }
}

/// A condition that is left out holds always. One that is written and empty would hold never, or always,
/// as the reader takes it: it is a fault. None: it has faults.
fn list<'n, T>(
    field: Option<Field<'n>>,
    faults: &mut Faults<'_>,
    decode: impl Fn(&Field<'n>, &mut Faults<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(field) = field else { return Some(Vec::new()) };
    let entries = field.list(faults)?;
    if entries.is_empty() {
        faults.error(field.at(), &field.path, "is empty", "leave it out where it is no condition");
        return None;
    }
    // All of them are looked at before one that is wrong takes the whole away.
    entries.iter().map(|entry| decode(entry, faults)).collect::<Vec<_>>().into_iter().collect()
}

/// A CIDR, or an address alone.
fn cidr(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<Prefix> {
    match &entry.node.value {
        Value::Text(text) if text.parse::<IpAddr>().is_ok() => entry.ip(faults).map(Prefix::host),
        Value::Text(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => entry.cidr(faults),
    }
    .filter(|prefix| !in_ipv6_clothes(prefix, entry, faults))
}

/// Callers are compared as the IPv4 address that they are, so such a rule would never match.
fn in_ipv6_clothes(prefix: &Prefix, entry: &Field<'_>, faults: &mut Faults<'_>) -> bool {
    let mapped = prefix.address.is_ipv6() && prefix.length >= 96 && prefix.address.to_canonical().is_ipv4();
    if mapped {
        faults.refuse(entry, "an IPv4 address in IPv6 clothes", "write it as IPv4");
    }
    mapped
}

/// `5432`, or `8000-8100`.
fn ports(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<PortRange> {
    entry.number_or_text(faults);
    match &entry.node.value {
        Value::Integer(_) => entry.integer(1..=65_535, faults).and_then(|port| PortRange::new(port, port)),
        Value::Text(_) | Value::Null | Value::Bool(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {
            let parse = |text: &str| match text.parse::<u16>() {
                Ok(port) => PortRange::new(port, port).ok_or("not a port"),
                Err(_) => text.parse(),
            };
            entry.parsed(parse, "a port such as 5432, or a range such as 8000-8100", faults)
        }
    }
}

const WHOM: &str = "a WorkloadIdentity such as myapp/backend, or SPIFFE IDs such as spiffe://example.com/myapp/*";
const ACTIONS: &[(&str, Action)] = &[(Action::Allow.name(), Action::Allow), (Action::Deny.name(), Action::Deny)];
const DIRECTIONS: &[(&str, RuleDirection)] = &[
    (RuleDirection::Inbound.name(), RuleDirection::Inbound),
    (RuleDirection::Outbound.name(), RuleDirection::Outbound),
];
const ENFORCEMENTS: &[(&str, Enforcement)] =
    &[(Enforcement::Enforce.name(), Enforcement::Enforce), (Enforcement::Shadow.name(), Enforcement::Shadow)];
