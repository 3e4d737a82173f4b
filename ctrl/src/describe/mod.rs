//! What one Service, Policy or trust domain is, in all its parts: what is configured, what that has come to, and
//! who depends on it.
//!
//! ```text
//!   Core: configuration, names, cluster, last snapshot ─ Facts ─▶ Service │ Policy │ Bundle ─┐
//!   dataplane: calls, rules, living connections ───────────────────────────── count ─────────┴─▶ admin, CLI
//! ```
//! It is made when somebody asks, for one of them: with 10,000 Services none is described for nobody. What is not
//! known (no dataplane answers, no snapshot was made) is left empty, and said; it is no zero.

pub mod bundle;
mod find;
mod here;
pub mod policy;
pub mod service;
mod since;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use snapshot::{RuleId, Snapshot, Version};
use tokio::sync::oneshot;

pub use bundle::Bundle;
pub use find::{Kind, Unknown, find};
pub use policy::Policy;
pub use service::Service;
pub use since::{Since, Stood};

use crate::config::{Diagnostic, Loaded, Place};

/// Who is asked about, and where the answer goes.
#[derive(Debug)]
pub enum Asked {
    Service(String, oneshot::Sender<Answer<Service>>),
    Policy(String, oneshot::Sender<Answer<Policy>>),
    Bundle(String, oneshot::Sender<Answer<Bundle>>),
}

pub type Answer<T> = Result<Box<T>, Unknown>;

/// What all descriptions are made of.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'f> {
    pub loaded: &'f Loaded,
    /// The last that was made. None: none was yet.
    pub snapshot: Option<&'f Snapshot>,
    pub since: &'f Since,
    /// Of assembling what is in force.
    pub warnings: &'f [Diagnostic],
    /// What the dataplane has, if there is one.
    pub in_force: Option<Version>,
    /// Seconds since the epoch.
    pub now: u64,
}

/// Since when it is as it is, and what is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The first snapshot that had it as it is. None: no snapshot has it yet.
    pub since: Option<Version>,
    /// That is the first one this process can compare, so it may have been so before.
    pub or_before: bool,
    /// The snapshot that was made last.
    pub made: Option<Version>,
    /// The one that the dataplane has. None: there is no dataplane, or it has none.
    pub in_force: Option<Version>,
}

impl Facts<'_> {
    fn revision(&self, stood: Option<Stood>) -> Revision {
        Revision {
            since: stood.map(|stood| stood.since),
            or_before: stood.is_some_and(|stood| stood.or_before),
            made: self.snapshot.map(|snapshot| snapshot.version),
            in_force: self.in_force,
        }
    }

    /// What was warned of at one of these places, but for the field `told`, of which the caller knows better.
    fn warned_at(&self, places: &[&Place], told: &str) -> Vec<String> {
        let places: HashSet<_> = places.iter().map(|place| (&*place.file, place.line, place.column)).collect();
        let is_at = |warning: &&Diagnostic| {
            warning.path != told && places.contains(&(warning.file.as_str(), warning.line, warning.column))
        };
        let mut found: Vec<String> = Vec::new();
        for warning in self.loaded.warnings.iter().chain(self.warnings).filter(is_at) {
            let line = match warning.line {
                0 => format!("{} ({})", warning.message, warning.file),
                line => format!("{} ({}:{line})", warning.message, warning.file),
            };
            if !found.contains(&line) {
                found.push(line);
            }
        }
        found
    }
}

/// `shop/frontend spec.egress[0] (policy.yaml:31)`, as every view names a rule.
fn named(snapshot: &Snapshot, rule: RuleId) -> String {
    let rule = &snapshot.rules[rule.0 as usize];
    format!("{} ({})", rule.name, rule.place)
}
