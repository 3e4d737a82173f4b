//! Who runs on this node: workloads, the places their packets come from, their SVIDs; and the
//! trust bundles that peers are verified against.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    Bypass, EgressRule, IdPattern, Living, ProcessSelector, ProxyHeaders, Resumption, RuleId, TlsMode, Unmatched,
};

/// A `WorkloadIdentity` with all its selectors resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// `namespace/name` of the resource.
    pub name: String,
    pub spiffe_id: String,
    /// Where its packets come from and go to. None: it is known, but not on this node.
    pub places: Vec<Place>,
    /// None while no identity could be had: the one that the snapshot before had for this SPIFFE ID stays
    /// until it ends, and then what needs one is refused (`NoSvid`).
    pub svid: Option<Svid>,
    /// `spec.connection.tls.mode`.
    pub mode: TlsMode,
    /// Modes of single service ports, where they differ.
    pub ports: Vec<(u16, TlsMode)>,
    /// `allowedSPIFFEIDs.inbound`; no list and an empty list both admit nobody under MUTUAL.
    pub inbound: Option<Vec<IdPattern>>,
    pub inbound_rule: RuleId,
    /// `allowedSPIFFEIDs.outbound`; no list does not restrict, an empty list admits nobody.
    pub outbound: Option<Vec<IdPattern>>,
    pub outbound_rule: RuleId,
    pub egress: Vec<EgressRule>,
    /// Indices into [`crate::Snapshot::policies`]: those that name it.
    pub policies: Vec<u32>,
    /// What happens to calls that no egress rule matches.
    pub unmatched_egress: Unmatched,
    /// What says so; None where nothing does, and such calls pass.
    pub unmatched_rule: Option<RuleId>,
    /// What its service is sent before each connection's first byte.
    pub proxy: ProxyHeaders,
    pub living: Living,
    /// `connection.bypass`: plain callers of its MUTUAL ports.
    pub bypass: Vec<Bypass>,
    /// The rules of the modes that serve callers who show no identity: of single ports, and of the others
    /// under 0.
    pub mode_rules: Vec<(u16, RuleId)>,
    /// Of its handshakes by mTLS, in both roles.
    pub resumption: Resumption,
}

/// An address range behind one inside port. Source address, port and MAC must agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub interface: String,
    pub prefix: Prefix,
    /// None until the neighbour is known: then address and port alone bind.
    pub mac: Option<[u8; 6]>,
    /// Empty: whoever sends from here is the workload. Else one of them has to match the process that
    /// does, and several workloads may have the place.
    pub processes: Vec<ProcessSelector>,
}

/// An IP prefix; bits of `address` past `length` are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Prefix {
    pub address: IpAddr,
    pub length: u8,
}

impl Prefix {
    /// The prefix of one address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// Cuts `address` to `length` bits. `length` over the family's width means one address.
    pub fn new(address: IpAddr, length: u8) -> Self {
        let host = Self::host(address);
        let length = length.min(host.length);
        let address = match address {
            IpAddr::V4(a) => {
                IpAddr::V4((a.to_bits() & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)).into())
            }
            IpAddr::V6(a) => {
                IpAddr::V6((a.to_bits() & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)).into())
            }
        };
        Self { address, length }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Self::new(address, self.length).address == self.address
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Names a private key that travels apart from the snapshot: SHA-256 of its SubjectPublicKeyInfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 32]);

/// An X.509-SVID without its key (SPIFFE X509-SVID §2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Svid {
    /// DER, leaf first, intermediates after, no root.
    pub chain: Vec<Vec<u8>>,
    pub key: KeyId,
    /// Lower-case hex, as OpenSSL prints it.
    pub serial: String,
    /// Seconds since the epoch.
    pub not_before: u64,
    pub not_after: u64,
}

/// The roots of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    pub trust_domain: String,
    /// DER certificates.
    pub roots: Vec<Vec<u8>>,
}

/// What makes a root the same root, whichever file, place or certificate it comes in: what a path is
/// built to. Its SHA-256 in lower-case hex names the root in both processes.
pub fn root_material(subject: &[u8], key: &[u8], constraints: Option<&[u8]>) -> Vec<u8> {
    let parts = [subject, key, constraints.unwrap_or_default()];
    parts.iter().flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.iter().copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_the_addresses_of_its_family_and_range_only() {
        let net = Prefix::new("198.18.1.77".parse().unwrap(), 24);
        assert_eq!(net.to_string(), "198.18.1.0/24");
        assert!(net.contains("198.18.1.255".parse().unwrap()));
        assert!(!net.contains("198.18.2.0".parse().unwrap()));
        assert!(!net.contains("2001:db8::1".parse().unwrap()));
        assert!(Prefix::new("0.0.0.0".parse().unwrap(), 0).contains("203.0.113.9".parse().unwrap()));
        assert!(Prefix::new("::".parse().unwrap(), 0).contains("2001:db8::1".parse().unwrap()));
    }
}
