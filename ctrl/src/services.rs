//! Services: as the snapshot has them, and as `sluice services` shows them.

pub mod cluster;
pub mod disputed;
pub mod leaving;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use snapshot::balance::{MOST_ENDPOINTS, MOST_ENDPOINTS_OF_ALL};
use snapshot::policy::Endpoint;
use snapshot::{EndpointLoad, VirtualAddress};

use crate::config::{Address, Diagnostic, Loaded, Service, Target};
use crate::resolve::Resolved;

/// In the order of their names, so that an index means the same in every assembly.
///
/// What DNS, a cluster and the network bring can make a virtual address somebody's own. That is left out, with a
/// warning, where a snapshot that is refused would keep everything else from changing: `owned` are the workloads'.
pub fn assemble(
    loaded: &Loaded,
    resolved: &Resolved,
    owned: &HashSet<IpAddr>,
) -> (Vec<snapshot::Service>, Vec<Diagnostic>) {
    let all = &*leaving::unless_taken(&loaded.services, resolved);
    let virtuals = all.iter().flat_map(|service| &service.virtual_addresses);
    let virtuals: HashSet<_> = virtuals.map(|v| canonical(SocketAddr::new(v.ip, v.port))).collect();
    let mut services: Vec<_> = all.iter().map(|service| of(service, resolved, &virtuals)).collect();
    let (mut warnings, mut room, mut struck) = (Vec::new(), MOST_ENDPOINTS_OF_ALL, HashSet::new());
    for from in all {
        let mut warn = |what: String| warnings.push(Diagnostic::warning(&from.place, "spec", what));
        for address in from.addresses.iter().filter(|address| comes(from, address)) {
            let (name, found) = match &address.target {
                Target::Name(name) => (name.as_str(), resolved.addresses(name).collect()),
                Target::Ip(ip) => ("an endpoint", vec![*ip]),
            };
            let found = found.into_iter().map(|ip| SocketAddr::new(ip.to_canonical(), address.port));
            for at in found.filter(|at| virtuals.contains(at)) {
                warn(format!("{name} is {at}, which is a virtual address: it is no endpoint"));
                struck.insert(at);
            }
        }
    }
    disputed::settle(all, &mut services, &struck, &mut warnings);
    for (from, service) in all.iter().zip(&mut services) {
        let mut warn = |what: String| warnings.push(Diagnostic::warning(&from.place, "spec", what));
        service.virtual_addresses.retain(|v| {
            let is_owned = owned.contains(&v.address.ip().to_canonical());
            if is_owned {
                warn(format!("the virtual address {} is a workload's own: it leads nowhere", v.address));
            }
            !is_owned
        });
        for v in &mut service.virtual_addresses {
            v.endpoints.truncate(room);
            room -= v.endpoints.len();
        }
    }
    if room == 0 {
        let place = &loaded.gateway.place;
        let what = format!(
            "the virtual addresses have {MOST_ENDPOINTS_OF_ALL} endpoints together: any more are given no calls"
        );
        warnings.push(Diagnostic::warning(place, "", what));
    }
    (services, warnings)
}

/// It is nobody's word that was checked when it was written.
fn comes(service: &Service, address: &Address) -> bool {
    service.kubernetes.is_some() || service.is_object || matches!(address.target, Target::Name(_))
}

fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}

fn of(service: &Service, resolved: &Resolved, virtuals: &HashSet<SocketAddr>) -> snapshot::Service {
    let mut endpoints: Vec<_> = service
        .addresses
        .iter()
        .flat_map(|address| addresses(address, resolved).map(move |(at, host)| (at, host, address)))
        .filter(|(at, _, address)| !comes(service, address) || !virtuals.contains(&canonical(*at)))
        .collect();
    endpoints.sort_by(|(a, host, _), (b, other, _)| (a, host).cmp(&(b, other)));
    endpoints.dedup_by(|(b, other, _), (a, host, _)| (a, host) == (b, other));
    let virtual_address = |v: &crate::config::VirtualAddress| {
        let behind = |(at, _, from): &(SocketAddr, Option<String>, &Address)| {
            from.ready && v.leads_to(from) && at.is_ipv4() == v.ip.is_ipv4() && is_current(from, at.ip(), resolved)
        };
        let mut behind: Vec<_> = (0..).zip(&endpoints).filter(|(_, endpoint)| behind(endpoint)).collect();
        // One address by two names is one endpoint.
        behind.dedup_by_key(|(_, (at, ..))| *at);
        // `full` warns: the first of a fixed order serve, and a refused snapshot would not.
        behind.truncate(MOST_ENDPOINTS);
        VirtualAddress {
            address: SocketAddr::new(v.ip, v.port),
            endpoints: behind.into_iter().map(|(index, _)| index).collect(),
        }
    };
    snapshot::Service {
        name: service.name.clone(),
        virtual_addresses: service.virtual_addresses.iter().map(virtual_address).collect(),
        endpoints: endpoints.into_iter().map(|(address, host, _)| Endpoint { address, host }).collect(),
    }
}

/// Virtual addresses that have as many endpoints as may be, and may lack some.
pub fn full(loaded: &Loaded, services: &[snapshot::Service]) -> Vec<Diagnostic> {
    let pairs = loaded.services.iter().zip(services);
    let all = pairs.flat_map(|(of, service)| {
        let it = |of: &crate::config::VirtualAddress| {
            let at = SocketAddr::new(of.ip, of.port);
            service.virtual_addresses.iter().find(|it| it.address == at)
        };
        of.virtual_addresses.iter().filter_map(move |of| Some((of, it(of)?)))
    });
    let warning = |(of, it): (&crate::config::VirtualAddress, &VirtualAddress)| {
        let message = format!("{} has {MOST_ENDPOINTS} endpoints: any more are given no calls", it.address);
        Diagnostic::warning(&of.place, "spec.virtualAddresses", message)
    };
    all.filter(|(_, it)| it.endpoints.len() == MOST_ENDPOINTS).map(warning).collect()
}

/// What DNS has replaced is captured for a while, and given no new calls.
fn is_current(address: &Address, ip: IpAddr, resolved: &Resolved) -> bool {
    match &address.target {
        Target::Ip(_) => true,
        Target::Name(name) => resolved.is_current(name, ip),
    }
}

/// What an entry leads to, with the name that it is by.
fn addresses<'a>(
    address: &'a Address,
    resolved: &'a Resolved,
) -> Box<dyn Iterator<Item = (SocketAddr, Option<String>)> + 'a> {
    let at = |ip: IpAddr| SocketAddr::new(ip, address.port);
    match &address.target {
        Target::Ip(ip) => Box::new(std::iter::once((at(*ip), None))),
        Target::Name(name) => Box::new(resolved.addresses(name).map(move |ip| (at(ip), Some(name.clone())))),
    }
}

/// `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Row {
    pub name: String,
    pub place: String,
    pub labels: Vec<String>,
    pub virtual_addresses: Vec<VirtualRow>,
    pub endpoints: Vec<EndpointRow>,
    /// The Service of a cluster that it is, as `namespace/name`.
    #[serde(default)]
    pub kubernetes: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VirtualRow {
    pub address: SocketAddr,
    /// Those that calls are given to, by their addresses.
    pub endpoints: Vec<SocketAddr>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointRow {
    pub address: SocketAddr,
    /// The name that it was resolved from.
    pub host: Option<String>,
    pub ready: bool,
    /// Calls that virtual addresses have given to it, over all cores: now, ever connected, and not connected.
    pub active: u64,
    pub connected: u64,
    pub failed: u64,
    pub ejections: u64,
    /// Cores that give it none at present, and until when the last of them does, in seconds since the epoch.
    pub ejected_on: Vec<u32>,
    pub ejected_until: Option<u64>,
}

impl VirtualRow {
    pub fn all(service: &snapshot::Service) -> Vec<Self> {
        let row = |v: &VirtualAddress| Self {
            address: v.address,
            endpoints: v.endpoints.iter().map(|&index| service.endpoints[index as usize].address).collect(),
        };
        service.virtual_addresses.iter().map(row).collect()
    }
}

/// What is in force, without what only the dataplane knows.
pub fn shown(loaded: &Loaded, services: &[snapshot::Service]) -> Vec<Row> {
    let row = |(of, service): (&Service, &snapshot::Service)| {
        let ready = |endpoint: &Endpoint| {
            let is = |address: &&Address| {
                address.port == endpoint.address.port()
                    && match &address.target {
                        Target::Ip(ip) => endpoint.host.is_none() && *ip == endpoint.address.ip(),
                        Target::Name(name) => endpoint.host.as_ref() == Some(name),
                    }
            };
            of.addresses.iter().find(is).is_none_or(|address| address.ready)
        };
        let endpoint = |endpoint: &Endpoint| EndpointRow {
            address: endpoint.address,
            host: endpoint.host.clone(),
            ready: ready(endpoint),
            active: 0,
            connected: 0,
            failed: 0,
            ejections: 0,
            ejected_on: vec![],
            ejected_until: None,
        };
        Row {
            name: service.name.clone(),
            place: of.place.to_string(),
            labels: of.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            virtual_addresses: VirtualRow::all(service),
            endpoints: service.endpoints.iter().map(endpoint).collect(),
            kubernetes: of.kubernetes.as_ref().map(|named| named.name.clone()),
        }
    };
    loaded.services.iter().zip(services).map(row).collect()
}

/// The same with it.
pub fn rows(shown: &[Row], loads: &[EndpointLoad]) -> Vec<Row> {
    let mut by_address: HashMap<SocketAddr, Vec<&EndpointLoad>> = HashMap::new();
    loads.iter().for_each(|load| by_address.entry(load.address).or_default().push(load));
    let mut rows = shown.to_vec();
    for endpoint in rows.iter_mut().flat_map(|row| &mut row.endpoints) {
        for load in by_address.get(&canonical(endpoint.address)).into_iter().flatten() {
            endpoint.active += u64::from(load.active);
            endpoint.connected += load.connected;
            endpoint.failed += load.failed;
            endpoint.ejections += load.ejections;
            if let Some(until) = load.ejected_until {
                endpoint.ejected_on.push(load.core);
                endpoint.ejected_until = endpoint.ejected_until.max(Some(until.div_ceil(1000)));
            }
        }
        endpoint.ejected_on.sort_unstable();
    }
    rows
}
