//! What was answered for one name: each family by itself, since one may fail while the other answers.

use std::net::IpAddr;
use std::time::Duration;

/// A TTL counts as this at the least and at the most: none of a resolver's may be asked for without a pause,
/// or never again.
pub const SHORTEST: Duration = Duration::from_secs(1);
pub const LONGEST: Duration = Duration::from_secs(3_600);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub v4: Found,
    pub v6: Found,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// With the TTL of each, which is that of the whole chain of names to it at the most.
    Addresses(Vec<(IpAddr, Duration)>),
    /// There are none, or the name does not exist; what the server said.
    None(String),
    /// Nobody knows: SERVFAIL, no answer in time, no server.
    Failed(String),
}

impl Answer {
    /// The same for both families.
    pub fn failed(why: impl Into<String>) -> Self {
        let why = why.into();
        Self { v4: Found::Failed(why.clone()), v6: Found::Failed(why) }
    }

    /// Whether there is an address.
    pub fn is_known(&self) -> bool {
        [&self.v4, &self.v6].iter().any(|found| matches!(found, Found::Addresses(_)))
    }

    /// Whether one family is not known at all.
    pub fn has_failed(&self) -> bool {
        [&self.v4, &self.v6].iter().any(|found| matches!(found, Found::Failed(_)))
    }

    /// Why older addresses have to serve. None: nothing of it failed, and there is an address.
    pub fn failure(&self) -> Option<String> {
        match (&self.v4, &self.v6) {
            (Found::Addresses(_), Found::Failed(why)) => Some(format!("AAAA: {why}")),
            (Found::Failed(why), Found::Addresses(_)) => Some(format!("A: {why}")),
            (Found::Addresses(_), _) | (_, Found::Addresses(_)) => None,
            (Found::Failed(why), _) | (_, Found::Failed(why)) | (Found::None(why), Found::None(_)) => Some(why.clone()),
        }
    }

    /// What takes the place of all addresses of a family that were known, and how long it is good. None:
    /// nothing does. That one family is empty is an answer where the other is not; that both are is a failure.
    pub fn replaces<'a>(&self, found: &'a Found) -> Option<(&'a [(IpAddr, Duration)], Option<Duration>)> {
        match found {
            Found::Addresses(addresses) => Some((addresses, addresses.iter().map(|(_, ttl)| *ttl).min())),
            Found::None(_) if self.is_known() => Some((&[], None)),
            Found::None(_) | Found::Failed(_) => None,
        }
    }
}

/// What a record's TTL counts as.
pub fn bounded(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into()).clamp(SHORTEST, LONGEST)
}
