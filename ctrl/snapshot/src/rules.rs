//! The rules of `Policy` resources: explicit denies, allows under conditions, and rules that are only
//! tried.
//!
//! In words, since the tables that decide and the interpreter that checks them are both made from these:
//!
//! 1. A rule speaks about calls of its direction: inbound, those to the workloads that its policy names;
//!    outbound, those that they make. What DISABLE leaves alone inbound, no rule speaks about.
//! 2. It matches a call if all its conditions hold; one that is not written holds always.
//!    *peers*: the SPIFFE ID of the other side matches one of the patterns. The ID is the one proven by
//!    certificate, or the attested one between workloads of one node. Who has none matches no pattern.
//!    *cidrs*: one of them holds the caller's address (inbound) or the called one (outbound).
//!    *ports*: one of the ranges holds the called port.
//! 3. A call that an enforced deny matches is refused, whatever allows it. Of a call within one node the
//!    caller's outbound and the callee's inbound denies are asked.
//! 4. An enforced allow stands for an entry of the workload's own list of that direction, under
//!    conditions: where that list is asked, the call is admitted if the list or an allow admits it.
//!    Under MUTUAL inbound a list that is not there is asked like an empty one. Elsewhere an allow makes
//!    no list. It always names peers: an address is no identity, and admits nobody.
//! 5. A rule in shadow does neither. The call is decided a second time as if all rules in shadow were
//!    enforced; where that comes out differently, the rule that makes it so is counted and logged.

use serde::{Deserialize, Serialize};

use crate::gateway::PortRange;
use crate::{IdPattern, Prefix, RuleId};

/// A `Policy`. Workloads refer to it by its place in [`crate::Snapshot::policies`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// `namespace/name` of the resource.
    pub name: String,
    /// Of the first rule; the others follow one by one.
    pub first: RuleId,
    /// Of several that match, the first is the one that is named.
    pub rules: Vec<PolicyRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyRule {
    pub action: Action,
    pub direction: RuleDirection,
    pub enforcement: Enforcement,
    /// Empty: whoever it is, also without an identity.
    pub peers: Vec<IdPattern>,
    /// Empty: wherever it is.
    pub cidrs: Vec<Prefix>,
    /// Empty: any.
    pub ports: Vec<PortRange>,
}

impl PolicyRule {
    /// How many table entries it takes: one for each combination of a peer, a CIDR and a [`Block`].
    pub fn entries(&self) -> usize {
        let of = |count: usize| count.max(1);
        let blocks = self.ports.iter().map(|range| Block::of(*range).count()).sum();
        of(self.peers.len()).saturating_mul(of(self.cidrs.len())).saturating_mul(of(blocks))
    }
}

/// Ports that agree in their first `length` bits, as the addresses of a prefix do: any range is some of
/// these, 30 at the most, and whether one holds a port is a question to a hash table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    pub first: u16,
    pub length: u8,
}

impl Block {
    /// Every port.
    pub const ANY: Self = Self { first: 0, length: 0 };

    /// The fewest blocks that hold exactly the ports of a range.
    pub fn of(range: PortRange) -> impl Iterator<Item = Self> {
        let (mut next, end) = (u32::from(range.first()), u32::from(range.last()) + 1);
        std::iter::from_fn(move || {
            let left = end.checked_sub(next).filter(|left| *left > 0)?;
            // As many as the start is aligned to, and no more than there are.
            let bits = next.trailing_zeros().min(left.ilog2()).min(16);
            let first = u16::try_from(next).expect("below the end, which is 65536 at the most");
            next += 1 << bits;
            Some(Self { first, length: (16 - bits) as u8 })
        })
    }

    /// The block of that length that holds `port`.
    pub fn around(port: u16, length: u8) -> Self {
        let mask = u16::MAX.checked_shl(16 - u32::from(length.min(16))).unwrap_or(0);
        Self { first: port & mask, length }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleDirection {
    Inbound,
    Outbound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enforcement {
    #[default]
    Enforce,
    /// Tried: it decides nothing, and what it would have changed is counted and logged.
    Shadow,
}

impl Action {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl RuleDirection {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl Enforcement {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

/// `deny inbound spiffe://example.com/batch from 203.0.113.0/24 port 5432`, for people.
impl std::fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.action.name(), self.direction.name())?;
        if self.enforcement == Enforcement::Shadow {
            f.write_str(" (shadow)")?;
        }
        if !self.peers.is_empty() {
            write!(f, " {}", shown(&self.peers))?;
        }
        self.conditions(f)
    }
}

impl PolicyRule {
    /// ` from 203.0.113.0/24 port 5432`; nothing where there is neither.
    fn conditions(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.cidrs.is_empty() {
            let way = match self.direction {
                RuleDirection::Inbound => "from",
                RuleDirection::Outbound => "to",
            };
            write!(f, " {way} {}", shown(&self.cidrs))?;
        }
        if !self.ports.is_empty() {
            write!(f, " port {}", shown(&self.ports))?;
        }
        Ok(())
    }
}

/// The first few of a list.
fn shown(items: &[impl ToString]) -> String {
    const SHOWN: usize = 4;
    let first: Vec<_> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = items.len().saturating_sub(SHOWN);
    let first = first.join(" or ");
    if more > 0 { format!("{first} or {more} more") } else { first }
}

/// Calls that a rule has decided since it stands as it does: refused, admitted, or would have, by rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHits {
    /// `shop/partners spec.rules[0] (policy.yaml:12)`.
    pub rule: String,
    pub hits: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_reads_as_a_sentence_and_a_long_one_is_cut() {
        let mut rule = PolicyRule {
            action: Action::Deny,
            direction: RuleDirection::Inbound,
            enforcement: Enforcement::Shadow,
            peers: vec![IdPattern::Under("spiffe://a/b/".into()), IdPattern::Exact("spiffe://a/c".into())],
            cidrs: vec![Prefix::new("203.0.113.0".parse().unwrap(), 24)],
            ports: ["443-443", "8000-8100"].map(|range| range.parse().unwrap()).into(),
        };
        assert_eq!(
            rule.to_string(),
            "deny inbound (shadow) spiffe://a/b/* or spiffe://a/c from 203.0.113.0/24 port 443 or 8000-8100"
        );
        // 8000-8100 is 8000-8063, 8064-8095, 8096-8099 and 8100.
        assert_eq!(rule.entries(), 2 * (1 + 4));
        rule.ports = (1..=6).map(|port| PortRange::new(port, port).unwrap()).collect();
        (rule.peers, rule.cidrs, rule.direction) = (vec![], vec![], RuleDirection::Outbound);
        assert_eq!(rule.to_string(), "deny outbound (shadow) port 1 or 2 or 3 or 4 or 2 more");
    }

    #[test]
    fn blocks_hold_exactly_the_ports_of_their_range_each_once() {
        for (first, last) in [(1, 1), (1, 65_535), (80, 443), (32_768, 65_535), (65_535, 65_535), (1_023, 1_025)] {
            let blocks: Vec<_> = Block::of(PortRange::new(first, last).unwrap()).collect();
            assert!(blocks.len() <= 30, "{first}-{last}: {blocks:?}");
            for port in 0..=u16::MAX {
                let holding = blocks.iter().filter(|block| Block::around(port, block.length) == **block).count();
                assert_eq!(holding, usize::from((first..=last).contains(&port)), "{port} of {first}-{last}");
            }
        }
        assert_eq!(Block::around(9, 0), Block::ANY);
    }
}
