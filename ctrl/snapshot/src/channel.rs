//! The messages between ctrl and the dataplane, one per packet of a SOCK_SEQPACKET socket.
//!
//! ctrl listens at `<admin socket>.dataplane`; the dataplane connects, says [`ToCtrl::Hello`], gets
//! [`ToDataplane::Boot`], and from then on both speak when they have something to say. Whichever
//! died comes back and starts with Hello again. What is large travels as a sealed memfd beside its
//! message ([`crate::codec`]).

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::process::{Found, Question};
use crate::report::Caller;
use crate::{
    Boot, BypassHits, Called, ConnectionReport, Counters, EndpointLoad, Explanation, KeyId, Recorded, RuleHits, Status,
    Turned, Version,
};

/// Largest message; below the default send buffer of a Unix socket (net.core.wmem_default).
pub const MAX_MESSAGE: usize = 128 * 1024;

/// Most connections in one [`Reply::Connections`], so that it stays under [`MAX_MESSAGE`].
pub const CONNECTIONS_PER_REPLY: usize = 64;

/// Most rules in one [`Reply::Rules`], for the same reason: a name and a place take some hundred bytes.
pub const RULES_PER_REPLY: usize = 128;

/// Most callers in one [`Reply::Callers`]: a SPIFFE ID may have 2048 bytes.
pub const CALLERS_PER_REPLY: usize = 32;

/// Most flows in one [`Reply::Replayed`]: their names, and those of the rules of two outcomes.
pub const TURNED_PER_REPLY: usize = 8;

/// Most endpoints in one [`Reply::Endpoints`]: each takes less than a hundred bytes.
pub const ENDPOINTS_PER_REPLY: usize = 512;

/// Path of the channel's socket, given the admin socket's.
pub fn socket_path(admin: &std::path::Path) -> std::path::PathBuf {
    let mut path = admin.as_os_str().to_owned();
    path.push(".dataplane");
    path.into()
}

#[derive(Debug, Serialize, Deserialize)]
pub enum ToDataplane {
    /// First on every connection. A dataplane that already runs with another Boot says so by
    /// exiting: its supervisor starts it anew.
    Boot(Boot),
    /// Before the snapshot that refers to it.
    Key { id: KeyId, key: PrivateKey },
    /// A sealed memfd with a [`crate::Snapshot`] comes with it.
    Snapshot { version: Version },
    /// A sealed memfd with a [`crate::Network`] comes with it.
    Network { revision: u64 },
    /// With a sealed memfd if it is [`Query::Replay`].
    Query { id: u64, query: Query },
    /// To [`ToCtrl::Attest`].
    Attested { id: u64, found: Found },
}

#[derive(Debug, Serialize, Deserialize)]
pub enum ToCtrl {
    Hello {
        schema: u32,
        pid: u32,
        build: String,
        in_force: Option<Version>,
    },
    /// All cores have adopted it.
    Ack {
        version: Version,
    },
    /// Refused whole; the one before stays in force.
    Nack {
        version: Version,
        reason: String,
    },
    /// The kernel is asked to resolve this neighbour.
    Resolve {
        interface: String,
        address: IpAddr,
    },
    Reply {
        id: u64,
        reply: Reply,
    },
    /// A SYN is held until it is known who sent it. An answer that is late is for nobody.
    Attest {
        id: u64,
        question: Question,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    Status,
    Counters,
    Live,
    Refused,
    Closed,
    /// The rules of policies that have decided something.
    Rules,
    Explain {
        from: Caller,
        to: SocketAddr,
    },
    /// Live connections that a program of this node has with `peer`, from its own `local` if that is known.
    /// They are those of the [`Reply::Connections`].
    With {
        peer: SocketAddr,
        local: Option<SocketAddr>,
    },
    /// Who called the workloads of this node: all of them, or a workload or those behind a Service, by
    /// `namespace/name` or the name alone.
    Callers {
        of: Option<String>,
    },
    /// What each entry of `connection.bypass` has let through.
    Bypasses,
    /// What recorded calls, seen since so many seconds after the epoch, would come to under the
    /// [`crate::Snapshot`] that comes with it. It is not taken.
    Replay {
        since: u64,
    },
    /// What the cores know of endpoints behind virtual addresses.
    Endpoints,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Status(Status),
    Counters(Counters),
    /// At most [`CONNECTIONS_PER_REPLY`]; `more` until the last part.
    Connections {
        part: Vec<ConnectionReport>,
        more: bool,
    },
    /// At most [`RULES_PER_REPLY`]; `more` until the last part.
    Rules {
        part: Vec<RuleHits>,
        more: bool,
    },
    Explanation(Explanation),
    /// At most [`CALLERS_PER_REPLY`]; `more` until the last part. A workload with more comes again.
    Callers {
        /// When the dataplane began to look, in seconds since the epoch.
        since: u64,
        /// Connections since then that nothing is known of: their reports found no room.
        lost: u64,
        part: Vec<Called>,
        more: bool,
    },
    /// At most [`RULES_PER_REPLY`]; `more` until the last part.
    Bypasses {
        part: Vec<BypassHits>,
        more: bool,
    },
    /// At most [`TURNED_PER_REPLY`]; `more` until the last part.
    Replayed {
        recorded: Recorded,
        part: Vec<Turned>,
        more: bool,
    },
    /// The query cannot be answered now, and why.
    Failed(String),
    /// At most [`ENDPOINTS_PER_REPLY`]; `more` until the last part.
    Endpoints {
        part: Vec<EndpointLoad>,
        more: bool,
    },
}

/// A private key in PKCS#8 DER: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey(Vec<u8>);

impl PrivateKey {
    pub fn new(pkcs8: Vec<u8>) -> Self {
        Self(pkcs8)
    }

    pub fn pkcs8(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}
