//! Where a packet leaves and to which MAC: the kernel's routes and neighbours, as ctrl mirrors them.
//!
//! The kernel stays the authority (D2): nothing is learned here. A next hop whose neighbour is not
//! known is asked for, and the packet is TCP's to repeat.

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use snapshot::{Network, Port, Prefix};

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
}

/// The mirror, laid out for look-ups. Immutable: a newer one replaces it whole.
#[derive(Debug, Default)]
pub struct Paths {
    revision: u64,
    links: Vec<Option<LinkFacts>>,
    /// Longest prefix first, each family and length with its own map.
    by_length: Vec<(bool, u8, HashMap<IpAddr, Way, FixedState>)>,
    neighbours: HashMap<(PortId, IpAddr), [u8; 6], FixedState>,
}

impl Paths {
    /// `ports` as in the Gateway; links, routes and neighbours of other interfaces are left out.
    pub fn new(network: &Network, ports: &[Port]) -> Self {
        let mut paths = Self { revision: network.revision, links: vec![None; ports.len()], ..Self::default() };
        let mut by_index = HashMap::with_hasher(FixedState::default());
        for link in &network.links {
            if let Some(at) = ports.iter().position(|port| port.interface == link.name) {
                by_index.insert(link.index, PortId(at as u16));
                paths.links[at] = Some(LinkFacts { mac: link.mac, mtu: link.mtu as usize, up: link.up });
            }
        }
        for route in &network.routes {
            if let Some(&port) = by_index.get(&route.interface) {
                let way = Way { port, gateway: route.gateway, metric: route.metric, mtu: route.mtu };
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
        let way = self.by_length.iter().find_map(|(v4, length, map)| {
            (*v4 == destination.is_ipv4()).then(|| map.get(&Prefix::new(destination, *length).address)).flatten()
        })?;
        let link = self.link(way.port)?;
        let neighbour = way.gateway.unwrap_or(destination);
        Some(Hop {
            port: way.port,
            neighbour,
            mac: self.neighbour(way.port, neighbour),
            mtu: way.mtu.map_or(link.mtu, |mtu| link.mtu.min(mtu as usize)),
        })
    }

    pub fn neighbour(&self, port: PortId, address: IpAddr) -> Option<[u8; 6]> {
        self.neighbours.get(&(port, address)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapshot::gateway::Checksum;
    use snapshot::{Link, Neighbour, Route, Side};

    fn paths() -> Paths {
        let port = |name: &str, side| Port { interface: name.into(), side, checksum: Checksum::Auto };
        let link = |name: &str, index| Link { name: name.into(), index, mac: [index as u8; 6], mtu: 1500, up: true };
        let route = |prefix: &str, length, interface, gateway: Option<&str>, metric| Route {
            prefix: Prefix::new(prefix.parse().unwrap(), length),
            interface,
            gateway: gateway.map(|g| g.parse().unwrap()),
            metric,
            mtu: (length == 16).then_some(1400),
        };
        let network = Network {
            revision: 3,
            links: vec![link("in0", 10), link("out0", 11), link("eth9", 12)],
            routes: vec![
                route("0.0.0.0", 0, 11, Some("198.18.9.1"), 100),
                route("0.0.0.0", 0, 11, Some("198.18.9.2"), 50),
                route("198.18.0.0", 16, 11, Some("198.18.9.3"), 0),
                route("198.18.1.0", 24, 10, None, 0),
                route("203.0.113.0", 24, 12, None, 0),
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
        assert_eq!(to("2001:db8::1"), None);
    }
}
