//! The rules of policies as tables: whether one matches is a few probes, however many there are.
//!
//! Each combination of a peer, a CIDR and a block of ports is an entry under the exact key of the three.
//! A call is asked about once for each shape that entries have (does it name a peer, so many bits of the
//! address, so many of the port) with its own ID, address and port cut to that shape: the tuple space
//! search that Open vSwitch classifies with. A policy has few shapes: most often one or two.
//!
//! ```text
//!   deny spiffe://a/b/* from 203.0.113.0/24 port 8000-8003   ─▶   shape (under, IPv4 24, 14)
//!                                                                 key   (spiffe://a/b/, 203.0.113.0, 8000)
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ::snapshot::{Action, Block, Enforcement, IdPattern, Policy, PolicyRule, Prefix, RuleDirection, RuleId};

use crate::planted::{self, Bug};
use crate::snapshot::Compiled;
use crate::snapshot::addresses::Map;

/// Between which addresses a call goes, as rules see them: an IPv4 address in IPv6 clothes is the IPv4
/// address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub client: IpAddr,
    pub server: SocketAddr,
}

impl Ends {
    /// What a rule of `direction` has its conditions on, for a peer that is `id`.
    pub fn seen<'i>(&self, direction: RuleDirection, id: Option<&'i str>) -> Seen<'i> {
        let address = match direction {
            RuleDirection::Inbound => self.client,
            RuleDirection::Outbound => self.server.ip(),
        };
        Seen { direction, id, address, port: self.server.port() }
    }
}

/// One call from where one workload's rules stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'i> {
    pub direction: RuleDirection,
    /// None: the other side has no SPIFFE ID, or it is not known yet.
    pub id: Option<&'i str>,
    /// The other side's.
    pub address: IpAddr,
    /// The one that is called.
    pub port: u16,
}

/// Which rules count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    /// Those that are enforced: what happens.
    Enforced,
    /// Those in shadow too: what would.
    WithShadow,
}

/// One policy, compiled.
#[derive(Debug)]
pub struct Rules {
    name: Box<str>,
    /// Of its first rule.
    first: RuleId,
    tables: Arc<Tables>,
}

/// What a policy's rules come to, whatever numbers a snapshot gives them: taken over as long as they do
/// not change, and with it what they have decided.
#[derive(Debug)]
struct Tables {
    rules: Vec<PolicyRule>,
    /// Of each rule. Every core counts here, so the addition is atomic; one a connection is no matter.
    hits: Vec<AtomicU64>,
    /// By [`Part::index`].
    parts: [Table; 8],
}

/// Rules that are asked about together.
#[derive(Debug, Clone, Copy)]
struct Part {
    action: Action,
    direction: RuleDirection,
    enforcement: Enforcement,
}

impl Part {
    fn index(self) -> usize {
        let action = match self.action {
            Action::Allow => 0,
            Action::Deny => 1,
        };
        let direction = match self.direction {
            RuleDirection::Inbound => 0,
            RuleDirection::Outbound => 2,
        };
        let enforcement = match self.enforcement {
            Enforcement::Enforce => 0,
            Enforcement::Shadow => 4,
        };
        action + direction + enforcement
    }
}

impl Rules {
    /// `before`: the policy of this name in the snapshot before.
    pub fn compile(policy: &Policy, before: Option<&Self>) -> Self {
        let tables = match before {
            Some(before) if before.tables.rules == policy.rules => before.tables.clone(),
            Some(before) => Arc::new(Tables::new(policy.rules.clone(), Some(&before.tables))),
            None => Arc::new(Tables::new(policy.rules.clone(), None)),
        };
        Self { name: policy.name.as_str().into(), first: policy.first, tables }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn first(&self) -> RuleId {
        self.first
    }

    /// The first rule with this action that matches.
    pub fn find(&self, action: Action, trial: Trial, seen: &Seen<'_>) -> Option<RuleId> {
        let of = |enforcement| {
            let part = Part { action, direction: seen.direction, enforcement };
            self.tables.parts[part.index()].find(seen)
        };
        let enforced = of(Enforcement::Enforce);
        let found = match trial {
            Trial::Enforced if !planted::is(Bug::ShadowEnforced) => enforced,
            Trial::Enforced | Trial::WithShadow => [enforced, of(Enforcement::Shadow)].into_iter().flatten().min(),
        };
        found.map(|nth| self.id(nth as usize))
    }

    /// Whether there is a rule of this kind.
    pub fn has(&self, action: Action, direction: RuleDirection, enforcement: Enforcement) -> bool {
        !self.tables.parts[Part { action, direction, enforcement }.index()].shapes.is_empty()
    }

    /// Each with its number in the snapshot.
    pub fn all(&self) -> impl Iterator<Item = (RuleId, &PolicyRule)> {
        self.tables.rules.iter().enumerate().map(|(nth, rule)| (self.id(nth), rule))
    }

    pub fn rule(&self, id: RuleId) -> Option<&PolicyRule> {
        self.tables.rules.get(self.nth(id)?)
    }

    /// Counts a call that the rule has decided, or would have.
    pub fn hit(&self, id: RuleId) {
        if let Some(hits) = self.nth(id).and_then(|nth| self.tables.hits.get(nth)) {
            hits.fetch_add(1, Relaxed);
        }
    }

    /// Those that decided something, and how often.
    pub fn hits(&self) -> impl Iterator<Item = (RuleId, u64)> {
        let counted = self.tables.hits.iter().enumerate().map(|(nth, hits)| (self.id(nth), hits.load(Relaxed)));
        counted.filter(|(_, hits)| *hits > 0)
    }

    fn id(&self, nth: usize) -> RuleId {
        RuleId(self.first.0 + nth as u32)
    }

    fn nth(&self, id: RuleId) -> Option<usize> {
        id.0.checked_sub(self.first.0).map(|nth| nth as usize)
    }
}

impl Compiled {
    /// The first rule with this action that matches among those that name the workload.
    pub(super) fn first_rule(&self, workload: usize, action: Action, trial: Trial, seen: &Seen<'_>) -> Option<RuleId> {
        if planted::is(Bug::DenySkipped) && action == Action::Deny {
            return None;
        }
        self.workloads[workload].policies.iter().find_map(|rules| rules.find(action, trial, seen))
    }

    /// Whether a rule of this kind names the workload.
    pub fn has_rule(
        &self,
        workload: usize,
        action: Action,
        direction: RuleDirection,
        enforcement: Enforcement,
    ) -> bool {
        self.workloads[workload].policies.iter().any(|rules| rules.has(action, direction, enforcement))
    }

    /// All rules of a direction that name the workload, in the order in which they are asked.
    pub(super) fn rules_of(
        &self,
        workload: usize,
        direction: RuleDirection,
    ) -> impl Iterator<Item = (RuleId, &PolicyRule)> {
        let all = self.workloads[workload].policies.iter().flat_map(|rules| rules.all());
        all.filter(move |(_, rule)| rule.direction == direction)
    }

    /// The policy's rule of this number; None where it is another kind of rule.
    pub fn policy_rule(&self, id: RuleId) -> Option<&PolicyRule> {
        self.policy_of(id)?.rule(id)
    }

    /// Counts a call that the rule has decided, or in shadow would have.
    pub fn hit(&self, id: RuleId) {
        if let Some(policy) = self.policy_of(id) {
            policy.hit(id);
        }
    }

    fn policy_of(&self, id: RuleId) -> Option<&Rules> {
        let after = self.policies.partition_point(|rules| rules.first <= id);
        self.policies.get(after.checked_sub(1)?).map(|rules| &**rules)
    }
}

impl Tables {
    fn new(rules: Vec<PolicyRule>, before: Option<&Self>) -> Self {
        let mut parts: [Table; 8] = std::array::from_fn(|_| Table::default());
        for (nth, rule) in rules.iter().enumerate() {
            let part = Part { action: rule.action, direction: rule.direction, enforcement: rule.enforcement };
            parts[part.index()].insert(nth as u32, rule);
        }
        // A rule that stands as it did goes on counting, wherever it stands now.
        let mut counted: Map<&PolicyRule, u64> = Map::default();
        if let Some(before) = before {
            counted.extend(before.rules.iter().zip(before.hits.iter().map(|hits| hits.load(Relaxed))));
        }
        let hits = rules.iter().map(|rule| AtomicU64::new(counted.get(rule).copied().unwrap_or(0))).collect();
        Self { hits, parts, rules }
    }
}

/// The entries of some rules, by shape.
#[derive(Debug, Default)]
struct Table {
    /// The peers that entries name, numbered from 1.
    exact: Map<Box<str>, u32>,
    under: Map<Box<str>, u32>,
    /// Bytes of the longest key of `under`: no longer beginning of an ID has to be asked about.
    longest: usize,
    shapes: Vec<(Shape, Map<Key, u32>)>,
}

/// Whom an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Anyone,
    Exact,
    Under,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    whose: Whose,
    /// The address's family is IPv4, and so many of its bits. None: any address.
    network: Option<(bool, u8)>,
    port_bits: u8,
}

/// Of an entry within its shape: peer (0: anyone), network, first port.
type Key = (u32, u128, u16);

impl Table {
    fn insert(&mut self, nth: u32, rule: &PolicyRule) {
        let mut blocks: Vec<Block> = match rule.ports.as_slice() {
            [] => vec![Block::ANY],
            ranges => ranges.iter().flat_map(|range| Block::of(*range)).collect(),
        };
        if planted::is(Bug::RangeCutShort) && blocks.len() > 1 {
            blocks.pop();
        }
        let networks: Vec<Option<Prefix>> = match rule.cidrs.as_slice() {
            [] => vec![None],
            // Cut to its length, whatever came.
            cidrs => cidrs.iter().map(|cidr| Some(Prefix::new(cidr.address, cidr.length))).collect(),
        };
        let peers: Vec<(Whose, u32)> = match rule.peers.as_slice() {
            [] => vec![(Whose::Anyone, 0)],
            patterns => patterns.iter().map(|pattern| self.number(pattern)).collect(),
        };
        for &(whose, peer) in &peers {
            for network in &networks {
                for block in &blocks {
                    let family = network.map(|prefix| (prefix.address.is_ipv4(), prefix.length));
                    let shape = Shape { whose, network: family, port_bits: block.length };
                    let key = (peer, network.map_or(0, |prefix| bits(prefix.address)), block.first);
                    // The first rule of several with the same entry keeps it.
                    self.entries(shape).entry(key).or_insert(nth);
                }
            }
        }
    }

    fn number(&mut self, pattern: &IdPattern) -> (Whose, u32) {
        let next = (self.exact.len() + self.under.len()) as u32 + 1;
        match pattern {
            IdPattern::Exact(id) => (Whose::Exact, *self.exact.entry(id.as_str().into()).or_insert(next)),
            IdPattern::Under(prefix) => {
                self.longest = self.longest.max(prefix.len());
                (Whose::Under, *self.under.entry(prefix.as_str().into()).or_insert(next))
            }
        }
    }

    fn entries(&mut self, shape: Shape) -> &mut Map<Key, u32> {
        let at = self.shapes.iter().position(|(have, _)| *have == shape).unwrap_or_else(|| {
            self.shapes.push((shape, Map::default()));
            self.shapes.len() - 1
        });
        &mut self.shapes[at].1
    }

    /// The number of the first rule that matches.
    fn find(&self, seen: &Seen<'_>) -> Option<u32> {
        let exact = seen.id.and_then(|id| self.exact.get(id)).copied();
        let mut first: Option<u32> = None;
        for (shape, entries) in &self.shapes {
            let Some(network) = shape.cut(seen.address) else { continue };
            let port = Block::around(seen.port, shape.port_bits).first;
            let ask = |peer: u32| entries.get(&(peer, network, port)).copied();
            let found = match shape.whose {
                Whose::Anyone => ask(0),
                Whose::Exact => exact.and_then(ask),
                Whose::Under => self.above(seen.id).filter_map(ask).min(),
            };
            first = [first, found].into_iter().flatten().min();
        }
        first
    }

    /// The numbers of the patterns that an ID is under.
    fn above(&self, id: Option<&str>) -> impl Iterator<Item = u32> {
        let id = id.unwrap_or_default();
        let slashes = id.bytes().take(self.longest).enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at + 1);
        let beginnings = slashes.filter(|end| *end < id.len()).map(|end| &id[..end]);
        beginnings.filter_map(|beginning| self.under.get(beginning).copied())
    }
}

impl Shape {
    /// The address's network of this shape; None if it is of the other family.
    fn cut(&self, address: IpAddr) -> Option<u128> {
        match self.network {
            None => Some(0),
            Some((v4, _)) if v4 != address.is_ipv4() && !planted::is(Bug::FamiliesMixed) => None,
            Some((_, length)) => Some(bits(Prefix::new(address, length).address)),
        }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}
