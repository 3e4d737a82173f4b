//! The steering program, its maps, and on tc the guard (egress) and the shield (ingress).
//!
//! [`Steering`] puts `bpf/steer.bpf.c` on every port and fills its maps. Programs, links and maps
//! are pinned in a bpffs: they stay in force when this process ends, however it ends, and the next
//! one adopts them without a moment in which a packet meets no program. Only [`detach`] takes them
//! away.
//!
//! ```text
//!  agent ── captures, sources, denied, guarded ──▶ maps ◀── programs, one decision a packet
//!  workers ── flows, xsks ───────────────────────▶  │
//!                                 /run/sluice/bpf/… ┘ pinned
//! ```
//!
//! Order matters when captures change under traffic: what is new is added before what is old is
//! removed, and the caller guards a destination ([`Steering::set_guarded`]) before it captures it.

mod error;
mod flows;
mod maps;
mod namespace;
mod pin;
mod port;
mod rules;
mod sockets;
mod steering;
mod sys;
mod tables;
mod tc;
mod trial;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use error::{Error, Result};
pub use flows::Flows;
pub use pin::{detach, ensure_bpffs};
pub use sockets::Sockets;
pub use steering::Steering;
pub use trial::Verdict;

/// Most ports, and most receive queues of one, that the maps have room for.
pub const MAX_PORTS: u16 = 256;
pub const MAX_QUEUES: u32 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Workloads, plain.
    Inside,
    /// The wire, mutual TLS.
    Outside,
}

/// Where the kernel runs the program (`XDP_FLAGS_DRV_MODE`, `XDP_FLAGS_SKB_MODE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver. On a veth that turns its peer's segmentation offload off: every segment is then
    /// a packet of its own on the way here.
    Native,
    /// On skbs, behind the driver: a packet that the peer's offload left whole, up to 64 KiB, is one
    /// packet here too (Linux 6.9 for those that are not linear). What was redirected into the interface
    /// goes past it, and meets the shield, unless it was sent past that as well.
    Generic,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

/// An interface that the program stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub interface: String,
    /// Names the port in flows, sources and sockets; the caller's choice, below [`MAX_PORTS`].
    pub index: u16,
    pub side: Side,
    /// For a new link. A pinned one keeps its own, since no program would be there in between.
    pub mode: Mode,
}

#[derive(Debug, Clone)]
pub struct Options {
    /// On a bpffs, one directory a gateway.
    pub pin_directory: PathBuf,
    /// Capacity of the flows map: two entries a connection, and those that linger.
    pub flows: u32,
    pub ports: Vec<Port>,
    /// Without a worker, let the kernel have new connections that are captured but not protected.
    pub on_absent_pass: bool,
    /// How long connections older than their capture may go on.
    pub grace: Duration,
}

/// Whose SYNs to which destination are taken, or left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    pub kind: CaptureKind,
    /// None: any destination, for outbound captures only.
    pub destination: Option<IpAddr>,
    /// 0: any. The more specific capture wins.
    pub port: u16,
    pub action: Action,
    /// MUTUAL: never let through while no worker is there.
    pub protected: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureKind {
    /// Towards a workload of this node, from any port.
    Inbound,
    /// From the workloads of a set; set 0 is every source without an identity.
    Outbound { set: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Take,
    Leave,
}

/// Which addresses live behind an inside port. A whole address (/32, /128) is bound: it is refused
/// as a source on any other port. A shorter prefix only says which set unbound sources are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub port: u16,
    pub prefix: (IpAddr, u8),
    /// None: any.
    pub mac: Option<[u8; 6]>,
    pub set: u32,
}

/// A call that the node itself may make in plain TCP to what is guarded: from exactly there to exactly there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bypass {
    pub source: IpAddr,
    pub destination: SocketAddr,
}

/// A connection's segments as one port receives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowTuple {
    pub port: u16,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// What a `set_` call did to its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    pub added: usize,
    pub changed: usize,
    pub removed: usize,
    pub kept: usize,
}
