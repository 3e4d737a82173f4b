//! The kernel's routes over this node's ports, asked for what a selector wants to know.

use snapshot::{Network, Prefix, Route, Side};

use crate::config::Gateway;

pub struct Routes<'a> {
    network: &'a Network,
    /// Ports whose link exists: interface index, name, side.
    ports: Vec<(u32, &'a str, Side)>,
    names: Vec<&'a str>,
}

impl<'a> Routes<'a> {
    pub fn new(gateway: &'a Gateway, network: &'a Network) -> Self {
        let index = |name: &str| network.links.iter().find(|link| link.name == name).map(|link| link.index);
        let ports = gateway.ports.iter();
        let ports = ports.filter_map(|port| Some((index(&port.interface)?, port.interface.as_str(), port.side)));
        Self { network, ports: ports.collect(), names: gateway.ports.iter().map(|p| p.interface.as_str()).collect() }
    }

    pub fn is_port(&self, interface: &str) -> bool {
        self.names.contains(&interface)
    }

    /// The port that the whole of `prefix` is routed to, and by which route: the longest that holds
    /// it, then the one of the lowest metric.
    pub fn towards(&self, prefix: Prefix) -> Option<(Side, &'a str, Prefix)> {
        let holds = |route: &&Route| route.prefix.length <= prefix.length && route.prefix.contains(prefix.address);
        let best = self.network.routes.iter().filter(holds);
        let best =
            best.max_by_key(|route| (route.prefix.length, std::cmp::Reverse((route.metric, route.interface))))?;
        let (_, name, side) = self.ports.iter().find(|(index, _, _)| *index == best.interface)?;
        Some((*side, *name, best.prefix))
    }

    /// What is routed over one interface, sorted. A default route claims nobody, and neither do
    /// link-local and multicast ranges, which every interface has.
    pub fn over(&self, interface: &str) -> Vec<Prefix> {
        let Some((index, _, _)) = self.ports.iter().find(|(_, name, _)| *name == interface) else {
            return Vec::new();
        };
        let routes = self.network.routes.iter().filter(|route| route.interface == *index);
        let mut prefixes: Vec<_> = routes.map(|route| route.prefix).filter(|prefix| claims(*prefix)).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }

    /// The neighbour's MAC, where the prefix is one address.
    pub fn mac(&self, interface: &str, prefix: Prefix) -> Option<[u8; 6]> {
        let (index, _, _) = self.ports.iter().find(|(_, name, _)| *name == interface)?;
        let mut neighbours = self.network.neighbours.iter().filter(|n| n.interface == *index);
        let known = neighbours.find(|n| Prefix::host(n.address) == prefix)?;
        Some(known.mac)
    }
}

/// Whether a route says who is behind a port.
pub(super) fn claims(prefix: Prefix) -> bool {
    let link_local = match prefix.address {
        std::net::IpAddr::V4(address) => address.is_link_local(),
        std::net::IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    prefix.length > 0 && !link_local && !prefix.address.is_multicast()
}
