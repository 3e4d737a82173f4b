//! Virtual addresses of a Service: addresses that nobody listens at, each of which stands for endpoints.
//!
//! It is what Kubernetes has as ClusterIP and EndpointSlices: an address and a port, and the endpoints that
//! take its calls now. An endpoint that is not ready is in the Service's list, so that it may still be called
//! by its own address, and in no virtual address's.

use std::collections::HashSet;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::check::Error;
use crate::{Prefix, Service, Snapshot};

/// Calls to it are given to one of its endpoints each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualAddress {
    pub address: SocketAddr,
    /// Indices into [`Service::endpoints`]: those that take calls now, of the same family.
    pub endpoints: Vec<u32>,
}

/// Endpoints behind one virtual address: when one fails, all of them are looked at. Kubernetes cuts its own
/// Endpoints off at 1000.
pub const MOST_ENDPOINTS: usize = 1_024;

/// Endpoints behind all of them: some megabytes of tables.
pub const MOST_ENDPOINTS_OF_ALL: usize = 262_144;

/// What one core knows of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointLoad {
    pub core: u32,
    pub address: SocketAddr,
    /// Calls that it has now, those that are being connected too.
    pub active: u32,
    /// Since the core first gave it a call: those that came to stand, and those that could not be connected.
    pub connected: u64,
    pub failed: u64,
    /// Failures since the last one that stood, or the last ejection.
    pub streak: u32,
    pub ejections: u64,
    /// Milliseconds since the epoch until which it is given no calls.
    pub ejected_until: Option<u64>,
}

/// Whether each leads to endpoints that there are, and to nothing else.
pub(crate) fn check(snapshot: &Snapshot) -> Result<(), Error> {
    let (mut seen, mut all) = (HashSet::new(), 0);
    let virtuals =
        || snapshot.services.iter().flat_map(|service| service.virtual_addresses.iter().map(move |v| (service, v)));
    for (service, of) in virtuals() {
        let (name, address) = (&service.name, of.address);
        if !seen.insert(canonical(address)) {
            return Err(Error::VirtualTwice { name: name.clone(), address });
        }
        all += of.endpoints.len();
        if of.endpoints.len() > MOST_ENDPOINTS || all > MOST_ENDPOINTS_OF_ALL {
            return Err(Error::VirtualMany { name: name.clone(), address, count: of.endpoints.len() });
        }
        if of.endpoints.iter().any(|&index| !leads_to_one(service, of, index)) {
            return Err(Error::VirtualEndpoint { name: name.clone(), address });
        }
    }
    if seen.is_empty() {
        return Ok(());
    }
    let endpoints = snapshot.services.iter().flat_map(|service| &service.endpoints).map(|e| canonical(e.address));
    let listened = endpoints.filter(|endpoint| seen.contains(endpoint)).min();
    let hosts: HashSet<_> = snapshot.workloads.iter().flat_map(|w| &w.places).map(|place| place.prefix).collect();
    let owned = || seen.iter().copied().filter(|v| hosts.contains(&Prefix::host(v.ip()))).min();
    match listened.or_else(owned) {
        Some(address) => Err(Error::VirtualReal { address }),
        None => Ok(()),
    }
}

fn leads_to_one(service: &Service, of: &VirtualAddress, index: u32) -> bool {
    let endpoint = service.endpoints.get(index as usize).map(|endpoint| canonical(endpoint.address));
    endpoint.is_some_and(|endpoint| endpoint.is_ipv4() == canonical(of.address).is_ipv4())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::policy::Endpoint;
    use crate::{Living, SCHEMA, Unmatched, Version};

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn of(services: Vec<(&[&str], Vec<(&str, Vec<u32>)>)>) -> Result<(), Error> {
        let service = |(nth, (endpoints, virtuals)): (usize, (&[&str], Vec<(&str, Vec<u32>)>))| Service {
            name: format!("shop/{nth}"),
            endpoints: endpoints.iter().map(|text| Endpoint { address: at(text), host: None }).collect(),
            virtual_addresses: virtuals
                .into_iter()
                .map(|(text, endpoints)| VirtualAddress { address: at(text), endpoints })
                .collect(),
        };
        check(&Snapshot {
            schema: SCHEMA,
            version: Version(1),
            node: "a".into(),
            trust_domain: "example.com".into(),
            workloads: vec![],
            services: services.into_iter().enumerate().map(service).collect(),
            bundles: vec![],
            policies: vec![],
            revoked: vec![],
            rules: vec![],
            unmatched_egress: Unmatched::Pass,
            assembled_at: 0,
            living: Living::default(),
            audit: None,
        })
    }

    #[test]
    fn a_virtual_address_leads_to_endpoints_that_there_are_and_is_nobodys_own() {
        let two: &[&str] = &["198.18.2.2:3000", "[2001:db8:2::2]:3000"];
        assert_eq!(of(vec![(two, vec![("203.0.113.1:80", vec![0]), ("[2001:db8::1]:80", vec![1])])]), Ok(()));
        assert_eq!(of(vec![(two, vec![("203.0.113.1:80", vec![]), ("203.0.113.1:81", vec![0])])]), Ok(()));
        for (services, want) in [
            (vec![(two, vec![("203.0.113.1:80", vec![2])])], "not there, or of the other family"),
            (vec![(two, vec![("203.0.113.1:80", vec![1])])], "not there, or of the other family"),
            (vec![(two, vec![("203.0.113.1:80", vec![0])]), (two, vec![("203.0.113.1:80", vec![0])])], "there twice"),
            (vec![(two, vec![("[::ffff:203.0.113.1]:80", vec![0]), ("203.0.113.1:80", vec![0])])], "there twice"),
            (vec![(two, vec![]), (two, vec![("198.18.2.2:3000", vec![0])])], "an endpoint's or a workload's own"),
        ] {
            let error = of(services).expect_err(want).to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn endpoints_behind_virtual_addresses_are_bounded_for_each_and_for_all() {
        let one: &[&str] = &["198.18.2.2:3000"];
        let of = |counts: Vec<usize>| {
            let names: Vec<_> = (0..counts.len()).map(|nth| format!("203.0.113.1:{}", nth + 1)).collect();
            let virtuals = names.iter().zip(counts).map(|(name, count)| (name.as_str(), vec![0; count])).collect();
            of(vec![(one, virtuals)])
        };
        assert_eq!(of(vec![MOST_ENDPOINTS]), Ok(()));
        assert!(matches!(of(vec![MOST_ENDPOINTS + 1]), Err(Error::VirtualMany { .. })));
        let most = MOST_ENDPOINTS_OF_ALL / MOST_ENDPOINTS;
        assert_eq!(of(vec![MOST_ENDPOINTS; most]), Ok(()));
        assert!(matches!(of([vec![MOST_ENDPOINTS; most], vec![1]].concat()), Err(Error::VirtualMany { .. })));
    }
}
