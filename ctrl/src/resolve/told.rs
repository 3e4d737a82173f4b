//! What a name has come to, as people see it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Lookups, Name, from_hosts};
use crate::config::Gateway;

/// Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    pub name: String,
    /// The Gateway's `hosts` say so, and nobody is asked.
    pub is_fixed: bool,
    pub addresses: Vec<ToldAddress>,
    /// The last look-up failed, and what was known stays.
    pub is_failing: bool,
    pub last_failure: Option<LastFailure>,
    /// Addresses beyond those that are taken.
    pub left_out: usize,
    /// Seconds until it is asked for again; None while it is, or where nobody is asked.
    pub next_in: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldAddress {
    pub address: IpAddr,
    /// In seconds. None: it has none.
    pub ttl: Option<u64>,
    /// Until when it stays captured, since the last answer has it no more.
    pub replaced_until: Option<u64>,
}

/// Kept when later look-ups are well: a name that fails now and then is a name to look after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    pub at: u64,
    pub why: String,
}

impl Lookups {
    pub fn told(&self, gateway: &Gateway, name: &str) -> Told {
        if let Some(fixed) = from_hosts(gateway, name) {
            let address = |&address| ToldAddress { address, ttl: None, replaced_until: None };
            let addresses = fixed.iter().map(address).collect();
            return Told { name: name.into(), is_fixed: true, addresses, ..Told::default() };
        }
        let told = self.resolved.names.get(name).map(|of| of.told(name));
        Told { next_in: self.next_in(name), ..told.unwrap_or(Told { name: name.into(), ..Told::default() }) }
    }
}

impl Name {
    fn told(&self, name: &str) -> Told {
        let address = |(address, seen): (&IpAddr, &super::Seen)| ToldAddress {
            address: *address,
            ttl: Some(seen.ttl.as_secs()),
            replaced_until: seen.until.map(|until| until.div_ceil(1000)),
        };
        Told {
            name: name.to_owned(),
            addresses: self.addresses.iter().map(address).collect(),
            is_failing: self.failure.is_some(),
            last_failure: self.last_failure.clone(),
            left_out: self.left_out,
            ..Told::default()
        }
    }
}
