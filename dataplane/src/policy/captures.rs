//! What steering has to hand to us, so that every call that policy speaks about meets it.
//!
//! Everything is derived by asking the tables that [`Compiled::route`] asks. A source set is a
//! workload's index plus one; past the last of them come places that several share; set 0 is every inside
//! source that no workload claims.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ::snapshot::{Action, Enforcement, PolicyRule, PortRange, Prefix, RuleDirection, Side, TlsMode, Unmatched};

use crate::io::PortId;
use crate::snapshot::{Compiled, Shared, Whose, Workload};

/// SYNs to workloads of this node by destination, from wherever they come: calls between workloads of one
/// node are captured where they start. The exact port beats any port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inbound {
    pub address: IpAddr,
    /// 0: any.
    pub port: u16,
    /// False: left to the kernel, also where any port is taken.
    pub take: bool,
    /// Never to be let through in clear, also while no dataplane runs.
    pub protected: bool,
}

/// SYNs that come in on an inside port, by the sender's set and the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outbound {
    pub set: u32,
    /// None: any.
    pub address: Option<IpAddr>,
    /// 0: any.
    pub port: u16,
    pub protected: bool,
}

/// Whose packets come from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    pub port: PortId,
    pub prefix: Prefix,
    pub mac: Option<[u8; 6]>,
    pub set: u32,
}

/// What the kernel itself must never forward a SYN to (the guard on egress of inside ports).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guarded {
    pub address: IpAddr,
    /// 0: any. The exact port beats any port.
    pub port: u16,
    /// False: an exception from any port.
    pub guard: bool,
}

/// Whose call to what is guarded the kernel may send all the same, if it is the node's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bypassed {
    pub source: IpAddr,
    pub server: SocketAddr,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures {
    pub inbound: Vec<Inbound>,
    pub outbound: Vec<Outbound>,
    pub sources: Vec<Source>,
    pub guarded: Vec<Guarded>,
    pub bypassed: Vec<Bypassed>,
    /// Places of more addresses than are entered one by one ([`WIDEST`]), by workload: calls to
    /// them are not captured, so they must be refused or reported, never forgotten.
    pub too_wide: Vec<(usize, Prefix)>,
}

/// Most addresses of one place that are entered one by one.
pub const WIDEST: u32 = 1024;

/// Most ports of one deny that are entered one by one.
const MOST_PORTS: u32 = 16;

/// `ports`: index, interface and side of each.
pub fn captures(compiled: &Compiled, ports: &[(PortId, &str, Side)]) -> Captures {
    let mut captures = Captures { sources: sources(compiled, ports), ..Captures::default() };
    for (index, workload) in compiled.workloads.iter().enumerate() {
        for place in &workload.places {
            match addresses(place.prefix) {
                Some(addresses) => addresses.for_each(|address| inbound(compiled, index, address, &mut captures)),
                // Every address is nobody's in particular: such a place only says who sends.
                None if place.prefix.length == 0 => {}
                None => captures.too_wide.push((index, place.prefix)),
            }
        }
    }
    unidentified(compiled, 0, &mut captures.outbound);
    for index in 0..compiled.workloads.len() {
        outbound(compiled, index, set_of(index), &mut captures.outbound);
    }
    // Whoever calls from there may be any of them, or nobody.
    for (number, shared) in compiled.places.shared.iter().enumerate() {
        let set = set_of(compiled.workloads.len() + number);
        unidentified(compiled, set, &mut captures.outbound);
        shared.members.iter().for_each(|&index| outbound(compiled, index, set, &mut captures.outbound));
    }
    settle(&mut captures.inbound);
    settle(&mut captures.guarded);
    settle(&mut captures.bypassed);
    settle(&mut captures.outbound);
    // What is captured twice is protected if one says so.
    captures.outbound.dedup_by(|b, a| {
        let same = (a.set, a.address, a.port) == (b.set, b.address, b.port);
        a.protected |= same && b.protected;
        same
    });
    captures
}

fn settle<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

fn sources(compiled: &Compiled, ports: &[(PortId, &str, Side)]) -> Vec<Source> {
    let mut sources = Vec::new();
    for &(port, interface, _) in ports.iter().filter(|(_, _, side)| *side == Side::Inside) {
        let mut shared = BTreeSet::new();
        for workload in &compiled.workloads {
            for place in workload.places.iter().filter(|place| place.interface == interface) {
                let set = match compiled.places.claim(interface, place.prefix) {
                    Whose::Nobody => continue,
                    Whose::One(index) => set_of(index),
                    Whose::Shared(number, _) if !shared.insert(number) => continue,
                    Whose::Shared(number, _) => set_of(compiled.workloads.len() + number),
                };
                sources.push(Source { port, prefix: place.prefix, mac: place.mac, set });
            }
        }
    }
    sources
}

pub(super) fn protects(mode: TlsMode) -> bool {
    match mode {
        TlsMode::Mutual | TlsMode::Simple => true,
        TlsMode::Permissive | TlsMode::Disable => false,
    }
}

fn inbound(compiled: &Compiled, index: usize, address: IpAddr, captures: &mut Captures) {
    match compiled.places.destination(address) {
        Whose::One(owner) if owner == index => {}
        Whose::Shared(_, shared) if shared.alone() == Some(index) => {}
        Whose::Shared(_, shared) => return inbound_of_several(compiled, shared, address, captures),
        // A longer prefix of another workload owns the address.
        Whose::One(_) | Whose::Nobody => return,
    }
    let workload = &compiled.workloads[index];
    bypassed(workload, address, captures);
    let any = (0, workload.mode);
    for (port, mode) in std::iter::once(any).chain(workload.ports.iter().copied()) {
        let take = mode != TlsMode::Disable;
        if take || workload.mode != TlsMode::Disable {
            captures.inbound.push(Inbound { address, port, take, protected: protects(mode) });
        }
        let guard = mode == TlsMode::Mutual;
        if guard || (port != 0 && workload.mode == TlsMode::Mutual) {
            captures.guarded.push(Guarded { address, port, guard });
        }
    }
}

/// What a workload lets in plain at a port under MUTUAL; at others nobody is held up.
fn bypassed(workload: &Workload, address: IpAddr, captures: &mut Captures) {
    let pairs = workload.bypass.iter().flat_map(|entry| entry.pairs());
    let guarded = pairs.filter(|(_, port)| workload.mode_of(*port) == TlsMode::Mutual);
    captures.bypassed.extend(guarded.map(|(source, port)| Bypassed { source, server: SocketAddr::new(address, port) }));
}

/// As strict, at each port, as the strictest of them: who is called is found out once it is ours.
fn inbound_of_several(compiled: &Compiled, shared: &Shared, address: IpAddr, captures: &mut Captures) {
    let members = || shared.members.iter().map(|&member| &compiled.workloads[member]);
    let ports: BTreeSet<u16> = members().flat_map(|member| member.ports.iter().map(|(port, _)| *port)).collect();
    for port in std::iter::once(0).chain(ports) {
        let mode = |member: &Workload| if port == 0 { member.mode } else { member.mode_of(port) };
        let any = |wanted: fn(TlsMode) -> bool| members().any(|member| wanted(mode(member)));
        let (take, guard) = (any(|mode| mode != TlsMode::Disable), any(|mode| mode == TlsMode::Mutual));
        captures.inbound.push(Inbound { address, port, take, protected: any(protects) });
        captures.guarded.push(Guarded { address, port, guard });
    }
}

/// Who is nobody is refused at every service of ours, and everywhere if unmatched calls are.
fn unidentified(compiled: &Compiled, set: u32, out: &mut Vec<Outbound>) {
    if compiled.unmatched_egress == Unmatched::Refuse {
        out.push(Outbound { set, address: None, port: 0, protected: true });
    }
    for endpoint in compiled.services.iter().flat_map(|service| &service.endpoints) {
        out.push(exactly(set, endpoint.address, true));
    }
    for address in compiled.services.iter().flat_map(|service| &service.virtual_addresses) {
        out.push(exactly(set, address.address, true));
    }
}

fn outbound(compiled: &Compiled, index: usize, set: u32, out: &mut Vec<Outbound>) {
    let workload = &compiled.workloads[index];
    if workload.unmatched_egress == Unmatched::Refuse {
        out.push(Outbound { set, address: None, port: 0, protected: true });
    }
    for (_, rule) in compiled.rules_of(index, RuleDirection::Outbound).filter(|(_, rule)| denies_anyone(rule)) {
        denied(set, rule, out);
        compiled.virtual_denials(rule, set, out);
    }
    compiled.virtual_captures(index, set, out);
    for &service in workload.egress.iter().flat_map(|rule| &rule.services) {
        for endpoint in &compiled.services[service as usize].endpoints {
            let Some((rule, _)) = compiled.egress(index, endpoint.address) else { continue };
            let entry = &workload.egress[rule];
            // PERMISSIVE with a list is a refusal, which no absence of ours may turn into a pass.
            let listed = workload.outbound.is_some() || entry.allowed.is_some();
            match entry.mode {
                TlsMode::Disable => {}
                TlsMode::Permissive => out.push(exactly(set, endpoint.address, listed)),
                TlsMode::Mutual | TlsMode::Simple => out.push(exactly(set, endpoint.address, true)),
            }
        }
    }
}

/// Whether it denies calls whoever answers them, and so also those that no entry takes off the kernel.
fn denies_anyone(rule: &PolicyRule) -> bool {
    (rule.action, rule.enforcement) == (Action::Deny, Enforcement::Enforce) && rule.peers.is_empty()
}

/// Where the addresses are too many to be entered one by one, calls to all are looked at, and those that
/// the rule does not deny are relayed as they would have gone.
fn denied(set: u32, rule: &PolicyRule, out: &mut Vec<Outbound>) {
    let few = |cidr: &Prefix| addresses(*cidr);
    let exact: Option<Vec<_>> = rule.cidrs.iter().map(few).collect();
    let to: Vec<Option<IpAddr>> = match exact {
        Some(ranges) if !ranges.is_empty() => {
            ranges.into_iter().flatten().map(Some).take(WIDEST as usize + 1).collect()
        }
        Some(_) | None => vec![None],
    };
    let to = if to.len() > WIDEST as usize { vec![None] } else { to };
    let count: u32 = rule.ports.iter().map(|range| range.count()).sum();
    let ports: Vec<u16> = match count {
        1..=MOST_PORTS => rule.ports.iter().flat_map(|range: &PortRange| range.ports()).collect(),
        _ => vec![0],
    };
    for address in to {
        out.extend(ports.iter().map(|&port| Outbound { set, address, port, protected: true }));
    }
}

pub(super) fn exactly(set: u32, address: SocketAddr, protected: bool) -> Outbound {
    Outbound { set, address: Some(address.ip().to_canonical()), port: address.port(), protected }
}

fn set_of(index: usize) -> u32 {
    index as u32 + 1
}

/// The addresses of a prefix, if they are few enough to be entered one by one.
fn addresses(prefix: Prefix) -> Option<Box<dyn Iterator<Item = IpAddr>>> {
    let width = if prefix.address.is_ipv4() { 32 } else { 128 };
    let count = 1u32.checked_shl(width - u32::from(prefix.length)).filter(|&count| count <= WIDEST)?;
    Some(match prefix.address {
        IpAddr::V4(first) => Box::new((0..count).map(move |n| Ipv4Addr::from_bits(first.to_bits() + n).into())),
        IpAddr::V6(first) => {
            Box::new((0..count).map(move |n| Ipv6Addr::from_bits(first.to_bits() + u128::from(n)).into()))
        }
    })
}
