//! What the Kubernetes API says: the pods of this node, our own resources, and the Services that those name,
//! listed and watched.
//!
//! ```text
//!   API server ── client ── follow (list, watch, list again) ─┬─▶ what is known ─▶ news ─▶ Core
//!                                                             └─▶ Watched ─▶ `sluice status`, metrics
//! ```
//! What is known stays while the API is away: who was who a moment ago still is. Nothing here decides
//! anything; which workload a pod is, [`crate::attest::pods`] says.

#[cfg(feature = "kubernetes")]
mod client;
#[cfg(feature = "kubernetes")]
mod fault;
#[cfg(feature = "kubernetes")]
mod follow;
#[cfg(feature = "kubernetes")]
pub mod listed;
#[cfg(feature = "kubernetes")]
mod login;
#[cfg(feature = "kubernetes")]
mod object;
#[cfg(feature = "kubernetes")]
mod pod;
#[cfg(feature = "kubernetes")]
mod report;
#[cfg(feature = "kubernetes")]
mod service;
#[cfg(feature = "kubernetes")]
mod services;
#[cfg(feature = "kubernetes")]
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};

use snapshot::Version;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::attest::pods::Pods;
use crate::config::objects::{Id, Object};
use crate::services::cluster::AllLed;
use crate::view;

#[cfg(feature = "kubernetes")]
pub use start::{start, start_with};

/// What is followed, while this lives.
#[derive(Debug)]
pub struct Feed {
    /// None: nothing has been listed yet. So below.
    pods: watch::Receiver<Option<Pods>>,
    /// Of one kind, of all namespaces or of one.
    resources: Vec<(&'static str, watch::Receiver<Option<Objects>>)>,
    named: watch::Sender<BTreeSet<String>>,
    services: watch::Receiver<Option<Followed>>,
    verdicts: watch::Sender<Verdicts>,
    live: Live,
    _tasks: JoinSet<()>,
}

/// By `namespace/name`.
type Objects = Arc<BTreeMap<String, Object>>;

/// Services that were named, as `namespace/name`, and where they lead.
pub type Followed = (BTreeSet<String>, AllLed);

/// What is to be said of each object.
pub type Verdicts = Arc<BTreeMap<Id, Verdict>>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub uid: String,
    pub generation: u64,
    pub in_force: bool,
    pub message: String,
    /// The first that had it, where it is in force.
    pub snapshot: Option<Version>,
    /// Seconds since the epoch.
    pub since: u64,
}

/// How each list that is followed is doing, now.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Mutex<Vec<Weak<Mutex<view::Watched>>>>>);

impl Live {
    pub fn now(&self) -> Vec<view::Watched> {
        let mut all = self.0.lock().expect("no holder panics");
        all.retain(|one| one.strong_count() > 0);
        let held = all.iter().filter_map(Weak::upgrade);
        held.map(|one| one.lock().expect("no holder panics").clone()).collect()
    }
}

impl Feed {
    /// The pods, if they are others than when this was asked last.
    pub fn new_pods(&mut self) -> Option<Pods> {
        let changed = self.pods.has_changed().unwrap_or(false);
        changed.then(|| self.pods.borrow_and_update().clone()).flatten()
    }

    /// All objects of all kinds, if some are others than when this was asked last. None until each list has
    /// been read once: what is missing would look like deleted.
    pub fn new_objects(&mut self) -> Option<BTreeMap<Id, Object>> {
        let changed = |(_, list): &(_, watch::Receiver<_>)| list.has_changed().unwrap_or(false);
        if !self.resources.iter().any(changed) || !self.resources.iter().all(|(_, list)| list.borrow().is_some()) {
            return None;
        }
        let mut all = BTreeMap::new();
        for (kind, list) in &mut self.resources {
            let objects = list.borrow_and_update().clone().unwrap_or_default();
            all.extend(objects.iter().map(|(name, object)| ((*kind, name.clone()), object.clone())));
        }
        Some(all)
    }

    pub fn live(&self) -> Live {
        self.live.clone()
    }

    /// Follows these, as `namespace/name`, and no others.
    pub fn name_services(&self, named: BTreeSet<String>) {
        self.named.send_if_modified(|before| std::mem::replace(before, named.clone()) != named);
    }

    /// Where the Services that are named lead, if that is elsewhere than when this was asked last.
    pub fn new_services(&mut self) -> Option<AllLed> {
        let changed = self.services.has_changed().unwrap_or(false);
        changed.then(|| self.services.borrow_and_update().clone().map(|(_, all)| all)).flatten()
    }

    /// Everything has been listed once.
    pub fn is_listed(&self) -> bool {
        let named = self.named.borrow();
        let services = named.is_empty() || self.services.borrow().as_ref().is_some_and(|(of, _)| *of == *named);
        services && self.pods.borrow().is_some() && self.resources.iter().all(|(_, list)| list.borrow().is_some())
    }

    pub fn follows_resources(&self) -> bool {
        !self.resources.is_empty()
    }

    /// To be written into the objects' statuses.
    pub fn say(&self, verdicts: Verdicts) {
        self.verdicts.send_if_modified(|said| {
            let other = *said != verdicts;
            *said = verdicts;
            other
        });
    }
}

/// The configuration refuses `spec.kubernetes` in a build without the feature.
#[cfg(not(feature = "kubernetes"))]
pub fn start(_: &crate::config::Gateway, _: &crate::source::News) -> Option<Feed> {
    None
}
