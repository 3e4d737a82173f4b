//! What Services of a cluster led to a moment ago, for those who go on calling it.
//!
//! ```text
//!   had before ─┬─ has no more ─▶ left ── its time is over, or the address is somebody else's ─▶ gone
//!               └─ nobody knows yet what it has now ─▶ stays as it was
//! ```
//! Whoever calls has looked the address up before: the cluster's DNS has it cached for up to half a minute. An
//! endpoint that left its slices and were nobody's at once would be called in plain meanwhile. So it stays an
//! endpoint for [`GRACE`], captured and given no calls of virtual addresses, and a cluster IP stays one that leads
//! nowhere. What another Service or another pod has by then is theirs at once. Slices change as often as whoever
//! may write them likes, so what has left is bounded.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use snapshot::balance::MOST_ENDPOINTS as MOST_BEHIND;
use tokio::time::Instant;

use super::cluster::{AllLed, Led, in_clusters};
use super::{addresses, canonical, is_current};
use crate::attest::pods::Pods;
use crate::config::{Address, Loaded, Service, VirtualAddress};
use crate::resolve::Resolved;

/// Of each Service that names one of a cluster, by its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaving(BTreeMap<String, Of>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Of {
    /// What it led to before, until what it names now is listed.
    pub stays: Option<Led>,
    pub left: BTreeMap<SocketAddr, Left>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub what: What,
    until: Instant,
    /// The UID of the pod of this node that has the address.
    pod: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Endpoint,
    Virtual,
}

/// What a Service is compared with.
#[derive(Debug, Clone, Copy)]
pub struct Before<'b> {
    pub in_force: &'b Loaded,
    pub resolved: &'b Resolved,
}

impl Leaving {
    /// Of `loaded`, which comes after what is in force, when this is what is listed at `now`.
    pub fn see(&mut self, loaded: &Loaded, all: &AllLed, before: Before<'_>, pods: &Pods, now: Instant) {
        let (mut known, holders) = (std::mem::take(&mut self.0), holders(pods));
        for (service, named) in in_clusters(loaded) {
            let had = before.had(&service.name);
            let known = known.remove(&service.name).unwrap_or_default().left;
            let mut of = match all.get(&named.name) {
                Some(led) => Of { stays: None, left: left(&had, led, known, &holders, now) },
                None => Of { stays: Some(without(had, &known)), left: known },
            };
            let is_same = |at: &SocketAddr, pod: &Option<String>| match holders.get(&at.ip()) {
                Some(uid) => pod.as_deref() == Some(*uid),
                None => true,
            };
            of.left.retain(|at, left| now < left.until && is_same(at, &left.pod));
            if of.stays.as_ref().is_some_and(|led| !led.is_empty()) || !of.left.is_empty() {
                self.0.insert(service.name.clone(), of);
            }
        }
        self.bound();
    }

    pub(super) fn of(&self, service: &str) -> Option<&Of> {
        self.0.get(service)
    }

    /// When the first of them is gone.
    pub fn next_end(&self) -> Option<Instant> {
        self.0.values().flat_map(|of| of.left.values()).map(|left| left.until).min()
    }

    /// What is listed with these, as if they were: for a process that begins, which has no time for them yet.
    pub fn beside(&self, loaded: &Loaded, all: &AllLed) -> AllLed {
        if self.0.is_empty() {
            return all.clone();
        }
        let mut all = BTreeMap::clone(all);
        for (service, named) in in_clusters(loaded) {
            let Some(of) = self.of(&service.name) else { continue };
            let stays = || Led { problem: Some(UNLISTED.into()), ..of.stays.clone().unwrap_or_default() };
            let led = all.entry(named.name.clone()).or_insert_with(stays);
            for (at, left) in &of.left {
                match left.what {
                    What::Endpoint => drop(led.endpoints.insert(*at, false)),
                    What::Virtual => led.virtual_addresses.push((*at, vec![])),
                }
            }
            led.virtual_addresses.sort_unstable();
        }
        Arc::new(all)
    }

    /// Of too many, those go first that were to go first; and who has few of them keeps them.
    fn bound(&mut self) {
        let mut room = MOST_OF_ALL;
        let mut in_turn: Vec<_> = self.0.values_mut().map(|of| &mut of.left).collect();
        in_turn.sort_by_key(|left| left.len());
        for left in in_turn {
            let most = MOST.min(room);
            if left.len() > most {
                let mut by_end: Vec<_> = left.iter().map(|(at, left)| (left.until, *at)).collect();
                by_end.sort_unstable();
                by_end[..left.len() - most].iter().for_each(|(_, at)| drop(left.remove(at)));
            }
            room -= left.len();
        }
    }
}

impl Before<'_> {
    /// What the Service of this name leads to, those included that have left.
    fn had(&self, name: &str) -> Led {
        let services = &self.in_force.services;
        let found = services.binary_search_by(|service| service.name.as_str().cmp(name));
        found.map_or_else(|_| Led::default(), |at| had(&services[at], self.resolved))
    }
}

fn had(service: &Service, resolved: &Resolved) -> Led {
    let of = |address| addresses(address, resolved).map(move |(at, _)| (canonical(at), address));
    let all: Vec<(SocketAddr, &Address)> = service.addresses.iter().flat_map(of).collect();
    let takes_calls = |(at, from): &&(SocketAddr, &Address)| from.ready && is_current(from, at.ip(), resolved);
    let mut led = Led::default();
    for one in &all {
        *led.endpoints.entry(one.0).or_default() |= takes_calls(&one);
    }
    let by_ports = |v: &VirtualAddress| {
        let fits = |(at, from): &&(SocketAddr, &Address)| v.leads_to(from) && at.is_ipv4() == v.ip.is_ipv4();
        let behind: BTreeSet<_> = all.iter().filter(takes_calls).filter(fits).map(|(at, _)| *at).collect();
        behind.into_iter().take(MOST_BEHIND).collect()
    };
    let virtual_address = |v: &VirtualAddress| {
        let behind = v.endpoints.clone().unwrap_or_else(|| by_ports(v));
        (SocketAddr::new(v.ip, v.port), behind)
    };
    led.virtual_addresses = service.virtual_addresses.iter().map(virtual_address).collect();
    led
}

fn without(mut led: Led, left: &BTreeMap<SocketAddr, Left>) -> Led {
    let has_left = |at: &SocketAddr, what: What| left.get(at).is_some_and(|left| left.what == what);
    led.endpoints.retain(|at, _| !has_left(at, What::Endpoint));
    led.virtual_addresses.retain(|(at, _)| !has_left(at, What::Virtual));
    led
}

/// What of `had` is not listed: what left before keeps its time, and what is over by now has none.
fn left(
    had: &Led,
    led: &Led,
    mut known: BTreeMap<SocketAddr, Left>,
    holders: &HashMap<IpAddr, &str>,
    now: Instant,
) -> BTreeMap<SocketAddr, Left> {
    let listed: HashSet<_> = led.virtual_addresses.iter().map(|(at, _)| at).collect();
    let virtuals = had.virtual_addresses.iter().map(|(at, _)| at).filter(|at| !listed.contains(at));
    let endpoints = had.endpoints.keys().filter(|at| !led.endpoints.contains_key(at));
    let all = endpoints.map(|at| (at, What::Endpoint)).chain(virtuals.map(|at| (at, What::Virtual)));
    let one = |(at, what): (&SocketAddr, What)| {
        let pod = || holders.get(&at.ip()).map(|uid| (*uid).to_owned());
        let left = known.remove(at).filter(|left| left.what == what);
        (*at, left.unwrap_or_else(|| Left { what, until: now + GRACE, pod: pod() }))
    };
    all.map(one).collect()
}

/// By their addresses, the UIDs of the pods of this node.
fn holders(pods: &Pods) -> HashMap<IpAddr, &str> {
    let own = pods.values().filter(|pod| !pod.host_network);
    own.flat_map(|pod| pod.addresses.iter().map(|ip| (ip.to_canonical(), pod.uid.as_str()))).collect()
}

/// The Services without what has left one of them and is another's by now.
pub(super) fn unless_taken<'s>(all: &'s [Service], resolved: &Resolved) -> Cow<'s, [Service]> {
    if all.iter().all(|service| service.left.is_empty()) {
        return Cow::Borrowed(all);
    }
    let held = |service: &'s Service| {
        let endpoints = service.addresses.iter().flat_map(|of| addresses(of, resolved)).map(|(at, _)| canonical(at));
        let virtuals = service.virtual_addresses.iter().map(|v| SocketAddr::new(v.ip, v.port));
        endpoints.chain(virtuals).filter(|at| !service.left.contains(at))
    };
    let held: HashSet<_> = all.iter().flat_map(held).collect();
    if all.iter().all(|service| service.left.iter().all(|at| !held.contains(at))) {
        return Cow::Borrowed(all);
    }
    let mut all = all.to_vec();
    for service in &mut all {
        let Service { addresses: endpoints, virtual_addresses, left, .. } = service;
        let is_taken = |at: SocketAddr| left.contains(&at) && held.contains(&at);
        endpoints.retain(|of| addresses(of, resolved).all(|(at, _)| !is_taken(canonical(at))));
        virtual_addresses.retain(|v| !is_taken(SocketAddr::new(v.ip, v.port)));
    }
    Cow::Owned(all)
}

/// Longer than anybody has an answer of the cluster's DNS, which says 5 to 30 s.
pub const GRACE: Duration = Duration::from_secs(60);
/// Of one Service.
pub const MOST: usize = 1_024;
/// Of all together.
pub const MOST_OF_ALL: usize = 4_096;
pub(super) const UNLISTED: &str = "it has not been listed yet; what the Service led to before stays until then";

#[cfg(test)]
mod tests;
