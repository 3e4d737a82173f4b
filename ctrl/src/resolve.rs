//! Names of services to addresses: the Gateway's `hosts` first, then the system's resolver.
//!
//! A name that does not resolve keeps the addresses that it had, and the failure is reported: a
//! resolver that is down must not take the captures down with it. Addresses that an answer no
//! longer holds stay for [`HOLD`], because clients go on using what they looked up before (the
//! system's resolver does not tell the record's TTL, so a common one is taken, twice).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;

use crate::config::{Gateway, Loaded, Service, Target};

/// How long a replaced address stays.
pub const HOLD: u64 = 60;

/// What each name stands for now. Times are seconds since the epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    names: BTreeMap<String, BTreeMap<IpAddr, u64>>,
    failures: BTreeMap<String, String>,
}

/// A name that could not be resolved, and whether older addresses still serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub name: String,
    pub reason: String,
    pub kept: usize,
}

/// One answer of the resolver.
pub type Answer = Result<Vec<IpAddr>, String>;

impl Resolved {
    /// In a fixed order.
    pub fn addresses(&self, name: &str) -> impl Iterator<Item = IpAddr> {
        self.names.get(name).into_iter().flat_map(|seen| seen.keys().copied())
    }

    /// Whether all names lead to the same addresses, and the same do not resolve.
    pub fn leads_where(&self, other: &Self) -> bool {
        let addresses = |(name, seen): &(&String, &BTreeMap<IpAddr, u64>),
                         (other, then): &(&String, &BTreeMap<_, _>)| {
            name == other && seen.keys().eq(then.keys())
        };
        self.failures == other.failures
            && self.names.len() == other.names.len()
            && self.names.iter().zip(&other.names).all(|(one, other)| addresses(&one, &other))
    }

    pub fn failures(&self) -> Vec<Failure> {
        let kept = |name: &String| self.names.get(name).map_or(0, BTreeMap::len);
        self.failures
            .iter()
            .map(|(name, reason)| Failure { name: name.clone(), reason: reason.clone(), kept: kept(name) })
            .collect()
    }

    /// The state after these answers: names that were not asked for are forgotten.
    pub fn after(&self, answers: BTreeMap<String, Answer>, now: u64) -> Self {
        let mut next = Self::default();
        for (name, answer) in answers {
            let mut seen = self.names.get(&name).cloned().unwrap_or_default();
            match answer {
                Ok(addresses) if !addresses.is_empty() => {
                    seen.retain(|_, last| now < last.saturating_add(HOLD));
                    seen.extend(addresses.into_iter().map(|address| (address, now)));
                }
                Ok(_) => drop(next.failures.insert(name.clone(), "the name has no address".into())),
                Err(reason) => drop(next.failures.insert(name.clone(), reason)),
            }
            next.names.insert(name, seen);
        }
        next
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

/// What `hosts` answers without asking anybody. These replace at once: the file is the authority.
fn from_hosts(gateway: &Gateway, name: &str) -> Option<Answer> {
    gateway.hosts.get(name).map(|addresses| Ok(addresses.clone()))
}

/// Looks all names up at the same time, each within `timeout`.
pub async fn resolve(loaded: &Loaded, previous: &Resolved, timeout: Duration, now: u64) -> Resolved {
    let mut answers = BTreeMap::new();
    let mut asked = tokio::task::JoinSet::new();
    let mut previous = previous.clone();
    for name in names(&loaded.services) {
        match from_hosts(&loaded.gateway, name) {
            Some(answer) => {
                previous.names.remove(name);
                answers.insert(name.to_owned(), answer);
            }
            None => drop(asked.spawn(look_up(name.to_owned(), timeout))),
        }
    }
    while let Some(done) = asked.join_next().await {
        if let Ok((name, answer)) = done {
            answers.insert(name, answer);
        }
    }
    previous.after(answers, now)
}

async fn look_up(name: String, timeout: Duration) -> (String, Answer) {
    let answer = match tokio::time::timeout(timeout, tokio::net::lookup_host((name.as_str(), 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {timeout:?}")),
    };
    (name, answer)
}
