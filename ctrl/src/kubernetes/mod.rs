//! What the Kubernetes API says: the pods of this node, listed and watched.
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
pub mod follow;
#[cfg(feature = "kubernetes")]
mod pod;

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::attest::pods::Pods;
use crate::config::Gateway;
use crate::source::News;
use crate::view;

/// What is followed, while this lives.
#[derive(Debug)]
pub struct Feed {
    /// None: nothing has been listed yet.
    pods: watch::Receiver<Option<Pods>>,
    live: Live,
    _tasks: JoinSet<()>,
}

/// How each list is doing, now.
#[derive(Debug, Clone, Default)]
pub struct Live(Vec<Arc<Mutex<view::Watched>>>);

impl Live {
    pub fn now(&self) -> Vec<view::Watched> {
        self.0.iter().map(|one| one.lock().expect("no holder panics").clone()).collect()
    }
}

impl Feed {
    /// The pods, if they are others than when this was asked last.
    pub fn new_pods(&mut self) -> Option<Pods> {
        let changed = self.pods.has_changed().unwrap_or(false);
        changed.then(|| self.pods.borrow_and_update().clone()).flatten()
    }

    pub fn live(&self) -> Live {
        self.live.clone()
    }

    /// Everything has been listed once.
    pub fn is_listed(&self) -> bool {
        self.pods.borrow().is_some()
    }
}

/// Follows what the Gateway asks for; None if it asks for nothing.
#[cfg(feature = "kubernetes")]
pub fn start(gateway: &Gateway, news: &News) -> Option<Feed> {
    start_with(gateway, news, follow::Patience::default())
}

#[cfg(feature = "kubernetes")]
pub fn start_with(gateway: &Gateway, news: &News, patience: follow::Patience) -> Option<Feed> {
    let spec = gateway.kubernetes.as_ref()?;
    let node = spec.node.clone().or_else(|| std::env::var("NODE_NAME").ok()).unwrap_or_else(|| gateway.name.clone());
    let (pods, pods_out) = watch::channel(None);
    let mut feed = Feed { pods: pods_out, live: Live::default(), _tasks: JoinSet::new() };
    let asked = follow::Asked {
        path: "/api/v1/pods".into(),
        fields: Some(format!("spec.nodeName={node}")),
        what: format!("pods of node {node}"),
        resource: "pods",
        group: "",
    };
    let shown = Arc::new(Mutex::new(view::Watched { what: asked.what.clone(), ..view::Watched::default() }));
    feed.live.0.push(shown.clone());
    let follower = follow::Follower::<pod::Listed>::new(spec.clone(), asked, patience, pods, shown, news.clone());
    feed._tasks.spawn(follower.run());
    Some(feed)
}

/// The configuration refuses `spec.kubernetes` in a build without the feature.
#[cfg(not(feature = "kubernetes"))]
pub fn start(_: &Gateway, _: &News) -> Option<Feed> {
    None
}
