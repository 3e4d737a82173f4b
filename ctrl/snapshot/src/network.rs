//! What the kernel knows of the network: links, routes and neighbours, mirrored for the dataplane.
//!
//! The kernel stays the authority for L2 and L3 (ARP, NDP, routing). ctrl listens to rtnetlink and
//! sends the whole mirror when something in it changed: it is small, and a whole state cannot drift.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Prefix;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Network {
    /// Counts up with each message.
    pub revision: u64,
    pub links: Vec<Link>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
}

impl Network {
    /// Equal but for the number.
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { revision: _, links, routes, neighbours } = self;
        (links, routes, neighbours) == (&other.links, &other.routes, &other.neighbours)
    }
}

/// A port's interface as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub name: String,
    pub index: u32,
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    pub up: bool,
    /// The node's own global addresses on it that calls may leave from, as the kernel orders them.
    pub addresses: Vec<LinkAddress>,
}

/// An address of an interface, and the length of the prefix that is on the link with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkAddress {
    pub address: IpAddr,
    pub length: u8,
}

impl LinkAddress {
    /// Whether `neighbour` is on the link by this address' prefix.
    pub fn reaches(self, neighbour: IpAddr) -> bool {
        Prefix::new(self.address, self.length).contains(neighbour)
    }
}

/// A unicast route over one of the ports; the longest prefix wins, then the lowest metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub prefix: Prefix,
    pub interface: u32,
    /// None: the destination is on the link.
    pub gateway: Option<IpAddr>,
    pub metric: u32,
    /// `mtu` metric of the route, if it has one.
    pub mtu: Option<u32>,
    /// What the route says that the node's own packets leave from (`src`); None: an address of the
    /// interface.
    pub source: Option<IpAddr>,
}

/// A usable neighbour entry (REACHABLE, STALE, DELAY, PROBE, PERMANENT).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    pub interface: u32,
    pub address: IpAddr,
    pub mac: [u8; 6],
}
