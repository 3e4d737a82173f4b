//! The `Gateway` kind: this node's ports, cores, identity source, limits.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use snapshot::{Limits, OnAbsent, Port, Timeouts, Unmatched, Waiting};

use super::{Place, TrustDomain};

#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// `metadata.name`: the node's name in every view.
    pub name: String,
    pub place: Place,
    pub trust_domain: TrustDomain,
    pub ports: Vec<Port>,
    pub cores: Vec<u32>,
    pub waiting: Waiting,
    pub on_absent: OnAbsent,
    /// Names that are not asked of the system's resolver.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    pub identity: IdentitySource,
    pub admin: Admin,
    /// What a workload without a word of its own gets; None is `pass`.
    pub unmatched_egress: Option<Unmatched>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    /// A directory of a bpffs.
    pub pin_directory: String,
}

/// Where SVIDs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The node's intermediate CA in `directory` (relative to the configuration's).
    Embedded { directory: PathBuf, ttl: Duration },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    pub socket: PathBuf,
    /// None: no HTTP listener.
    pub metrics: Option<SocketAddr>,
}
