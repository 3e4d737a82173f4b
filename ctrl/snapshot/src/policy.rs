//! Who may call whom: modes, allow lists, egress rules, services.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// `connection.tls.mode`. What each means in each direction is decision D11 of ARCHITECTURE.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TlsMode {
    /// Both sides prove an identity.
    Mutual,
    /// Inbound: mTLS where the caller offers TLS, plain otherwise. Egress: plain.
    Permissive,
    /// Only the server proves an identity.
    Simple,
    /// Not touched at all, for services that do their own TLS.
    Disable,
}

impl TlsMode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mutual => "MUTUAL",
            Self::Permissive => "PERMISSIVE",
            Self::Simple => "SIMPLE",
            Self::Disable => "DISABLE",
        }
    }
}

/// What a call that no egress rule matches gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    Pass,
    Refuse,
}

/// Which address the far side of a call sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceAddress {
    /// The caller's own address and port.
    #[default]
    Preserve,
    /// An address of the node and a port of its choosing, for a far side that cannot route back to the
    /// caller.
    Node,
}

impl SourceAddress {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preserve => "preserve",
            Self::Node => "node",
        }
    }
}

/// One entry of an allow list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum IdPattern {
    Exact(String),
    /// Everything under a path: `spiffe://example.com/myapp/` for `spiffe://example.com/myapp/*`.
    Under(String),
}

impl IdPattern {
    pub fn matches(&self, id: &str) -> bool {
        match self {
            Self::Exact(want) => want == id,
            Self::Under(prefix) => id.len() > prefix.len() && id.starts_with(prefix.as_str()),
        }
    }
}

impl std::fmt::Display for IdPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(id) => f.write_str(id),
            Self::Under(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// Index into [`crate::Snapshot::rules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleId(pub u32);

/// Where a rule stands, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSource {
    /// `riptides-system/frontend spec.egress[0]`.
    pub name: String,
    /// `policy.yaml:31`, relative to the configuration directory.
    pub place: String,
}

/// One entry of `spec.egress`, its selectors already resolved to services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EgressRule {
    pub id: RuleId,
    /// Indices into [`crate::Snapshot::services`].
    pub services: Vec<u32>,
    /// None: the workload's own mode.
    pub mode: Option<TlsMode>,
    /// `allowedSPIFFEIDs` of this entry; ANDed with the workload's `outbound`.
    pub allowed: Option<Vec<IdPattern>>,
    pub source: SourceAddress,
}

/// A `Service` with its addresses resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `namespace/name` of the resource.
    pub name: String,
    pub endpoints: Vec<Endpoint>,
    pub virtual_addresses: Vec<crate::VirtualAddress>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// The name that resolved to it, for SNI; None where the resource gave an address.
    pub host: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_star_admits_what_is_under_the_path_and_not_the_path_itself() {
        let under = IdPattern::Under("spiffe://example.com/myapp/".into());
        assert!(under.matches("spiffe://example.com/myapp/app/frontend"));
        assert!(!under.matches("spiffe://example.com/myapp/"));
        assert!(!under.matches("spiffe://example.com/myapp"));
        assert!(!under.matches("spiffe://example.com/myapp2/x"));
        assert!(!IdPattern::Exact("spiffe://example.com/a".into()).matches("spiffe://example.com/a/b"));
    }
}
