//! Addresses that more than one Service lays claim to, and whose they are.
//!
//! ```text
//!   endpoints and virtual addresses of files ─▶ cluster IPs ─▶ virtual addresses of objects
//!                  the earlier one keeps its own; two objects keep an address that leads nowhere
//! ```
//! Anybody who may write to one namespace can claim what is another's. If that took an address out of capture,
//! calls to it would go in plain; if it took the address over, they would go to somebody else. So of two
//! objects neither is believed: the address stays a virtual one, and calls to it are refused (`NoEndpoint`).

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::canonical;
use crate::config::{Diagnostic, Service};

/// Whose word it is, the better one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    File,
    /// It gives each address out once.
    Cluster,
    Object,
}

impl Word {
    fn of(service: &Service) -> Self {
        match (service.kubernetes.is_some(), service.is_object) {
            (true, _) => Self::Cluster,
            (false, true) => Self::Object,
            (false, false) => Self::File,
        }
    }
}

/// `struck`: virtual addresses that something names as its endpoint, which is left out already.
pub(super) fn settle(
    all: &[Service],
    services: &mut [snapshot::Service],
    struck: &HashSet<SocketAddr>,
    warnings: &mut Vec<Diagnostic>,
) {
    // Endpoints that are virtual addresses too have been left out, unless a file has them.
    let endpoints = services.iter().flat_map(|service| &service.endpoints).map(|of| canonical(of.address));
    let mut holders: HashMap<SocketAddr, Word> = endpoints.map(|at| (at, Word::File)).collect();
    let mut disputed = HashSet::new();
    for word in [Word::File, Word::Cluster, Word::Object] {
        for (from, service) in all.iter().zip(&mut *services).filter(|(from, _)| Word::of(from) == word) {
            service.virtual_addresses.retain(|v| {
                let at = canonical(v.address);
                let Some(holder) = holders.get(&at) else {
                    holders.insert(at, word);
                    return true;
                };
                if (*holder, word) == (Word::Object, Word::Object) {
                    disputed.insert(at);
                }
                let of = if word == Word::Cluster { " of the cluster" } else { "" };
                let what = format!("{at}{of} is another Service's address: it leads nowhere");
                warnings.push(Diagnostic::warning(&from.place, "spec", what));
                false
            });
        }
    }
    for (from, service) in all.iter().zip(services).filter(|(from, _)| Word::of(from) == Word::Object) {
        for v in &mut service.virtual_addresses {
            let at = canonical(v.address);
            if disputed.contains(&at) || struck.contains(&at) {
                v.endpoints.clear();
                let what = format!("{at} is claimed by another Service too: calls to it are refused");
                warnings.push(Diagnostic::warning(&from.place, "spec", what));
            }
        }
    }
}
