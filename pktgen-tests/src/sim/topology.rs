//! The network of every simulation, and the policy it starts with.
//!
//! ```text
//!   frontend batch intruder nobody local ── in0 [node-a] out0 ──┬── out0 [node-b] in0 ── backend open simple raw
//!        198.18.1.2 .3 .4 .5 .6                           peer legacy            198.18.2.2 .3 .4 .5
//!                                                     198.18.9.10 .11
//! ```
//! Every host has the IPv6 address with the same last numbers: `2001:db8:1::2` for 198.18.1.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use snapshot::{
    Action, EgressRule, Enforcement, IdPattern, Link, LinkAddress, Living, Neighbour, Network, Place, Policy,
    PolicyRule, Prefix, Route, RuleDirection, RuleId, RuleSource, SCHEMA, Service, Snapshot, SourceAddress, TlsMode,
    Unmatched, Version, Workload, policy::Endpoint,
};

use super::clock::EPOCH;
use super::pki::{Authority, Identity, TRUST_DOMAIN};

/// Where a host stands. The numbers are those of its subnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    InsideA = 1,
    InsideB = 2,
    Wire = 9,
}

impl Segment {
    pub const ALL: [Self; 3] = [Self::InsideA, Self::InsideB, Self::Wire];

    pub fn index(self) -> usize {
        match self {
            Self::InsideA => 0,
            Self::InsideB => 1,
            Self::Wire => 2,
        }
    }
}

/// Name, place and last number of each host.
pub const HOSTS: [(&str, Segment, u8); 11] = [
    ("frontend", Segment::InsideA, 2),
    ("batch", Segment::InsideA, 3),
    ("intruder", Segment::InsideA, 4),
    ("nobody", Segment::InsideA, 5),
    ("local", Segment::InsideA, 6),
    ("backend", Segment::InsideB, 2),
    ("open", Segment::InsideB, 3),
    ("simple", Segment::InsideB, 4),
    ("raw", Segment::InsideB, 5),
    ("peer", Segment::Wire, 10),
    ("legacy", Segment::Wire, 11),
];

/// The port that plain services listen on.
pub const PORT: u16 = 3000;
/// Where `open` speaks first.
pub const GREETING_PORT: u16 = 3001;
/// Where `peer` serves mutual TLS, and where it asks for no certificate.
pub const TLS_PORT: u16 = 4433;
pub const SIMPLE_PORT: u16 = 4434;
/// Where nobody listens.
pub const CLOSED_PORT: u16 = 9;

pub fn id(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{name}")
}

pub fn host(name: &str) -> (Segment, u8) {
    let (_, segment, number) = HOSTS.iter().find(|(n, ..)| *n == name).expect("a host of the topology");
    (*segment, *number)
}

pub fn address(name: &str, v6: bool) -> IpAddr {
    let (segment, number) = host(name);
    address_of(segment, number, v6)
}

fn address_of(segment: Segment, number: u8, v6: bool) -> IpAddr {
    match v6 {
        false => Ipv4Addr::new(198, 18, segment as u8, number).into(),
        true => Ipv6Addr::new(0x2001, 0xdb8, segment as u16, 0, 0, 0, 0, number.into()).into(),
    }
}

/// Any two differ in more than one byte, so that one corrupted byte makes no other station of it.
pub fn mac(segment: Segment, number: u8) -> [u8; 6] {
    [2, number, segment as u8, number, segment as u8, number]
}

/// Of a gateway's port: it is number 1 inside, and number 1 or 2 of the wire.
pub fn gateway_mac(node: usize, inside: bool) -> [u8; 6] {
    match (node, inside) {
        (0, true) => mac(Segment::InsideA, 1),
        (_, true) => mac(Segment::InsideB, 1),
        (node, false) => mac(Segment::Wire, node as u8 + 1),
    }
}

pub fn subnet(segment: Segment, v6: bool) -> Prefix {
    Prefix::new(address_of(segment, 0, v6), if v6 { 64 } else { 24 })
}

/// Of a gateway's port on the wire.
pub fn node_address(node: usize, v6: bool) -> IpAddr {
    address_of(Segment::Wire, node as u8 + 1, v6)
}

/// Everywhere: what is not on the link goes to a gateway.
pub fn next_hops(segment: Segment) -> Vec<(Prefix, [u8; 6])> {
    let mut hops = Vec::new();
    for v6 in [false, true] {
        match segment {
            Segment::InsideA => hops.push((Prefix::new(address_of(segment, 0, v6), 0), gateway_mac(0, true))),
            Segment::InsideB => hops.push((Prefix::new(address_of(segment, 0, v6), 0), gateway_mac(1, true))),
            Segment::Wire => {
                for node in 0..2 {
                    hops.push((Prefix::host(node_address(node, v6)), gateway_mac(node, false)));
                }
                hops.push((subnet(Segment::InsideA, v6), gateway_mac(0, false)));
                hops.push((subnet(Segment::InsideB, v6), gateway_mac(1, false)));
            }
        }
    }
    hops
}

/// What the kernel of a node knows, all neighbours resolved.
pub fn network(node: usize, mtus: [usize; 2]) -> Network {
    let [own, other] =
        if node == 0 { [Segment::InsideA, Segment::InsideB] } else { [Segment::InsideB, Segment::InsideA] };
    let link = |name: &str, index, inside, mtu| Link {
        name: name.into(),
        index,
        mac: gateway_mac(node, inside),
        mtu,
        up: true,
        addresses: [false, true]
            .map(|v6| match inside {
                true => LinkAddress { address: address_of(own, 1, v6), length: subnet(own, v6).length },
                false => LinkAddress { address: node_address(node, v6), length: subnet(Segment::Wire, v6).length },
            })
            .into(),
    };
    let mut network = Network {
        revision: 1,
        links: vec![link("in0", 10, true, mtus[0] as u32), link("out0", 11, false, mtus[1] as u32)],
        ..Network::default()
    };
    for v6 in [false, true] {
        let gateway = address_of(Segment::Wire, 2 - node as u8, v6);
        let route =
            |prefix, interface, gateway| Route { prefix, interface, gateway, metric: 0, mtu: None, source: None };
        network.routes.push(route(subnet(own, v6), 10, None));
        network.routes.push(route(subnet(Segment::Wire, v6), 11, None));
        network.routes.push(route(subnet(other, v6), 11, Some(gateway)));
        network.neighbours.push(Neighbour { interface: 11, address: gateway, mac: gateway_mac(1 - node, false) });
        for (_, segment, number) in HOSTS {
            let interface = match segment {
                segment if segment == own => 10,
                Segment::Wire => 11,
                Segment::InsideA | Segment::InsideB => continue,
            };
            let address = address_of(segment, number, v6);
            network.neighbours.push(Neighbour { interface, address, mac: mac(segment, number) });
        }
    }
    network
}

/// The SVIDs of a node's workloads, with their keys, in the order of the snapshot.
pub fn identities(node: usize, authority: &mut Authority) -> Vec<Identity> {
    workloads(node).iter().map(|name| authority.issue(&id(name), EPOCH - 3_600, EPOCH + 86_400)).collect()
}

fn workloads(node: usize) -> &'static [&'static str] {
    match node {
        0 => &["frontend", "batch", "intruder", "local"],
        _ => &["backend", "open", "simple", "raw"],
    }
}

/// Everybody may call what they need; `intruder` may try, and is in no inbound list.
pub fn snapshot(node: usize, authority: &Authority, identities: &[Identity]) -> Snapshot {
    let mut snapshot = Snapshot {
        schema: SCHEMA,
        version: Version(1),
        node: ["node-a", "node-b"][node].into(),
        trust_domain: TRUST_DOMAIN.into(),
        workloads: Vec::new(),
        services: services(),
        bundles: vec![authority.bundle()],
        policies: Vec::new(),
        revoked: Vec::new(),
        rules: Vec::new(),
        unmatched_egress: Unmatched::Refuse,
        assembled_at: EPOCH,
        living: Living::default(),
        audit: None,
    };
    for (name, identity) in workloads(node).iter().zip(identities) {
        let workload = workload(&mut snapshot, name, identity);
        snapshot.workloads.push(workload);
    }
    snapshot
}

fn workload(snapshot: &mut Snapshot, name: &str, identity: &Identity) -> Workload {
    let mut rule = |what: &str| {
        let place = format!("policy.yaml:{}", snapshot.rules.len() + 1);
        snapshot.rules.push(RuleSource { name: format!("default/{name} {what}"), place });
        RuleId(snapshot.rules.len() as u32 - 1)
    };
    let (mode, callers): (_, &[&str]) = match name {
        "open" => (TlsMode::Permissive, &["frontend", "peer"]),
        "simple" => (TlsMode::Simple, &[]),
        "raw" => (TlsMode::Disable, &[]),
        "backend" => (TlsMode::Mutual, &["frontend", "batch", "peer"]),
        "local" => (TlsMode::Mutual, &["frontend"]),
        _ => (TlsMode::Mutual, &[]),
    };
    let entry = |id, services: &[usize], mode| EgressRule {
        id,
        services: services.iter().map(|&at| at as u32).collect(),
        mode,
        allowed: None,
        source: SourceAddress::Preserve,
    };
    let v4_and_v6 = [false, true].map(|v6| Place {
        interface: "in0".into(),
        prefix: Prefix::host(address(name, v6)),
        mac: Some(mac(host(name).0, host(name).1)),
        processes: vec![],
    });
    Workload {
        name: format!("default/{name}"),
        spiffe_id: id(name),
        places: v4_and_v6.into(),
        svid: Some(identity.svid.clone()),
        mode,
        ports: vec![],
        inbound: (!callers.is_empty()).then(|| callers.iter().map(|caller| IdPattern::Exact(id(caller))).collect()),
        inbound_rule: rule("allowedSPIFFEIDs.inbound"),
        outbound: None,
        outbound_rule: rule("allowedSPIFFEIDs.outbound"),
        egress: vec![
            entry(rule("spec.egress[0]"), &[0, 1, 2, 3], None),
            entry(rule("spec.egress[1]"), &[4, 5], Some(TlsMode::Simple)),
            entry(rule("spec.egress[2]"), &[6], Some(TlsMode::Disable)),
            entry(rule("spec.egress[3]"), &[7], Some(TlsMode::Permissive)),
        ],
        policies: vec![],
        unmatched_egress: Unmatched::Refuse,
        unmatched_rule: Some(rule("spec.unmatchedEgress")),
        proxy: Default::default(),
        living: Living::default(),
        bypass: vec![],
        mode_rules: vec![],
        resumption: Default::default(),
    }
}

/// Adds a Policy that denies `peer` at every workload, whatever their lists say.
pub fn deny(snapshot: &mut Snapshot, peer: IdPattern) {
    let rule = PolicyRule {
        action: Action::Deny,
        direction: RuleDirection::Inbound,
        enforcement: Enforcement::Enforce,
        peers: vec![peer],
        cidrs: vec![],
        ports: vec![],
    };
    add_policy(snapshot, vec![rule]);
}

/// Adds a Policy of these rules that names every workload.
pub fn add_policy(snapshot: &mut Snapshot, rules: Vec<PolicyRule>) {
    let first = RuleId(snapshot.rules.len() as u32);
    let index = snapshot.policies.len() as u32;
    let source = |nth| RuleSource {
        name: format!("default/p{index} spec.rules[{nth}]"),
        place: format!("policies.yaml:{}", nth + 1),
    };
    snapshot.rules.extend((0..rules.len()).map(source));
    snapshot.policies.push(Policy { name: format!("default/p{index}"), first, rules });
    snapshot.workloads.iter_mut().for_each(|workload| workload.policies.push(index));
}

/// By index: backend, open, local, peer over mTLS, peer with server-only TLS, simple, raw, greeting.
fn services() -> Vec<Service> {
    [
        ("backend", &[PORT, CLOSED_PORT][..]),
        ("open", &[PORT]),
        ("local", &[PORT]),
        ("peer", &[TLS_PORT]),
        ("peer", &[SIMPLE_PORT]),
        ("simple", &[PORT]),
        ("raw", &[PORT]),
        ("open", &[GREETING_PORT]),
    ]
    .into_iter()
    .map(|(name, ports)| {
        let endpoint = |v6, port| Endpoint {
            address: (address(name, v6), port).into(),
            host: Some(format!("{name}.default.svc")),
        };
        let endpoints = ports.iter().flat_map(|&port| [endpoint(false, port), endpoint(true, port)]).collect();
        Service { name: format!("default/{name}-{}", ports[0]), endpoints, virtual_addresses: vec![] }
    })
    .collect()
}
