//! What calls that were recorded come to under another snapshot.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{Direction, RefuseReason};

/// All calls that one policy decides alike: whoever made them, from one address to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub direction: Direction,
    /// `namespace/name` of the local workload.
    pub workload: Option<String>,
    pub client: IpAddr,
    pub server: SocketAddr,
    /// What the other side proved to be.
    pub peer_id: Option<String>,
    /// False: the wire side was plain.
    pub tls: bool,
    pub connections: u64,
    /// Seconds since the epoch.
    pub last_seen: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Allowed {
        rule: Option<String>,
    },
    Refused {
        reason: RefuseReason,
        rule: Option<String>,
        detail: Option<String>,
    },
    /// The other side would have to show a certificate, and has shown none so far.
    Open {
        rule: Option<String>,
    },
}

impl Outcome {
    /// Whether a change from one to the other is worth telling.
    pub fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// A flow whose outcome the other snapshot changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    pub flow: Flow,
    /// By the snapshot in force, and by the other.
    pub now: Outcome,
    pub then: Outcome,
}

/// How much there was to go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recorded {
    /// Flows that were decided again, and their connections.
    pub flows: u64,
    pub connections: u64,
    /// When the dataplane began to record, in seconds since the epoch.
    pub since: u64,
    /// Connections since then that are in no flow: the record was full, or their reports found no room.
    pub lost: u64,
}
