//! How long a connection that stands may go on: when a change takes its permission, when its peer's
//! certificate ends, when it has simply lived long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a connection gets that a newer snapshot would not allow any more. Who an end is comes before
/// it: a revoked ID or serial, a root that is dropped and an address that is another's now are cut,
/// whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnChange {
    /// Reset on both legs.
    #[default]
    Cut,
    /// It may end by itself for [`Living::drain_for`], then it is cut.
    Drain,
    /// Left alone, counted and shown.
    Keep,
}

impl OnChange {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Drain => "drain",
            Self::Keep => "keep",
        }
    }
}

/// What a connection gets whose peer proved itself by a certificate that is not valid any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnPeerExpiry {
    /// Reset with the second in which it ends.
    Close,
    /// [`Living::expiry_grace`] later.
    Grace,
    /// Nothing. A certificate proves who somebody is when a connection begins, and TLS 1.3 has no way to
    /// show a newer one later.
    #[default]
    Ignore,
}

impl OnPeerExpiry {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Grace => "grace",
            Self::Ignore => "ignore",
        }
    }
}

/// Of one workload's connections, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Living {
    pub on_change: OnChange,
    pub drain_for: Duration,
    pub on_peer_expiry: OnPeerExpiry,
    pub expiry_grace: Duration,
    /// From when it stood. None: as long as it likes.
    pub max_age: Option<Duration>,
    /// How long one that is too old is given to end in order.
    pub age_grace: Duration,
}

impl Default for Living {
    fn default() -> Self {
        Self {
            on_change: OnChange::Cut,
            drain_for: Duration::from_secs(30),
            on_peer_expiry: OnPeerExpiry::Ignore,
            expiry_grace: Duration::from_secs(300),
            max_age: None,
            age_grace: Duration::from_secs(30),
        }
    }
}

impl Living {
    /// For a connection that is two workloads' at once: neither gets less than it asks for.
    pub fn stricter(self, other: Self) -> Self {
        Self {
            on_change: self.on_change.min(other.on_change),
            drain_for: self.drain_for.min(other.drain_for),
            on_peer_expiry: self.on_peer_expiry.min(other.on_peer_expiry),
            expiry_grace: self.expiry_grace.min(other.expiry_grace),
            max_age: [self.max_age, other.max_age].into_iter().flatten().min(),
            age_grace: self.age_grace.min(other.age_grace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_two_workloads_ends_when_the_first_of_them_wants_it_to() {
        let second = Duration::from_secs(1);
        let one = Living { on_change: OnChange::Keep, max_age: Some(second), ..Living::default() };
        let other = Living { on_change: OnChange::Drain, drain_for: second, max_age: None, ..Living::default() };
        let want = Living { on_change: OnChange::Drain, drain_for: second, max_age: Some(second), ..one };
        assert_eq!((one.stricter(other), other.stricter(one)), (want, want));
        let close = Living { on_peer_expiry: OnPeerExpiry::Close, ..one };
        assert_eq!(close.stricter(one).on_peer_expiry, OnPeerExpiry::Close);
    }
}
