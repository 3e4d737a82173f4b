//! Names of services to addresses: the Gateway's `hosts` first, then /etc/hosts, then DNS.
//!
//! [`Lookups`] asks for each name as often as its records' TTLs say, and [`Resolved`] is what it has come to.
//! A name that does not resolve keeps the addresses that it had, and the failure is reported: a resolver that
//! is down must not take the captures down with it. Addresses that an answer no longer holds stay captured for
//! twice their TTL (D11), because clients go on using what they looked up before; they are given no calls of
//! virtual addresses any more.

mod answer;
mod dns;
mod lookups;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

pub use answer::{Answer, Found, SHORTEST};
pub use dns::Dns;
pub use lookups::{Counts, Lookups};
pub use told::{LastFailure, Told, ToldAddress};

use crate::config::{Gateway, Loaded, Service, Target};

/// Addresses of one name, those that were replaced too. Of more, those that come first in the order of
/// addresses are taken, so that the same are whatever the order of an answer is.
pub const MOST_ADDRESSES: usize = 512;

/// What each name stands for now. Times are milliseconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    names: BTreeMap<String, Name>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Name {
    addresses: BTreeMap<IpAddr, Seen>,
    failure: Option<String>,
    /// Addresses that there was no room for.
    left_out: usize,
    last_failure: Option<LastFailure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    ttl: Duration,
    /// When it is forgotten. None: the last answer has it.
    until: Option<u64>,
}

/// A name that could not be resolved, and whether older addresses still serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub name: String,
    pub reason: String,
    pub kept: usize,
}

impl Resolved {
    /// In a fixed order, those that were replaced too.
    pub fn addresses(&self, name: &str) -> impl Iterator<Item = IpAddr> {
        self.names.get(name).into_iter().flat_map(|name| name.addresses.keys().copied())
    }

    /// Whether the last answer has it.
    pub fn is_current(&self, name: &str, address: IpAddr) -> bool {
        self.names.get(name).and_then(|name| name.addresses.get(&address)).is_some_and(|seen| seen.until.is_none())
    }

    /// Whether all names lead to the same addresses, and the same do not resolve.
    pub fn leads_where(&self, other: &Self) -> bool {
        let leads = |name: &Name| {
            let addresses = name.addresses.iter().map(|(address, seen)| (*address, seen.until.is_none()));
            (addresses.collect::<Vec<_>>(), name.failure.clone(), name.left_out)
        };
        self.names.len() == other.names.len()
            && self.names.iter().zip(&other.names).all(|((one, a), (other, b))| one == other && leads(a) == leads(b))
    }

    pub fn failures(&self) -> Vec<Failure> {
        let failure = |(name, of): (&String, &Name)| {
            let reason = of.failure.clone()?;
            Some(Failure { name: name.clone(), reason, kept: of.addresses.len() })
        };
        self.names.iter().filter_map(failure).collect()
    }

    /// Names with more addresses than are taken, and how many are left out.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, usize)> {
        self.names.iter().filter(|(_, of)| of.left_out > 0).map(|(name, of)| (name.as_str(), of.left_out))
    }

    /// Takes what was answered for `name` at `now`. How long it is good.
    pub fn take(&mut self, name: &str, answer: &Answer, now: u64) -> Option<Duration> {
        let of = self.names.entry(name.to_owned()).or_default();
        of.failure = answer.failure();
        if let Some(why) = of.failure.clone() {
            of.last_failure = Some(LastFailure { at: now / 1000, why });
        }
        of.left_out = 0;
        let mut good = None;
        for (found, v4) in [(&answer.v4, true), (&answer.v6, false)] {
            let Some(addresses) = answer.replaces(found) else { continue };
            good = good.into_iter().chain(addresses.iter().map(|(_, ttl)| *ttl)).min();
            for (_, seen) in of.addresses.iter_mut().filter(|(address, _)| address.is_ipv4() == v4) {
                seen.until.get_or_insert(now + 2 * seen.ttl.as_millis() as u64);
            }
            for &(address, ttl) in addresses {
                of.addresses.insert(address, Seen { ttl, until: None });
            }
        }
        of.forget(now);
        of.bound();
        good
    }

    /// What the configuration says, without asking anybody. It replaces at once: the file is the authority.
    fn fix(&mut self, name: &str, addresses: &[IpAddr]) {
        let seen = Seen { ttl: Duration::ZERO, until: None };
        let addresses = addresses.iter().map(|address| (*address, seen)).collect();
        self.names.insert(name.to_owned(), Name { addresses, ..Name::default() });
    }

    /// Forgets what was replaced long enough ago. True: something was.
    fn forget(&mut self, now: u64) -> bool {
        self.names.values_mut().fold(false, |any, name| name.forget(now) | any)
    }

    /// When [`forget`](Self::forget) has something to do.
    fn next_end(&self) -> Option<u64> {
        self.names.values().flat_map(|name| name.addresses.values()).filter_map(|seen| seen.until).min()
    }
}

impl Name {
    fn forget(&mut self, now: u64) -> bool {
        let before = self.addresses.len();
        self.addresses.retain(|_, seen| seen.until.is_none_or(|until| now < until));
        self.addresses.len() < before
    }

    /// Those that were replaced go first, the one whose time is over soonest before all others.
    fn bound(&mut self) {
        while self.addresses.len() > MOST_ADDRESSES {
            let replaced = self.addresses.iter().filter_map(|(address, seen)| Some((seen.until?, *address))).min();
            match replaced {
                Some((_, address)) => drop(self.addresses.remove(&address)),
                None => {
                    self.addresses.pop_last();
                    self.left_out += 1;
                }
            }
        }
    }
}

/// The names that services use, each once.
pub fn names(services: &[Service]) -> BTreeSet<&str> {
    let addresses = services.iter().flat_map(|service| &service.addresses);
    addresses
        .filter_map(|address| match &address.target {
            Target::Name(name) => Some(name.as_str()),
            Target::Ip(_) => None,
        })
        .collect()
}

/// What `hosts` answers without asking anybody.
fn from_hosts<'g>(gateway: &'g Gateway, name: &str) -> Option<&'g [IpAddr]> {
    gateway.hosts.get(name).map(Vec::as_slice)
}

/// What `hosts` alone says of the names of a configuration.
pub fn of_hosts(loaded: &Loaded) -> Resolved {
    let mut resolved = Resolved::default();
    for name in names(&loaded.services) {
        if let Some(addresses) = from_hosts(&loaded.gateway, name) {
            resolved.fix(name, addresses);
        }
    }
    resolved
}

#[cfg(test)]
mod tests;
