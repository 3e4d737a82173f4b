//! The `Service` kind: a destination by name, with labels that egress rules select.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Place;

#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// `namespace/name`.
    pub name: String,
    pub place: Place,
    pub addresses: Vec<Address>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    pub target: Target,
    pub port: u16,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Ip(IpAddr),
    /// Lower case, without a trailing dot.
    Name(String),
}
