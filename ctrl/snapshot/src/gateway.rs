//! What a dataplane needs to know before the first packet: ports, cores, sizes, times.
//!
//! It comes once, as the first message; what is in here takes a restart to change, everything else
//! comes in a [`crate::Snapshot`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Name of the Gateway.
    pub node: String,
    pub ports: Vec<Port>,
    pub cores: Cores,
    pub waiting: Waiting,
    pub on_absent: OnAbsent,
    /// Key exchanges that handshakes offer and take, the preferred one first.
    pub groups: Vec<Group>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    /// Where programs, links and maps are pinned: a directory of a bpffs.
    pub pin_directory: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub interface: String,
    pub side: Side,
    pub checksum: Checksum,
    pub xdp: XdpMode,
}

/// Inside: workloads, plain. Outside: the wire, mTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Inside,
    Outside,
}

/// What is done about TCP checksums of received packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// Verified; on a veth the bare pseudo-header sum (CHECKSUM_PARTIAL) is also taken.
    #[default]
    Auto,
    Verify,
    Trust,
}

/// Where in the kernel the steering program stands on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// Native.
    #[default]
    Auto,
    /// In the driver, before there is an skb.
    Native,
    /// On skbs: what the sender's segmentation offload left whole comes whole. Packets that tc or nft
    /// redirected into the port do not meet it (`skb_is_redirected` in net/core/dev.c), and a shield on tc
    /// ingress drops those of them that are captured, but for such as were sent past that too
    /// (`tc_skip_classify`): whoever has CAP_NET_ADMIN beyond the port can.
    Generic,
}

impl XdpMode {
    pub const fn is_generic(self) -> bool {
        match self {
            Self::Auto | Self::Native => false,
            Self::Generic => true,
        }
    }
}

/// One worker each, pinned to that CPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cores(pub Vec<u32>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Waiting {
    /// Spins for some tens of microseconds, then sleeps in poll(2).
    #[default]
    Adaptive,
    /// Never sleeps; for cores that nobody else uses.
    Busy,
}

/// What steering does with a SYN to a captured destination while no dataplane runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnAbsent {
    #[default]
    Drop,
    /// Lets through what MUTUAL does not protect, never more.
    Pass,
}

/// A key exchange of TLS 1.3, by its registered name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Group {
    X25519MlKem768,
    X25519,
    Secp256r1,
}

impl Group {
    /// Post-quantum first.
    pub const ALL: [Self; 3] = [Self::X25519MlKem768, Self::X25519, Self::Secp256r1];
}

/// Sizes of everything that is allocated at start. Full is a normal answer with a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Sessions (two legs each) on one core.
    pub sessions: u32,
    /// Of these, how many may be in a handshake.
    pub handshakes: u32,
    /// Entries of the `flows` map, both legs, all cores.
    pub flows: u32,
    /// Frames of one core's UMEM.
    pub frames: u32,
    /// Bytes of one leg's receive ring and of its send ring.
    pub buffer: u32,
    /// Refused and closed connections that are kept for `sluice connections`.
    pub history: u32,
    /// How long segments of connections that began before their capture pass untouched.
    pub pre_existing_grace: Duration,
    /// What calls from the node's own address leave from (`source: node`).
    pub source_ports: PortRange,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: 16_384,
            handshakes: 1_024,
            flows: 262_144,
            frames: 32_768,
            buffer: 524_288,
            history: 1_024,
            pre_existing_grace: Duration::from_secs(600),
            source_ports: PortRange { first: 61_000, last: 65_535 },
        }
    }
}

/// Ports, both ends of the range included. The default is what Linux leaves above its own ephemeral
/// ports (`net.ipv4.ip_local_port_range` is 32768 to 60999), so that no socket of the node's has the
/// same 4-tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// None: it is empty, or begins with port 0.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// How many; never 0.
    pub fn count(self) -> u32 {
        u32::from(self.last - self.first) + 1
    }

    /// The one `steps` after the first, as if the range were a ring.
    pub fn nth(self, steps: u64) -> u16 {
        self.first + (steps % u64::from(self.count())) as u16
    }

    pub fn first(self) -> u16 {
        self.first
    }

    pub fn last(self) -> u16 {
        self.last
    }

    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    pub fn ports(self) -> std::ops::RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl TryFrom<(u16, u16)> for PortRange {
    type Error = &'static str;

    fn try_from((first, last): (u16, u16)) -> Result<Self, Self::Error> {
        Self::new(first, last).ok_or("not a range of ports")
    }
}

impl From<PortRange> for (u16, u16) {
    fn from(range: PortRange) -> Self {
        (range.first, range.last)
    }
}

/// `443` where it is one port, else `8000-8100`.
impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl std::str::FromStr for PortRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = |text: &str| text.trim().parse::<u16>().map_err(|_| "not a range of ports");
        let (first, last) = text.split_once('-').ok_or("not a range of ports")?;
        Self::new(port(first)?, port(last)?).ok_or("not a range of ports")
    }
}

/// Each has a [`crate::CloseReason`] or [`crate::RefuseReason`] of its own (D13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    pub syn_received: Duration,
    pub handshake: Duration,
    pub keep_alive: Duration,
    /// No acknowledgement for this long while data is in flight.
    pub user: Duration,
    pub half_close: Duration,
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            syn_received: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            user: Duration::from_secs(120),
            half_close: Duration::from_secs(300),
            drain: Duration::from_secs(30),
        }
    }
}
