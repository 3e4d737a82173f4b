//! A Service in all its parts: where its endpoints come from and how they do, in which mode each port is called,
//! and whose egress entries select it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use snapshot::policy::Endpoint;
use snapshot::{ConnectionReport, EndpointLoad, Snapshot, Workload};

use super::here::{Here, mode_of};
use super::{Facts, Kind, Revision, Unknown, find, named};
use crate::config::{self, Address, Place, Target};
use crate::resolve::Told;
use crate::services::VirtualRow;
use crate::services::cluster::{self, AllLed, SliceRow};

/// `GET /v1/describe/service`. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// `namespace/name`.
    pub name: String,
    pub place: String,
    pub labels: Vec<String>,
    pub revision: Revision,
    /// The Service of a cluster that it is, as `namespace/name`, and the slices that its endpoints are cut into.
    pub kubernetes: Option<String>,
    pub slices: Vec<SliceRow>,
    /// Each name that its addresses use.
    pub names: Vec<Told>,
    pub virtual_addresses: Vec<VirtualRow>,
    pub endpoints: Vec<EndpointRow>,
    pub ports: Vec<PortRow>,
    pub selected_by: Vec<SelectedRow>,
    pub problems: Vec<String>,
    /// Why nothing is known of what only the dataplane counts.
    pub not_counted: Option<String>,
}

/// Who says that an endpoint is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// It is written as an address.
    Literal,
    /// The Gateway's `hosts`.
    Hosts,
    Dns,
    /// A slice of a Service in the cluster.
    Kubernetes,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointRow {
    pub address: SocketAddr,
    pub from: Origin,
    /// The name that it was resolved from, and in seconds how long that is good.
    pub host: Option<String>,
    pub ttl: Option<u64>,
    /// The last answer has it no more: until when it is captured yet.
    pub replaced_until: Option<u64>,
    pub ready: bool,
    /// The entry that leads to it.
    pub place: String,
    /// Workloads of this node that are there.
    pub workloads: Vec<String>,
    /// Connections that live, to its own address and by virtual ones. None: see `not_counted`.
    pub live: Option<u64>,
    /// Of virtual addresses. None: none of them has given it a call, or none was counted.
    pub given: Option<Given>,
}

/// Calls that virtual addresses have given to an endpoint, over all cores.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    pub active: u64,
    pub connected: u64,
    pub failed: u64,
    pub ejections: u64,
    /// Cores that give it none at present, and until when the last of them does.
    pub ejected_on: Vec<u32>,
    pub ejected_until: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    pub port: u16,
    pub endpoints: usize,
    /// Of the workloads of this node that are called there. Empty: none is, and its mode is another node's to say.
    pub inbound: Vec<ModeRow>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModeRow {
    pub workload: String,
    pub mode: String,
}

/// An egress entry that selects it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectedRow {
    pub workload: String,
    /// `shop/frontend spec.egress[0] (policy.yaml:31)`, as every view names it.
    pub rule: String,
    pub mode: String,
    /// Who has to be there. None: the entry has no list.
    pub allowed: Option<Vec<String>>,
    pub source: String,
    /// An earlier entry of the workload selects it too, and is the one that decides.
    pub behind: Option<String>,
}

impl Service {
    /// `led`: what a cluster says, where one is followed.
    pub fn of(
        facts: &Facts<'_>,
        name: &str,
        told: impl Fn(&str) -> Told,
        led: Option<&AllLed>,
    ) -> Result<Self, Unknown> {
        let services = &facts.loaded.services;
        let name = find(Kind::Service, name, services.iter().map(|service| service.name.as_str()))?;
        let of = services.iter().find(|service| service.name == name).expect("it was found there");
        let mut names: Vec<&str> = of.addresses.iter().filter_map(host).collect();
        names.sort_unstable();
        names.dedup();
        let names: Vec<Told> = names.into_iter().map(told).collect();
        let at = facts.snapshot.and_then(|snapshot| {
            Some((snapshot, snapshot.services.binary_search_by(|one| one.name.as_str().cmp(name)).ok()?))
        });
        let in_force = at.map(|(snapshot, at)| &snapshot.services[at]);
        let endpoints: Vec<_> = in_force.iter().flat_map(|service| &service.endpoints).collect();
        let (named, here) = (of.kubernetes.as_ref(), Here::of(facts.snapshot));
        let mut service = Self {
            name: name.to_owned(),
            place: of.place.to_string(),
            labels: of.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            revision: facts.revision(facts.since.service(name)),
            kubernetes: named.map(|named| named.name.clone()),
            slices: named.and_then(|named| Some(led?.get(&named.name)?.slices.clone())).unwrap_or_default(),
            virtual_addresses: in_force.map(VirtualRow::all).unwrap_or_default(),
            endpoints: endpoints.iter().map(|at| EndpointRow::of(at, of, &names, &here)).collect(),
            ports: ports(&endpoints, &here),
            selected_by: at.map(|(snapshot, at)| selected_by(snapshot, at as u32)).unwrap_or_default(),
            problems: vec![],
            not_counted: None,
            names,
        };
        let in_cluster = named.and_then(|named| cluster::problem(of, named, led?));
        service.problems = service.faults(in_cluster.into_iter().collect(), facts, of);
        Ok(service)
    }

    fn faults(&self, mut found: Vec<String>, facts: &Facts<'_>, of: &config::Service) -> Vec<String> {
        for name in &self.names {
            if name.is_failing || (name.addresses.is_empty() && !name.is_fixed) {
                let why = name.last_failure.as_ref().map_or("no answer yet", |failure| &failure.why);
                let (name, kept) = (&name.name, name.addresses.len());
                found.push(format!("{name} does not resolve: {why} ({kept} older addresses still serve)"));
            }
            if name.left_out > 0 {
                found.push(format!("{} has more addresses than are taken: {} are left out", name.name, name.left_out));
            }
        }
        match (self.revision.since, self.endpoints.is_empty()) {
            (None, _) => found.push("no snapshot has it yet: calls to it are not captured".into()),
            (Some(_), true) => found.push("it leads to no endpoint".into()),
            (Some(_), false) => {}
        }
        let empty = self.virtual_addresses.iter().filter(|v| v.endpoints.is_empty());
        found.extend(empty.map(|v| format!("no endpoint takes calls to {}: they are refused (NoEndpoint)", v.address)));
        let addresses = of.addresses.iter().map(|address| &address.place);
        let virtuals = of.virtual_addresses.iter().map(|v| &v.place);
        let cluster = of.kubernetes.iter().map(|named| &named.place);
        let places: Vec<&Place> = [&of.place].into_iter().chain(addresses).chain(virtuals).chain(cluster).collect();
        // Those of names are told above, as they are now.
        found.extend(facts.warned_at(&places, "spec.addresses"));
        found
    }

    /// What the dataplane has counted, or why that is not known.
    pub fn count(&mut self, counted: Result<(&[EndpointLoad], &[ConnectionReport]), String>) {
        let (loads, live) = match counted {
            Ok(counted) => counted,
            Err(why) => return self.not_counted = Some(why),
        };
        let mut connections: HashMap<SocketAddr, u64> = HashMap::new();
        for one in live {
            *connections.entry(canonical(one.endpoint.unwrap_or(one.server))).or_default() += 1;
        }
        for endpoint in &mut self.endpoints {
            let at = canonical(endpoint.address);
            endpoint.live = Some(connections.get(&at).copied().unwrap_or(0));
            endpoint.given = Given::of(loads.iter().filter(|load| load.address == at));
        }
        let is_out = |endpoint: &&EndpointRow| endpoint.given.as_ref().is_some_and(|g| g.ejected_until.is_some());
        let out: Vec<_> = self.endpoints.iter().filter(is_out).map(|endpoint| endpoint.address.to_string()).collect();
        if !out.is_empty() {
            self.problems.push(format!("calls are kept away from {}, where connecting failed", out.join(", ")));
        }
    }
}

impl EndpointRow {
    fn of(endpoint: &Endpoint, of: &config::Service, names: &[Told], here: &Here<'_>) -> Self {
        let leads = |address: &&Address| {
            let to = match &address.target {
                Target::Ip(ip) => endpoint.host.is_none() && *ip == endpoint.address.ip(),
                Target::Name(name) => endpoint.host.as_ref() == Some(name),
            };
            to && address.port == endpoint.address.port()
        };
        let from = of.addresses.iter().find(leads);
        let name = names.iter().find(|name| Some(&name.name) == endpoint.host.as_ref());
        let seen = name.and_then(|name| name.addresses.iter().find(|seen| seen.address == endpoint.address.ip()));
        let origin = match (&of.kubernetes, name) {
            (Some(_), _) => Origin::Kubernetes,
            (None, Some(name)) if name.is_fixed => Origin::Hosts,
            (None, Some(_)) => Origin::Dns,
            (None, None) => Origin::Literal,
        };
        Self {
            address: endpoint.address,
            from: origin,
            host: endpoint.host.clone(),
            ttl: seen.and_then(|seen| seen.ttl),
            replaced_until: seen.and_then(|seen| seen.replaced_until),
            ready: from.is_none_or(|address| address.ready),
            place: from.map_or(&of.place, |address| &address.place).to_string(),
            workloads: here.at(endpoint.address.ip()).iter().map(|workload| workload.name.clone()).collect(),
            live: None,
            given: None,
        }
    }
}

impl Given {
    fn of<'l>(loads: impl Iterator<Item = &'l EndpointLoad>) -> Option<Self> {
        let mut sum: Option<Self> = None;
        for load in loads {
            let sum = sum.get_or_insert_default();
            sum.active += u64::from(load.active);
            sum.connected += load.connected;
            sum.failed += load.failed;
            sum.ejections += load.ejections;
            if let Some(until) = load.ejected_until {
                sum.ejected_on.push(load.core);
                sum.ejected_until = sum.ejected_until.max(Some(until.div_ceil(1000)));
            }
        }
        sum
    }
}

fn host(address: &Address) -> Option<&str> {
    match &address.target {
        Target::Name(name) => Some(name),
        Target::Ip(_) => None,
    }
}

fn ports(endpoints: &[&Endpoint], here: &Here<'_>) -> Vec<PortRow> {
    let mut ports: BTreeMap<u16, PortRow> = BTreeMap::new();
    for endpoint in endpoints {
        let port = endpoint.address.port();
        let row = ports.entry(port).or_insert(PortRow { port, endpoints: 0, inbound: vec![] });
        row.endpoints += 1;
        row.inbound.extend(
            here.at(endpoint.address.ip()).iter().map(|workload| ModeRow {
                workload: workload.name.clone(),
                mode: mode_of(workload, port).name().into(),
            }),
        );
    }
    for row in ports.values_mut() {
        row.inbound.sort_unstable();
        row.inbound.dedup();
    }
    ports.into_values().collect()
}

fn selected_by(snapshot: &Snapshot, service: u32) -> Vec<SelectedRow> {
    let of = |workload: &Workload| {
        let selects = |entry: &&snapshot::EgressRule| entry.services.binary_search(&service).is_ok();
        let selecting = workload.egress.iter().filter(selects);
        let first = selecting.clone().next().map(|first| named(snapshot, first.id));
        let row = |(nth, entry): (usize, &snapshot::EgressRule)| SelectedRow {
            workload: workload.name.clone(),
            rule: named(snapshot, entry.id),
            mode: entry.mode.unwrap_or(workload.mode).name().into(),
            allowed: entry.allowed.as_ref().map(|list| list.iter().map(ToString::to_string).collect()),
            source: entry.source.name().into(),
            behind: first.clone().filter(|_| nth > 0),
        };
        selecting.enumerate().map(row).collect::<Vec<_>>()
    };
    snapshot.workloads.iter().flat_map(of).collect()
}

fn canonical(at: SocketAddr) -> SocketAddr {
    SocketAddr::new(at.ip().to_canonical(), at.port())
}
