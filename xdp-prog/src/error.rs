//! What can go wrong, each with what to do about it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("ports: there is no interface {interface} in this network namespace; `ip link` lists what there is")]
    NoInterface { interface: String },
    #[error("ports: {what}")]
    Ports { what: String },
    #[error(
        "{interface}: XDP program {program} is attached already; it may be another gateway's. Remove it \
         (`sluice detach` for ours, `ip link set {interface} xdp off` for others), or leave this interface out"
    )]
    Busy { interface: String, program: u32 },
    #[error(
        "{interface}: its driver has no native XDP. Use an interface whose driver has it (virtio_net, most \
         NICs), or accept the slower generic mode, in which captured packets that a tc program redirects into \
         the interface are dropped: ports[].xdp: generic"
    )]
    NotNative { interface: String },
    #[error(
        "{interface}: it has {rx} receive queues, fewer than its peer has transmit queues, and XDP needs at \
         least as many. Run `ethtool -L {interface} rx N` (at most {max}) or `ethtool -L PEER tx {rx}`"
    )]
    Queues { interface: String, rx: u32, max: u32 },
    #[error("{interface}: its MTU, or its peer's, is too large for its driver's XDP; lower it with `ip link`")]
    Mtu { interface: String },
    #[error(
        "{directory}: the pinned map {map} is of another build or configuration ({what}). Run `sluice detach`, \
         which ends the connections that it steers, and start again", directory = directory.display()
    )]
    Layout { directory: PathBuf, map: String, what: String },
    #[error(
        "{directory}: its programs are on interfaces of another network namespace; run this there: {way} -- ...",
        directory = directory.display()
    )]
    OtherNamespace { directory: PathBuf, way: String },
    #[error("{path}: this is not on a bpffs; mount one with `mount -t bpf bpf DIRECTORY`", path = path.display())]
    NotBpffs { path: PathBuf },
    #[error("{map} has room for {capacity} entries and {wanted} are wanted")]
    Full { map: &'static str, capacity: usize, wanted: usize },
    #[error("the source {address} is claimed on port {first} and on port {second}: narrow the selectors of one")]
    Claimed { address: IpAddr, first: u16, second: u16 },
    #[error("{what}")]
    Invalid { what: String },
    #[error("port {port}: there is no such port; known are {known:?}")]
    NoPort { port: u16, known: Vec<u16> },
    #[error("{what}: {source}{hint}", hint = hint(source))]
    System { what: String, source: io::Error },
    #[error("{what}: {source}")]
    Bpf { what: String, source: libbpf_rs::Error },
}

impl Error {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }

    pub(crate) fn bpf(what: impl Into<String>) -> impl FnOnce(libbpf_rs::Error) -> Self {
        let what = what.into();
        move |source| Self::Bpf { what, source }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (needed: CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON)",
        _ => "",
    }
}
