//! What Services of the Kubernetes API lead to, and how that becomes a Service of ours.
//!
//! ```text
//!   Service: cluster IPs × TCP ports ──────────────▶ virtual addresses ─┐
//!   EndpointSlices: addresses × ports by their names ─▶ endpoints ──────┴─ Led ─ fill ─▶ Loaded
//! ```
//! Which endpoints take calls is what kube-proxy says: those of the port's name and the address's family that
//! are ready; if none is, those that still serve while they end. Without a cluster IP (headless) there are only
//! endpoints, to be called by their own addresses. Both come from whoever may write to the cluster, so both
//! are bounded, and what is over is counted.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use snapshot::balance::{MOST_ENDPOINTS as MOST_BEHIND, MOST_ENDPOINTS_OF_ALL};

use super::leaving::{Leaving, UNLISTED, What};
use crate::config::{Address, InCluster, Loaded, Service, Target, VirtualAddress};

/// A Service, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterService {
    /// None: headless.
    pub ips: Vec<IpAddr>,
    /// Names and numbers of its TCP ports.
    pub ports: Vec<(String, u16)>,
    /// `internalTrafficPolicy: Local`: calls go to endpoints of the caller's node.
    pub local: bool,
    /// Where its name leads instead: it is an alias, and has no endpoints.
    pub alias: Option<String>,
}

/// One of the slices that a Service's endpoints are cut into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// `namespace/name`.
    pub name: String,
    /// `namespace/name` of the Service.
    pub service: String,
    /// Names and numbers of its TCP ports.
    pub ports: Vec<(String, u16)>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub ip: IpAddr,
    pub state: State,
    pub node: Option<String>,
}

/// The better one counts where two slices have the same endpoint: it is moved from one to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    NotReady,
    /// It serves yet, and is about to go.
    Ending,
    Ready,
}

/// What one Service leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    /// With those that take its calls, in order.
    pub virtual_addresses: Vec<(SocketAddr, Vec<SocketAddr>)>,
    /// Whether calls are given to it.
    pub endpoints: BTreeMap<SocketAddr, bool>,
    pub problem: Option<String>,
    /// For people; it is not remembered over a restart, and until the API lists them there are none.
    #[serde(skip)]
    pub slices: Vec<SliceRow>,
}

/// A slice, and how its endpoints do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceRow {
    /// `namespace/name`.
    pub name: String,
    /// `http:8080`.
    pub ports: Vec<String>,
    pub ready: usize,
    /// They serve yet, and are about to go.
    pub ending: usize,
    pub not_ready: usize,
}

impl Led {
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty() && self.virtual_addresses.is_empty()
    }
}

/// By `namespace/name` of the Service in the cluster. What is not in it has not been listed yet.
pub type AllLed = Arc<BTreeMap<String, Led>>;

/// Those that are named, as `namespace/name`.
pub fn named(loaded: &Loaded) -> BTreeSet<String> {
    in_clusters(loaded).map(|(_, named)| named.name.clone()).collect()
}

/// Where each of those that are named leads, on `node`.
pub fn lead<'s>(
    named: &BTreeSet<String>,
    services: impl Fn(&str) -> Option<&'s ClusterService>,
    slices: impl Iterator<Item = &'s Slice>,
    node: &str,
) -> BTreeMap<String, Led> {
    let mut by_service: BTreeMap<&str, Vec<&Slice>> = BTreeMap::new();
    for slice in slices.filter(|slice| named.contains(&slice.service)) {
        by_service.entry(&slice.service).or_default().push(slice);
    }
    let slices_of = |name: &str| by_service.get(name).map_or(&[][..], Vec::as_slice);
    // Who asks for little comes first: what is for all is not used up by who asks for ever so much.
    let mut in_turn: Vec<_> = named.iter().collect();
    in_turn.sort_by_cached_key(|name| services(name).map_or(0, |service| service.asks_for(slices_of(name))));
    let mut room = Room { pairs: MOST_ENDPOINTS_OF_ALL, virtuals: MOST_VIRTUAL_OF_ALL };
    let mut led = |name: &String| match services(name) {
        None => Led { problem: Some("there is none of that name".into()), ..Led::default() },
        Some(service) => service.lead(slices_of(name), node, &mut room),
    };
    in_turn.into_iter().map(|name| (name.clone(), led(name))).collect()
}

/// What is left of the bounds for all Services together.
struct Room {
    /// Of a port and an endpoint: what it costs to find out who takes whose calls, and to keep it.
    pairs: usize,
    virtuals: usize,
}

impl ClusterService {
    /// About how many pairs of a port and an endpoint.
    fn asks_for(&self, slices: &[&Slice]) -> usize {
        let endpoints: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
        self.ports.len().saturating_mul(1 + endpoints)
    }

    fn lead(&self, slices: &[&Slice], node: &str, room: &mut Room) -> Led {
        if let Some(alias) = &self.alias {
            let problem = format!("it is an alias for {alias:?} (ExternalName): name that in `addresses`");
            return Led { problem: Some(problem), ..Led::default() };
        }
        let (mut led, mut left_out, by_name) = (Led::default(), 0, by_name(slices));
        let virtuals = MOST_VIRTUAL.min(room.virtuals);
        for (name, number) in self.ports.iter().take(MOST_VIRTUAL) {
            let port = Port::of(by_name.get(name.as_str()).map_or(&[], Vec::as_slice), MOST_ENDPOINTS.min(room.pairs));
            room.pairs -= port.endpoints.len();
            left_out = left_out.max(port.left_out);
            let mut given = HashSet::new();
            for ip in &self.ips {
                if led.virtual_addresses.len() == virtuals {
                    break;
                }
                let takes = port.takes(ip.is_ipv4(), self.local.then_some(node));
                given.extend(takes.iter().copied());
                led.virtual_addresses.push((SocketAddr::new(*ip, *number), takes));
            }
            for (at, (state, _)) in &port.endpoints {
                *led.endpoints.entry(*at).or_default() |= *state == State::Ready || given.contains(at);
            }
            while led.endpoints.len() > MOST_ENDPOINTS {
                led.endpoints.pop_last();
                left_out += 1;
            }
        }
        room.virtuals -= led.virtual_addresses.len();
        let all = self.ips.len() * self.ports.len();
        let without = self.ports.len().saturating_sub(MOST_VIRTUAL).max(all - led.virtual_addresses.len());
        led.virtual_addresses.sort_unstable();
        led.problem = self.problem(left_out, without);
        led.slices = slices.iter().map(|slice| SliceRow::of(slice)).collect();
        led
    }

    fn problem(&self, left_out: usize, virtuals_left_out: usize) -> Option<String> {
        match (left_out, virtuals_left_out) {
            _ if self.ports.is_empty() => Some("it has no TCP port, and leads nowhere".into()),
            (0, 0) => None,
            (0, over) => Some(format!(
                "{over} of its ports are left out: at most {MOST_VIRTUAL} virtual addresses are taken, and \
                     {MOST_VIRTUAL_OF_ALL} of all together"
            )),
            (over, _) => Some(format!(
                "{over} of its endpoints are left out: at most {MOST_ENDPOINTS} are taken, and {MOST_ENDPOINTS_OF_ALL} \
                 of all together"
            )),
        }
    }
}

impl SliceRow {
    fn of(slice: &Slice) -> Self {
        let port = |(name, number): &(String, u16)| match name.as_str() {
            "" => number.to_string(),
            name => format!("{name}:{number}"),
        };
        let count = |state| slice.endpoints.iter().filter(|endpoint| endpoint.state == state).count();
        Self {
            name: slice.name.clone(),
            ports: slice.ports.iter().map(port).collect(),
            ready: count(State::Ready),
            ending: count(State::Ending),
            not_ready: count(State::NotReady),
        }
    }
}

/// Each slice says what number a port's name stands for with its own endpoints.
type Numbered<'s> = Vec<(u16, &'s [SliceEndpoint])>;

fn by_name<'s>(slices: &[&'s Slice]) -> BTreeMap<&'s str, Numbered<'s>> {
    let mut by_name: BTreeMap<&str, Numbered<'_>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| !slice.endpoints.is_empty()) {
        for (name, number) in &slice.ports {
            by_name.entry(name).or_default().push((*number, &slice.endpoints));
        }
    }
    by_name
}

/// The endpoints of one port, and which node each is on.
struct Port<'s> {
    endpoints: BTreeMap<SocketAddr, (State, Option<&'s str>)>,
    left_out: usize,
}

impl<'s> Port<'s> {
    fn of(slices: &[(u16, &'s [SliceEndpoint])], most: usize) -> Self {
        let (mut endpoints, mut left_out) = (BTreeMap::new(), 0);
        for (number, of) in slices {
            let room = most.saturating_sub(endpoints.len());
            left_out += of.len().saturating_sub(room);
            for endpoint in of.iter().take(room) {
                let at = SocketAddr::new(endpoint.ip, *number);
                let known = endpoints.entry(at).or_insert((endpoint.state, endpoint.node.as_deref()));
                known.0 = known.0.max(endpoint.state);
            }
        }
        Self { endpoints, left_out }
    }

    /// `only`: those of this node.
    fn takes(&self, v4: bool, only: Option<&str>) -> Vec<SocketAddr> {
        let within =
            |at: &SocketAddr, node: &Option<&str>| at.is_ipv4() == v4 && only.is_none_or(|only| *node == Some(only));
        let of = |wanted: State| -> Vec<SocketAddr> {
            let all = self.endpoints.iter().filter(|(at, (state, node))| *state == wanted && within(at, node));
            all.map(|(at, _)| *at).take(MOST_BEHIND).collect()
        };
        let ready = of(State::Ready);
        if ready.is_empty() { of(State::Ending) } else { ready }
    }
}

/// Writes into each Service that names one of a cluster where that leads now, and where it did a moment ago. True:
/// something else than before.
pub fn fill(loaded: &mut Loaded, all: &AllLed, leaving: &Leaving) -> bool {
    let mut changed = false;
    for service in &mut loaded.services {
        let Some(InCluster { name, place }) = service.kubernetes.clone() else { continue };
        let (empty, of) = (Led::default(), leaving.of(&service.name));
        let led = all.get(&name).or_else(|| of?.stays.as_ref()).unwrap_or(&empty);
        let left = |what: What| of.into_iter().flat_map(|of| &of.left).filter(move |(_, left)| left.what == what);
        let address = |(at, ready): (&SocketAddr, &bool)| Address {
            target: Target::Ip(at.ip()),
            port: at.port(),
            place: place.clone(),
            ready: *ready,
        };
        let virtual_address = |(at, takes): (&SocketAddr, Vec<SocketAddr>)| VirtualAddress {
            ip: at.ip(),
            port: at.port(),
            target_ports: vec![],
            endpoints: Some(takes),
            place: place.clone(),
        };
        let endpoints = led.endpoints.iter().chain(left(What::Endpoint).map(|(at, _)| (at, &false)));
        let virtuals = led.virtual_addresses.iter().map(|(at, takes)| (at, takes.clone()));
        let virtuals = virtuals.chain(left(What::Virtual).map(|(at, _)| (at, vec![])));
        let (addresses, virtual_addresses) =
            (endpoints.map(address).collect(), virtuals.map(virtual_address).collect());
        let left = of.map_or(BTreeSet::new(), |of| of.left.keys().copied().collect());
        changed |= service.addresses != addresses || service.virtual_addresses != virtual_addresses;
        (service.addresses, service.virtual_addresses, service.left) = (addresses, virtual_addresses, left);
    }
    changed
}

/// What keeps a Service that names one of a cluster from leading anywhere.
pub fn problems(loaded: &Loaded, all: &AllLed) -> Vec<String> {
    let problem = |(service, named): (&Service, &InCluster)| {
        let why = problem(service, named, all)?;
        Some(format!("Service {}: {} in the cluster: {why}", service.name, named.name))
    };
    in_clusters(loaded).filter_map(problem).collect()
}

/// The same of one.
pub fn problem(service: &Service, named: &InCluster, all: &AllLed) -> Option<String> {
    match all.get(&named.name) {
        Some(led) => led.problem.clone(),
        None if service.addresses.is_empty() && service.virtual_addresses.is_empty() => {
            Some("it has not been listed yet, and leads nowhere until then".into())
        }
        None => Some(UNLISTED.into()),
    }
}

pub(super) fn in_clusters(loaded: &Loaded) -> impl Iterator<Item = (&Service, &InCluster)> {
    loaded.services.iter().filter_map(|service| Some((service, service.kubernetes.as_ref()?)))
}

/// Of one Service, each of which may be called by its own address too.
pub const MOST_ENDPOINTS: usize = 4_096;
/// Of one Service.
pub const MOST_VIRTUAL: usize = 512;
/// Of all Services together; those that ask for little come first.
pub const MOST_VIRTUAL_OF_ALL: usize = 65_536;
