//! The `Gateway` kind: this node's ports, cores, identity sources, limits.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use snapshot::gateway::Checksum;
use snapshot::{Group, Limits, OnAbsent, Port, Side, Timeouts, Unmatched, Waiting, XdpMode};

use super::decode::{Chosen, Faults, Field, Fields};
use super::resource::Meta;
use super::service::host_name;
use super::workload::UNMATCHED;
use super::{Kubernetes, Lifetimes, NamedSource, Place, TrustDomain, audit, identity, kubernetes, process};
use crate::attest::process::{Netns, Overrides};

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
    /// Key exchanges of TLS, the preferred one first.
    pub groups: Vec<Group>,
    /// Names that are not asked for.
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// In the order in which they are asked; the first that takes a workload gives it its SVID.
    pub identity: Vec<NamedSource>,
    pub admin: Admin,
    /// What a workload without a word of its own gets; None is `pass`.
    pub unmatched_egress: Option<Chosen<Unmatched>>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    /// A directory of a bpffs.
    pub pin_directory: String,
    /// `spec.connection`: what a workload without a word of its own gets.
    pub lifetimes: Lifetimes,
    /// Where the workloads of a port are, where the configuration says so.
    pub namespaces: Overrides,
    /// None: no audit log.
    pub audit: Option<snapshot::Audit>,
    /// None: no API server is asked, and `k8s:*` selectors match nothing.
    pub kubernetes: Option<Kubernetes>,
    /// Asked instead of those of /etc/resolv.conf, if there are any.
    pub dns_servers: Vec<SocketAddr>,
    /// Where the `interface` of each port stands, in the order of `ports`.
    pub port_places: Vec<Place>,
    /// Where `audit.file` stands.
    pub audit_place: Option<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admin {
    pub socket: PathBuf,
    /// How the names of the files begin that outlive a restart: the socket's path, or the gateway's name in
    /// `stateDirectory`.
    pub state: PathBuf,
    /// None: no HTTP listener.
    pub metrics: Option<SocketAddr>,
}

impl Gateway {
    pub fn decode(meta: Meta, spec: &Field<'_>, faults: &mut Faults<'_>) -> Option<Self> {
        let mut fields = spec.fields(faults)?;
        let help = "a name such as example.com, in lower case and without spiffe://";
        let trust_domain = fields
            .required_such("trustDomain", help, faults)
            .and_then(|field| field.parsed(TrustDomain::parse, help, faults));
        let mut namespaces = BTreeMap::new();
        let ports = fields.required("ports", faults).and_then(|field| decode_ports(&field, &mut namespaces, faults));
        let (ports, port_places) = ports.map(|ports| ports.into_iter().unzip::<_, _, Vec<_>, Vec<_>>()).unzip();
        let cores = match fields.optional("cores") {
            Some(field) => decode_cores(&field, faults),
            None => vec![0],
        };
        let waiting = choice(&mut fields, "waiting", WAITING, faults).unwrap_or_default();
        let on_absent = choice(&mut fields, "onAbsent", ON_ABSENT, faults).unwrap_or_default();
        let groups = match fields.optional("tls") {
            Some(field) => decode_tls(&field, faults),
            None => Group::ALL.to_vec(),
        };
        let hosts = fields.optional("hosts").map(|field| decode_hosts(&field, faults)).unwrap_or_default();
        let identity = fields.required("identity", faults).and_then(|field| identity::decode(&field, faults));
        let admin = match fields.optional("admin") {
            Some(field) => decode_admin(&field, &meta.name, faults),
            None => Some(Admin::of(&meta.name)),
        };
        let unmatched_egress = Chosen::decode(fields.optional("unmatchedEgress"), UNMATCHED, faults);
        let limits = fields.optional("limits").map(|field| decode_limits(&field, faults)).unwrap_or_default();
        let timeouts = fields.optional("timeouts").map(|field| decode_timeouts(&field, faults)).unwrap_or_default();
        let lifetimes =
            fields.optional("connection").map(|field| Lifetimes::decode(&field, faults)).unwrap_or_default();
        let pin_directory = match fields.optional("pinDirectory") {
            Some(field) => field.parsed(absolute, "an absolute path below a bpffs", faults),
            None => Some(format!("/sys/fs/bpf/sluice/{}", meta.name)),
        };
        let audit = fields.optional("audit").map(|field| audit::decode(&field, faults));
        let kubernetes = fields.optional("kubernetes").and_then(|field| kubernetes::decode(&field, faults));
        let dns_servers = fields.optional("dns").and_then(|field| decode_dns(&field, faults)).unwrap_or_default();
        fields.finish(faults);
        let audit = match audit {
            Some(decoded) => Some(decoded?),
            None => None,
        };
        let (audit, audit_place) = audit.unzip();
        Some(Self {
            name: meta.name,
            place: meta.place,
            trust_domain: trust_domain?,
            ports: ports?,
            cores,
            waiting,
            on_absent,
            groups,
            hosts,
            identity: identity?,
            admin: admin?,
            unmatched_egress,
            limits,
            timeouts,
            pin_directory: pin_directory?,
            lifetimes,
            namespaces: namespaces.into(),
            audit,
            kubernetes,
            dns_servers,
            port_places: port_places?,
            audit_place,
        })
    }

    /// The ports that workloads are behind.
    pub fn inside(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().filter(|port| port.side == Side::Inside)
    }
}

fn decode_dns(field: &Field<'_>, faults: &mut Faults<'_>) -> Option<Vec<SocketAddr>> {
    let mut fields = field.fields(faults)?;
    let server = |text: &str| {
        let ip = text.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53));
        ip.or_else(|_| text.parse()).map_err(|_| "neither an address nor ADDRESS:PORT")
    };
    let help = "such as 198.18.0.53, 198.18.0.53:5353 or [2001:db8::53]:5353";
    let servers = fields
        .required("servers", faults)
        .and_then(|list| list.list(faults))
        .map(|list| list.iter().filter_map(|entry| entry.parsed(server, help, faults)).collect());
    fields.finish(faults);
    servers
}

fn choice<T: Copy>(
    fields: &mut Fields<'_>,
    name: &'static str,
    words: &[(&'static str, T)],
    faults: &mut Faults<'_>,
) -> Option<T> {
    fields.optional(name).and_then(|field| field.choice(words, faults))
}

fn decode_ports(
    list: &Field<'_>,
    namespaces: &mut BTreeMap<String, Netns>,
    faults: &mut Faults<'_>,
) -> Option<Vec<(Port, Place)>> {
    let mut ports: Vec<(Port, Place)> = Vec::new();
    for entry in list.list(faults)? {
        let Some(mut fields) = entry.fields(faults) else { continue };
        let interface = fields.required("interface", faults);
        let name =
            interface.as_ref().and_then(|field| field.parsed(interface_name, "the name that `ip link` shows", faults));
        let side = fields.required("side", faults).and_then(|field| field.choice(SIDES, faults));
        let checksum = choice(&mut fields, "checksum", CHECKSUMS, faults).unwrap_or_default();
        let xdp = choice(&mut fields, "xdp", XDP_MODES, faults).unwrap_or_default();
        let netns = fields.optional("netns");
        fields.finish(faults);
        let (Some(field), Some(name), Some(side)) = (interface, name, side) else { continue };
        if let Some(field) = netns {
            if side == Side::Outside {
                faults.refuse(&field, "workloads are behind inside ports only", "leave it out");
            }
            namespaces.extend(process::netns(&field, faults).map(|netns| (name.clone(), netns)));
        }
        if ports.iter().any(|(port, _)| port.interface == name) {
            faults.refuse(&field, "is a port already", "give each interface one side");
            continue;
        }
        ports.push((Port { interface: name, side, checksum, xdp }, faults.place(field.at())));
    }
    if !ports.iter().any(|(port, _)| port.side == Side::Inside) && faults.found.iter().all(|fault| !fault.is_error()) {
        faults.error(
            list.at(),
            &list.path,
            "no port is inside",
            "give the interface towards the workloads side: inside",
        );
    }
    Some(ports)
}

fn decode_cores(list: &Field<'_>, faults: &mut Faults<'_>) -> Vec<u32> {
    let mut cores: Vec<u32> = Vec::new();
    let Some(entries) = list.list(faults) else { return cores };
    for entry in &entries {
        match entry.integer(0..=1023, faults) {
            Some(core) if cores.contains(&core) => faults.refuse(entry, "is in the list already", "one worker a core"),
            Some(core) => cores.push(core),
            None => {}
        }
    }
    if entries.is_empty() {
        faults.error(list.at(), &list.path, "an empty list", "name at least one CPU, such as [0]");
    }
    cores
}

fn decode_tls(map: &Field<'_>, faults: &mut Faults<'_>) -> Vec<Group> {
    let Some(mut fields) = map.fields(faults) else { return vec![] };
    let list = fields.optional("groups");
    fields.finish(faults);
    list.map_or(Group::ALL.to_vec(), |list| decode_groups(&list, faults))
}

fn decode_groups(list: &Field<'_>, faults: &mut Faults<'_>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let Some(entries) = list.list(faults) else { return groups };
    for entry in &entries {
        match entry.choice(GROUPS, faults) {
            Some(group) if groups.contains(&group) => faults.refuse(entry, "is in the list already", "each group once"),
            Some(group) => groups.push(group),
            None => {}
        }
    }
    if entries.is_empty() {
        faults.error(list.at(), &list.path, "an empty list", "name at least one group, such as [X25519]");
    }
    groups
}

fn decode_hosts(map: &Field<'_>, faults: &mut Faults<'_>) -> BTreeMap<String, Vec<IpAddr>> {
    let mut hosts = BTreeMap::new();
    for (key, field) in map.fields(faults).into_iter().flat_map(|fields| fields.all()) {
        let Some(list) = field.list(faults) else { continue };
        let addresses = list.iter().filter_map(|entry| entry.ip(faults)).collect();
        match host_name(&key.name) {
            Ok(name) => drop(hosts.insert(name, addresses)),
            Err(_) => faults.error(key.at, &field.path, format!("{:?} is not a DNS name", key.name), ""),
        }
    }
    hosts
}

impl Admin {
    /// Of a gateway that says nothing of it.
    fn of(node: &str) -> Self {
        let socket = default_socket(node);
        Self { state: socket.clone(), socket, metrics: None }
    }
}

fn decode_admin(map: &Field<'_>, node: &str, faults: &mut Faults<'_>) -> Option<Admin> {
    let mut fields = map.fields(faults)?;
    let socket = match fields.optional("socket") {
        Some(field) => field.parsed(socket_path, "an absolute path, such as /run/sluice/node-a.sock", faults),
        None => Some(default_socket(node)),
    };
    let state = fields.optional("stateDirectory").map(|field| {
        field
            .parsed(absolute, "an absolute path, such as /var/lib/sluice", faults)
            .map(|path| Path::new(&path).join(node))
    });
    let metrics = fields.optional("metrics");
    let metrics = metrics.map(|field| {
        let help = "an address and port, such as 127.0.0.1:15020";
        field.parsed(|text| text.parse().map_err(|_| "not an address with a port"), help, faults)
    });
    fields.finish(faults);
    let socket = socket?;
    let state = match state {
        Some(path) => path?,
        None => socket.clone(),
    };
    Some(Admin { socket, state, metrics: metrics.flatten() })
}

fn decode_limits(map: &Field<'_>, faults: &mut Faults<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(mut fields) = map.fields(faults) else { return limits };
    for (name, slot, allowed) in [
        ("sessions", &mut limits.sessions, 1..=1 << 24),
        ("handshakes", &mut limits.handshakes, 1..=1 << 20),
        ("flows", &mut limits.flows, 16..=1 << 26),
        ("frames", &mut limits.frames, 256..=1 << 22),
        ("buffer", &mut limits.buffer, 16_384..=1 << 26),
        ("history", &mut limits.history, 0..=1 << 20),
    ] {
        if let Some(number) = fields.optional(name).and_then(|field| field.integer(allowed, faults)) {
            *slot = number;
        }
    }
    if let Some(grace) = fields.optional("preExistingGrace") {
        let grace = grace.duration(Duration::ZERO..=DAY, faults);
        limits.pre_existing_grace = grace.unwrap_or(limits.pre_existing_grace);
    }
    if let Some(ports) = fields.optional("sourcePorts") {
        let help = "the first and the last, such as 61000-65535";
        limits.source_ports = ports.parsed(str::parse, help, faults).unwrap_or(limits.source_ports);
    }
    fields.finish(faults);
    limits
}

fn decode_timeouts(map: &Field<'_>, faults: &mut Faults<'_>) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let Some(mut fields) = map.fields(faults) else { return timeouts };
    for (name, slot) in [
        ("synReceived", &mut timeouts.syn_received),
        ("handshake", &mut timeouts.handshake),
        ("keepAlive", &mut timeouts.keep_alive),
        ("user", &mut timeouts.user),
        ("halfClose", &mut timeouts.half_close),
        ("drain", &mut timeouts.drain),
    ] {
        let field = fields.optional(name);
        if let Some(duration) = field.and_then(|field| field.duration(SHORTEST_TIMEOUT..=DAY, faults)) {
            *slot = duration;
        }
    }
    fields.finish(faults);
    timeouts
}

/// What the kernel takes as a name (`dev_valid_name`): at most 15 bytes, no slash, colon or blank.
fn interface_name(text: &str) -> Result<String, &'static str> {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
    match text.len() > 15 || text == "." || text == ".." || text.contains(odd) {
        true => Err("not the name of an interface"),
        false => Ok(text.to_owned()),
    }
}

fn absolute(text: &str) -> Result<String, &'static str> {
    match text.starts_with('/') && !text.split('/').any(|part| part == "..") {
        true => Ok(text.to_owned()),
        false => Err("not an absolute path"),
    }
}

/// `sun_path` has 108 bytes, and `.dataplane` is put behind this one.
fn socket_path(text: &str) -> Result<PathBuf, &'static str> {
    match absolute(text)?.len() {
        0..=90 => Ok(text.into()),
        _ => Err("too long for a Unix socket (at most 90 bytes)"),
    }
}

fn default_socket(node: &str) -> PathBuf {
    PathBuf::from(format!("/run/sluice/{node}.sock"))
}

const SIDES: &[(&str, Side)] = &[("inside", Side::Inside), ("outside", Side::Outside)];
const CHECKSUMS: &[(&str, Checksum)] =
    &[("auto", Checksum::Auto), ("verify", Checksum::Verify), ("trust", Checksum::Trust)];
const XDP_MODES: &[(&str, XdpMode)] =
    &[("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)];
const WAITING: &[(&str, Waiting)] = &[("adaptive", Waiting::Adaptive), ("busy", Waiting::Busy)];
const ON_ABSENT: &[(&str, OnAbsent)] = &[("drop", OnAbsent::Drop), ("pass", OnAbsent::Pass)];
const GROUPS: &[(&str, Group)] =
    &[("X25519MLKEM768", Group::X25519MlKem768), ("X25519", Group::X25519), ("secp256r1", Group::Secp256r1)];
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(10);
const DAY: Duration = Duration::from_secs(86_400);
