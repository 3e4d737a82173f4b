//! What the Kubernetes API says, as far as it changes what is in force.

use std::time::Duration;

use snapshot::Network;
use tracing::warn;

use super::Core;
use crate::attest::pods::{self, Filled, Pods};
use crate::config::Gateway;
use crate::kubernetes::{self, Feed, Live};
use crate::source::News;

/// How long the first snapshot waits for the first list. Without it pods are nobody, and a dataplane that
/// is being served would cut their connections.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Cluster {
    feed: Option<Feed>,
    /// As the API had them last.
    pods: Pods,
    news: News,
}

impl Cluster {
    pub fn of(gateway: &Gateway, news: &News) -> Self {
        Self { feed: kubernetes::start(gateway, news), pods: Pods::default(), news: news.clone() }
    }

    pub fn pods(&self) -> &Pods {
        &self.pods
    }

    pub fn live(&self) -> Live {
        self.feed.as_ref().map(Feed::live).unwrap_or_default()
    }

    /// Follows what another Gateway asks for. What is known stays until the new one has listed something,
    /// unless nothing is asked for any more.
    pub fn reopen(&mut self, before: &Gateway, now: &Gateway) {
        if before.kubernetes == now.kubernetes {
            return;
        }
        self.feed = kubernetes::start(now, &self.news);
        if self.feed.is_none() {
            self.pods = Pods::default();
        }
    }
}

impl Core {
    /// Takes over what is new.
    pub(super) fn hear_kubernetes(&mut self, network: &Network) {
        let Some(pods) = self.cluster.feed.as_mut().and_then(Feed::new_pods) else { return };
        self.cluster.pods = pods;
        match pods::fill(&mut self.loaded, &self.cluster.pods) {
            Filled::Nothing => {}
            Filled::Evidence => self.show(network),
            Filled::Places => self.inputs.changed(),
        }
    }

    pub(super) async fn await_kubernetes(&mut self, network: &Network, news: &News) {
        let listed = async {
            while self.cluster.feed.as_ref().is_some_and(|feed| !feed.is_listed()) {
                news.notified().await;
            }
        };
        if tokio::time::timeout(PATIENCE, listed).await.is_err() {
            warn!("the Kubernetes API has not listed the pods of this node yet; until it has, they are nobody");
        }
        self.hear_kubernetes(network);
    }
}
