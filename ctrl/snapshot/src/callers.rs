//! Who calls the workloads of this node, by mTLS or plain: what a switch to MUTUAL is judged by.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::TlsMode;

/// A workload, and whom it was called by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// `namespace/name`.
    pub workload: String,
    /// By the snapshot in force.
    pub mode: TlsMode,
    /// Whether it has an inbound list, or a rule that allows callers: under MUTUAL nobody calls without.
    pub admits: bool,
    pub callers: Vec<Caller>,
}

/// Callers of the same name on the same port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    pub name: CallerName,
    /// None: ports of [`CallerName::Others`].
    pub port: Option<u16>,
    /// Of that port, by the snapshot in force.
    pub mode: TlsMode,
    /// False: plain.
    pub mtls: bool,
    pub connections: u64,
    /// Seconds since the epoch.
    pub last_seen: u64,
    /// A plain one whose address has called by mTLS after its last plain call: when that was.
    pub mtls_since: Option<u64>,
    /// A plain one that `connection.bypass` lets in under MUTUAL too.
    pub bypasses: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallerName {
    Id(String),
    /// Of a plain one nothing else is known.
    Address(IpAddr),
    /// All that the table had no room for.
    Others,
}

/// How long a plain call counts, in seconds.
pub const COUNTS_FOR: u64 = 86_400;

impl Caller {
    /// Whether MUTUAL would refuse it, as far as one can tell at `now`.
    pub fn would_be_refused(&self, now: u64) -> bool {
        !self.mtls && !self.bypasses && self.mtls_since.is_none() && now.saturating_sub(self.last_seen) < COUNTS_FOR
    }
}
