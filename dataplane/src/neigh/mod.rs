//! Where a packet leaves and to which MAC: the kernel's routes and neighbours, as ctrl mirrors them.
//!
//! The kernel stays the authority (D2): nothing is learned here. A next hop whose neighbour is not
//! known is asked for, and the packet is TCP's to repeat.

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use snapshot::{LinkAddress, Network, Port, Prefix};

use crate::io::PortId;

/// One port's link as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFacts {
    pub mac: [u8; 6],
    pub mtu: usize,
    pub up: bool,
}

/// The way to one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    pub port: PortId,
    /// Whose MAC is wanted: the gateway, or the destination itself.
    pub neighbour: IpAddr,
    /// None: not resolved yet.
    pub mac: Option<[u8; 6]>,
    pub mtu: usize,
}

#[derive(Debug, Clone, Copy)]
struct Way {
    port: PortId,
    gateway: Option<IpAddr>,
    metric: u32,
    mtu: Option<u32>,
    source: Option<IpAddr>,
}

/// The mirror, laid out for look-ups. Immutable: a newer one replaces it whole.
#[derive(Debug, Default)]
pub struct Paths {
    revision: u64,
    links: Vec<Option<LinkFacts>>,
    /// By port: the node's own.
    addresses: Vec<Vec<LinkAddress>>,
    /// Longest prefix first, each family and length with its own map.
    by_length: Vec<(bool, u8, HashMap<IpAddr, Way, FixedState>)>,
    neighbours: HashMap<(PortId, IpAddr), [u8; 6], FixedState>,
}

impl Paths {
    /// `ports` as in the Gateway; links, routes and neighbours of other interfaces are left out.
    pub fn new(network: &Network, ports: &[Port]) -> Self {
        let (links, addresses) = (vec![None; ports.len()], vec![Vec::new(); ports.len()]);
        let mut paths = Self { revision: network.revision, links, addresses, ..Self::default() };
        let mut by_index = HashMap::with_hasher(FixedState::default());
        for link in &network.links {
            if let Some(at) = ports.iter().position(|port| port.interface == link.name) {
                by_index.insert(link.index, PortId(at as u16));
                paths.links[at] = Some(LinkFacts { mac: link.mac, mtu: link.mtu as usize, up: link.up });
                paths.addresses[at].clone_from(&link.addresses);
            }
        }
        for route in &network.routes {
            if let Some(&port) = by_index.get(&route.interface) {
                let way =
                    Way { port, gateway: route.gateway, metric: route.metric, mtu: route.mtu, source: route.source };
                paths.add_route(route.prefix, way);
            }
        }
        paths.by_length.sort_by_key(|&(_, length, _)| std::cmp::Reverse(length));
        for neighbour in &network.neighbours {
            if let Some(&port) = by_index.get(&neighbour.interface) {
                paths.neighbours.insert((port, neighbour.address), neighbour.mac);
            }
        }
        paths
    }

    fn add_route(&mut self, prefix: Prefix, way: Way) {
        let key = (prefix.address.is_ipv4(), prefix.length);
        let at = self.by_length.iter().position(|(v4, length, _)| (*v4, *length) == key).unwrap_or_else(|| {
            self.by_length.push((key.0, key.1, HashMap::with_hasher(FixedState::default())));
            self.by_length.len() - 1
        });
        let map = &mut self.by_length[at].2;
        if map.get(&prefix.address).is_none_or(|known| way.metric < known.metric) {
            map.insert(prefix.address, way);
        }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// None: the interface does not exist now.
    pub fn link(&self, port: PortId) -> Option<LinkFacts> {
        self.links.get(usize::from(port.0)).copied().flatten()
    }

    /// None: no route over any port of ours.
    pub fn to(&self, destination: IpAddr) -> Option<Hop> {
        let way = self.way(destination)?;
        let link = self.link(way.port)?;
        let neighbour = way.gateway.unwrap_or(destination);
        Some(Hop {
            port: way.port,
            neighbour,
            mac: self.neighbour(way.port, neighbour),
            mtu: way.mtu.map_or(link.mtu, |mtu| link.mtu.min(mtu as usize)),
        })
    }

    /// What the node's own packets to `destination` leave from, as the kernel chooses it
    /// (`fib_result_prefsrc`, `inet_select_addr`): the route's word, else the address that has the next
    /// hop on its link, else the first. None: the interface has none of that family.
    pub fn own_address(&self, destination: IpAddr) -> Option<IpAddr> {
        let way = self.way(destination)?;
        let next_hop = way.gateway.unwrap_or(destination);
        let family = |own: &&LinkAddress| own.address.is_ipv4() == destination.is_ipv4();
        let own = || self.addresses[usize::from(way.port.0)].iter().filter(family);
        let chosen = || own().find(|own| own.reaches(next_hop)).or_else(|| own().next());
        way.source.or_else(|| Some(chosen()?.address))
    }

    fn way(&self, destination: IpAddr) -> Option<Way> {
        self.by_length.iter().find_map(|(v4, length, map)| {
            let prefix = || Prefix::new(destination, *length);
            (*v4 == destination.is_ipv4()).then(|| map.get(&prefix().address).copied()).flatten()
        })
    }

    pub fn neighbour(&self, port: PortId, address: IpAddr) -> Option<[u8; 6]> {
        self.neighbours.get(&(port, address)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapshot::XdpMode;
    use snapshot::gateway::Checksum;
    use snapshot::{Link, LinkAddress, Neighbour, Route, Side};

    fn paths() -> Paths {
        let port =
            |name: &str, side| Port { interface: name.into(), side, checksum: Checksum::Auto, xdp: XdpMode::Auto };
        let link = |name: &str, index, own: &[(&str, u8)]| Link {
            name: name.into(),
            index,
            mac: [index as u8; 6],
            mtu: 1500,
            up: true,
            addresses: own
                .iter()
                .map(|&(address, length)| LinkAddress { address: address.parse().unwrap(), length })
                .collect(),
        };
        let route = |prefix: &str, length, interface, gateway: Option<&str>, metric| Route {
            prefix: Prefix::new(prefix.parse().unwrap(), length),
            interface,
            gateway: gateway.map(|g| g.parse().unwrap()),
            metric,
            mtu: (length == 16).then_some(1400),
            source: (length == 16).then(|| "198.18.9.77".parse().unwrap()),
        };
        let network = Network {
            revision: 3,
            links: vec![
                link("in0", 10, &[]),
                link("out0", 11, &[("192.0.2.50", 24), ("198.18.9.50", 24), ("2001:db8:9::50", 64)]),
                link("eth9", 12, &[("203.0.113.50", 24)]),
            ],
            routes: vec![
                route("0.0.0.0", 0, 11, Some("198.18.9.1"), 100),
                route("0.0.0.0", 0, 11, Some("198.18.9.2"), 50),
                route("198.18.0.0", 16, 11, Some("198.18.9.3"), 0),
                route("198.18.1.0", 24, 10, None, 0),
                route("203.0.113.0", 24, 12, None, 0),
                route("2001:db8::", 32, 11, Some("fe80::1"), 0),
            ],
            neighbours: vec![Neighbour { interface: 11, address: "198.18.9.3".parse().unwrap(), mac: [3; 6] }],
        };
        Paths::new(&network, &[port("in0", Side::Inside), port("out0", Side::Outside)])
    }

    #[test]
    fn the_longest_prefix_and_then_the_lowest_metric_wins() {
        let paths = paths();
        let to = |address: &str| {
            paths.to(address.parse().unwrap()).map(|hop| (hop.port.0, hop.neighbour.to_string(), hop.mac, hop.mtu))
        };
        assert_eq!(to("198.18.1.2"), Some((0, "198.18.1.2".into(), None, 1500)));
        assert_eq!(to("198.18.2.2"), Some((1, "198.18.9.3".into(), Some([3; 6]), 1400)));
        assert_eq!(to("192.0.2.1"), Some((1, "198.18.9.2".into(), None, 1500)));
        assert_eq!(to("203.0.113.5"), Some((1, "198.18.9.2".into(), None, 1500)), "eth9 is no port of ours");
        assert_eq!(to("2001:db9::1"), None);
    }

    #[test]
    fn the_nodes_own_address_is_the_routes_word_then_the_next_hops_neighbour_then_the_first() {
        let paths = paths();
        for (name, to, own) in [
            ("the route says so", "198.18.2.2", Some("198.18.9.77")),
            ("the gateway is on that one's link", "198.51.100.1", Some("198.18.9.50")),
            ("the next hop is on none's link", "2001:db8:2::2", Some("2001:db8:9::50")),
            ("an interface without an address", "198.18.1.2", None),
            ("no route", "2001:db9::1", None),
        ] {
            let own: Option<IpAddr> = own.map(|own| own.parse().unwrap());
            assert_eq!(paths.own_address(to.parse().unwrap()), own, "{name}");
        }
    }
}
