//! What the dataplane tells about itself: connections, counters, cores, verdicts.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{Admitted, AuditStatus, CloseReason, RefuseReason, Side, TlsMode, Version};

/// Which way a connection crosses this gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the wire to a workload of this node.
    Inbound,
    /// From a workload of this node to the wire.
    Egress,
    /// Between two workloads of this node.
    Local,
}

/// One connection: live, refused or closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Unique on this dataplane since it started.
    pub id: u64,
    pub core: u32,
    pub direction: Direction,
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// What the far side sees the call come from, where that is not `client` (`source: node`).
    pub source: Option<SocketAddr>,
    /// `namespace/name` of the local workload, and its SPIFFE ID.
    pub workload: Option<String>,
    pub local_id: Option<String>,
    /// The other side's SPIFFE ID, once it was verified (also if policy then refused it).
    pub peer_id: Option<String>,
    pub mode: Option<TlsMode>,
    /// None: the wire side is plain.
    pub tls: Option<TlsReport>,
    pub state: String,
    pub refused: Option<RefuseReason>,
    pub closed: Option<CloseReason>,
    /// More about the reason than its meaning says: what was expected and what came.
    pub detail: Option<String>,
    /// The rule that decided, and where it stands.
    pub rule: Option<String>,
    /// What a rule in shadow would have made of it: `would be refused by shop/partners spec.rules[0] (p.yaml:9)`.
    pub shadow: Option<String>,
    /// The snapshot that it was last decided under.
    pub version: Version,
    /// Milliseconds since the epoch. People and their programs read seconds, as everywhere.
    #[serde(with = "seconds")]
    pub opened_at: u64,
    #[serde(with = "seconds_or_none")]
    pub ended_at: Option<u64>,
    /// Payload bytes from the client to the server, and back.
    #[serde(rename = "from_client")]
    pub sent: u64,
    #[serde(rename = "to_client")]
    pub received: u64,
    /// Of one that a change took its permission from: the snapshot before, by which it was allowed.
    pub allowed_by: Option<Version>,
    /// Which selector matched the process that called, and what was found of it. None: the address alone
    /// says who calls.
    pub attested: Option<String>,
    /// The endpoint that was chosen, where `server` is a virtual address.
    pub endpoint: Option<SocketAddr>,
    /// Of one that was let in by this node: why. None: a call to elsewhere, or one that was refused.
    pub admitted: Option<Admitted>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TlsReport {
    /// `TLSv1.3`, `X25519MLKEM768`, `TLS13_AES_128_GCM_SHA256`.
    pub version: String,
    pub group: String,
    pub cipher: String,
    /// Serial of the SVID that we used, and of the certificate that the peer showed.
    pub local_serial: Option<String>,
    pub peer_serial: Option<String>,
    /// Seconds since the epoch.
    pub peer_not_after: Option<u64>,
    /// Which root its chain led to, by the name that `sluice bundle -o json` has for it.
    pub peer_root: Option<String>,
    /// By a ticket, so that no certificate was shown on this connection.
    pub resumed: bool,
}

/// Counters since the dataplane started, by name, with zeros left out of nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Counters {
    pub dropped: Vec<(String, u64)>,
    pub refused: Vec<(String, u64)>,
    pub closed: Vec<(String, u64)>,
    /// Outcomes of the steering program, summed over CPUs.
    pub steering: Vec<(String, u64)>,
    /// Everything else: packets, bytes, handshakes, sessions opened, gauges.
    pub totals: Vec<(String, u64)>,
    /// Lines that the audit log left out, by what was decided.
    pub audit_omitted: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CoreReport {
    pub core: u32,
    pub sessions: u64,
    pub handshakes: u64,
    pub frames_free: u64,
    pub frames: u64,
    pub flows: u64,
    pub turns: u64,
    pub version: Option<Version>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortReport {
    pub interface: String,
    pub side: Side,
    pub up: bool,
    /// `native, copy`.
    pub xdp: String,
    pub mtu: u32,
    pub queues: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub pid: u32,
    pub build: String,
    /// Seconds since the epoch.
    pub started_at: u64,
    /// The lowest version that all cores have adopted.
    pub in_force: Option<Version>,
    pub network_revision: u64,
    pub ports: Vec<PortReport>,
    pub cores: Vec<CoreReport>,
    /// Why the last snapshot that was refused was refused.
    pub last_nack: Option<String>,
    /// SVIDs that came and cannot be used, and why: their workloads have none, or still the one before.
    pub unusable: Vec<String>,
    /// None: there is no audit log.
    pub audit: Option<AuditStatus>,
}

/// What would happen to a new connection now, by the tables in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    pub direction: Option<Direction>,
    pub allowed: bool,
    /// Allowed under one condition: the caller shows a certificate of one of these.
    pub only_with: Option<String>,
    /// Not captured at all: the kernel forwards it untouched.
    pub passed: bool,
    pub mode: Option<TlsMode>,
    pub refused: Option<RefuseReason>,
    pub rule: Option<String>,
    pub version: Version,
    /// The steps of the decision, one sentence each.
    pub steps: Vec<String>,
    /// Neither allowed nor refused: the caller's address is one of these SPIFFE IDs', and its process decides whose.
    #[serde(default)]
    pub undecided: Vec<String>,
}

/// Who calls, in an explain query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    Id(String),
    /// A SPIFFE ID, and where it calls from.
    IdAt(String, IpAddr),
    Address(IpAddr),
}

/// Milliseconds that are written as seconds with a fraction wherever people read them, so that JSON
/// has one unit of time. Between the processes they stay what they are.
mod seconds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(millis: &u64, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { (*millis as f64 / 1000.0).serialize(to) } else { millis.serialize(to) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        if from.is_human_readable() {
            f64::deserialize(from).map(|seconds| (seconds * 1000.0).round() as u64)
        } else {
            u64::deserialize(from)
        }
    }
}

mod seconds_or_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Millis(#[serde(with = "super::seconds")] u64);

    pub fn serialize<S: Serializer>(millis: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        millis.map(Millis).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        Ok(Option::<Millis>::deserialize(from)?.map(|Millis(millis)| millis))
    }
}
