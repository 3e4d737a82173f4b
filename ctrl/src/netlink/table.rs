//! From rtnetlink's messages to a [`Network`] of the ports, and the lookup of a next hop in it.

use std::collections::HashMap;
use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteNextHopFlags, RouteType,
    RouteVia,
};
use snapshot::{Link, LinkAddress, Neighbour, Network, Prefix, Route};

/// The kernel's tables, cut down to `ports` and to what carries packets; sorted, so that equal
/// tables make equal networks. The revision is left at zero.
pub fn network(
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    routes: &[RouteMessage],
    neighbours: &[NeighbourMessage],
    ports: &[String],
) -> Network {
    let mut links: Vec<Link> = links.iter().filter_map(link).filter(|l| ports.contains(&l.name)).collect();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    for (interface, address) in addresses.iter().filter_map(own_address) {
        // In the kernel's order, which says which one it prefers.
        links.iter_mut().filter(|link| link.index == interface).for_each(|link| link.addresses.push(address));
    }
    let known = |index: u32| links.iter().any(|l| l.index == index);
    let mut routes: Vec<Route> = routes.iter().flat_map(route).filter(|r| known(r.interface)).collect();
    routes.sort_by_key(|r| (r.prefix, r.metric, r.interface, r.gateway));
    let mut neighbours: Vec<Neighbour> =
        neighbours.iter().filter_map(neighbour).filter(|n| known(n.interface)).collect();
    neighbours.sort_by_key(|n| (n.interface, n.address));
    Network { revision: 0, links, routes, neighbours }
}

pub fn name(message: &LinkMessage) -> Option<&str> {
    message.attributes.iter().find_map(|a| if let LinkAttribute::IfName(name) = a { Some(name.as_str()) } else { None })
}

fn link(message: &LinkMessage) -> Option<Link> {
    let (mut name, mut mac, mut mtu) = (None, [0; 6], 0);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(n) => name = Some(n.clone()),
            LinkAttribute::Mtu(m) => mtu = *m,
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().unwrap_or([0; 6]),
            _ => {}
        }
    }
    let up = message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    Some(Link { name: name?, index: message.header.index, mac, mtu, up, addresses: vec![] })
}

/// A global address that packets may leave from, with its interface. Not one that is being looked for
/// elsewhere yet (DAD), and none of second choice: RFC 6724 §5 has deprecated and temporary ones last
/// (a temporary one is flagged as a secondary), and the kernel passes over secondary IPv4 ones.
fn own_address(message: &AddressMessage) -> Option<(u32, LinkAddress)> {
    let header = &message.header;
    let (mut address, mut local) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(a) => address = Some(*a),
            AddressAttribute::Local(a) => local = Some(*a),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let unfit = AddressFlags::Secondary | AddressFlags::Deprecated | AddressFlags::Tentative | AddressFlags::Dadfailed;
    if header.scope != AddressScope::Universe || flags.intersects(unfit) {
        return None;
    }
    // Of a link between two points, IFA_ADDRESS is the other end's.
    Some((header.index, LinkAddress { address: local.or(address)?, length: header.prefix_len }))
}

/// One route for each usable next hop.
fn route(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    let dead = RouteFlags::Dead | RouteFlags::Linkdown | RouteFlags::Cloned;
    if header.kind != RouteType::Unicast || header.flags.intersects(dead) {
        return vec![];
    }
    let zero: IpAddr = match header.address_family {
        netlink_packet_route::AddressFamily::Inet => [0; 4].into(),
        netlink_packet_route::AddressFamily::Inet6 => [0; 16].into(),
        _ => return vec![],
    };
    let mut table = u32::from(header.table);
    let mut hop = Hop::default();
    let (mut destination, mut metric, mut mtu, mut source, mut several) = (zero, 0, None, None, &vec![]);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(t) => table = *t,
            RouteAttribute::Destination(to) => match address(to) {
                Some(to) => destination = to,
                None => return vec![],
            },
            RouteAttribute::PrefSource(from) => source = address(from),
            RouteAttribute::Priority(p) => metric = *p,
            RouteAttribute::MultiPath(hops) => several = hops,
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| if let RouteMetric::Mtu(mtu) = m { Some(*mtu) } else { None });
            }
            other => hop.add(other),
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return vec![];
    }
    let mut hops = vec![hop];
    for next in several.iter().filter(|n| !n.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown)) {
        let mut hop = Hop { interface: Some(next.interface_index), gateway: None };
        next.attributes.iter().for_each(|a| hop.add(a));
        hops.push(hop);
    }
    let prefix = Prefix::new(destination, header.destination_prefix_length);
    hops.into_iter()
        .filter_map(|hop| Some(Route { prefix, interface: hop.interface?, gateway: hop.gateway, metric, mtu, source }))
        .collect()
}

#[derive(Debug, Clone, Copy, Default)]
struct Hop {
    interface: Option<u32>,
    gateway: Option<IpAddr>,
}

impl Hop {
    fn add(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Oif(index) => self.interface = Some(*index),
            RouteAttribute::Gateway(to) => self.gateway = address(to),
            RouteAttribute::Via(RouteVia::Inet(to)) => self.gateway = Some((*to).into()),
            RouteAttribute::Via(RouteVia::Inet6(to)) => self.gateway = Some((*to).into()),
            _ => {}
        }
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    use NeighbourState::{Delay, Permanent, Probe, Reachable, Stale};
    if !matches!(message.header.state, Reachable | Stale | Delay | Probe | Permanent) {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => address = Some(IpAddr::from(*a)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => address = Some(IpAddr::from(*a)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour { interface: message.header.ifindex, address: address?, mac: mac? })
}

/// Over which interface, and to which neighbour, packets to `to` go: the longest prefix, then the
/// lowest metric.
pub fn next_hop(network: &Network, to: IpAddr) -> Option<(u32, IpAddr)> {
    let best = network
        .routes
        .iter()
        .filter(|route| route.prefix.contains(to))
        .min_by_key(|route| (std::cmp::Reverse(route.prefix.length), route.metric))?;
    Some((best.interface, best.gateway.unwrap_or(to)))
}

/// Next hops of `destinations` that are not in the neighbour table.
pub fn missing(network: &Network, hops: impl IntoIterator<Item = (u32, IpAddr)>) -> Vec<(u32, IpAddr)> {
    let known: HashMap<_, _> = network.neighbours.iter().map(|n| ((n.interface, n.address), n.mac)).collect();
    hops.into_iter().filter(|hop| !known.contains_key(hop)).collect()
}
