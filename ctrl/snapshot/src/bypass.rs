//! `connection.bypass`: who may call a port of a workload in plain TCP although it is MUTUAL, by exact
//! source address and exact port: a kubelet, a load balancer that asks whether a service is well.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::RuleId;

/// One entry: each of its sources may call each of its ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bypass {
    pub rule: RuleId,
    /// Single addresses: an IPv4 address in IPv6 clothes is the IPv4 address.
    pub sources: Vec<IpAddr>,
    pub ports: Vec<u16>,
    /// Those of `sources` that are the node's own: its kernel's packets never come over a port, so what does
    /// with such a source is forged. AF_XDP takes it before the kernel could drop it as a martian.
    pub node: Vec<IpAddr>,
}

impl Bypass {
    /// Whether it lets in a call that came from the wire.
    pub fn holds(&self, source: IpAddr, port: u16) -> bool {
        self.ports.contains(&port) && self.sources.contains(&source) && !self.node.contains(&source)
    }

    pub fn pairs(&self) -> impl Iterator<Item = (IpAddr, u16)> {
        self.sources.iter().flat_map(|source| self.ports.iter().map(|port| (*source, *port)))
    }
}

/// Entries of one workload, and pairs of a source and a port in all of them: they are walked.
pub const MOST_ENTRIES: usize = 32;
pub const MOST_PAIRS: usize = 256;

/// Why such entries are not taken. Exact, whatever came: an address of nobody would be everybody's.
pub(crate) fn fault(entries: &[Bypass]) -> Option<String> {
    if entries.len() > MOST_ENTRIES {
        return Some(format!("{} entries, at most {MOST_ENTRIES} are taken", entries.len()));
    }
    let pairs = entries.iter().map(|entry| entry.sources.len().saturating_mul(entry.ports.len()));
    let pairs = pairs.fold(0, usize::saturating_add);
    if pairs > MOST_PAIRS {
        return Some(format!("{pairs} pairs of a source and a port, at most {MOST_PAIRS} are taken"));
    }
    let wrong = entries.iter().flat_map(Bypass::pairs).find(|(source, port)| !is_host(*source) || *port == 0);
    wrong.map(|(source, port)| format!("{source} port {port} is no single host, or no port"))
}

/// Whether it can be the source of somebody's packets, and of no other's.
pub fn is_host(address: IpAddr) -> bool {
    let broadcast = address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST);
    !address.is_unspecified() && !address.is_multicast() && !broadcast && address == address.to_canonical()
}

/// What one entry has let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BypassHits {
    /// `shop/backend spec.connection.bypass[0] (policy.yaml:12)`, as every view names it.
    pub rule: String,
    /// Connections that this gateway relayed, since the dataplane started.
    pub connections: u64,
    /// SYNs of the node itself, which go to the workload without passing through the gateway.
    pub from_node: u64,
}

/// Why a call was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Admitted {
    /// It showed who it is, or is attested here, and a list or a rule names it, or none restricts it.
    Identity,
    /// The mode serves callers that show nothing: plain ones under PERMISSIVE, all under SIMPLE and DISABLE.
    Mode,
    /// Plain to a MUTUAL port, from an address and to a port that an entry of `connection.bypass` names.
    Bypass,
}

impl Admitted {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Mode => "mode",
            Self::Bypass => "bypass",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_single_host_or_too_much_is_not_taken() {
        let entry = |source: &str, ports: std::ops::Range<u16>| Bypass {
            rule: RuleId(0),
            sources: vec![source.parse().unwrap()],
            ports: ports.collect(),
            node: vec![],
        };
        let most = MOST_PAIRS as u16;
        for (entries, want) in [
            (vec![entry("198.18.9.1", 1..most + 1)], true),
            (vec![entry("198.18.9.1", 1..most + 1), entry("198.18.9.1", 80..81)], false),
            (vec![entry("198.18.9.1", 80..80); MOST_ENTRIES], true),
            (vec![entry("198.18.9.1", 80..80); MOST_ENTRIES + 1], false),
            (vec![entry("198.18.9.1", 0..1)], false),
            (vec![entry("0.0.0.0", 80..81)], false),
            (vec![entry("::", 80..81)], false),
            (vec![entry("::ffff:198.18.9.1", 80..81)], false),
            (vec![entry("255.255.255.255", 80..81)], false),
            (vec![entry("ff02::1", 80..81)], false),
        ] {
            assert_eq!(fault(&entries).is_none(), want, "{entries:?}");
        }
    }

    #[test]
    fn an_entry_holds_exactly_its_sources_on_exactly_its_ports() {
        let [a, b, c]: [IpAddr; 3] = ["198.18.9.1", "2001:db8::1", "198.18.9.2"].map(|at| at.parse().unwrap());
        let mut entry = Bypass { rule: RuleId(0), sources: vec![a, b], ports: vec![80, 443], node: vec![] };
        for (source, port, want) in
            [(a, 80, true), (b, 443, true), (a, 81, false), (c, 80, false), ("::".parse().unwrap(), 80, false)]
        {
            assert_eq!(entry.holds(source, port), want, "{source} {port}");
        }
        entry.node = vec![a];
        assert_eq!((entry.holds(a, 80), entry.holds(b, 80)), (false, true), "the node does not call over the wire");
        assert_eq!(entry.pairs().collect::<Vec<_>>(), [(a, 80), (a, 443), (b, 80), (b, 443)]);
    }
}
