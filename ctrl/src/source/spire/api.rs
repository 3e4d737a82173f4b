//! One API of an agent: the way to it, the bundles that come by it, and streams of SVIDs on it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::fault::Refusals;
use super::feed::{Feed, Of, Shared, lock};
use super::link::Link;
use super::proto::{Bundles, Svids};
use super::stream::{self, Line};
use super::trust::{Keeper, Trust};
use crate::config::{SpiffeId, TrustDomain};
use crate::source::News;
use crate::source::svid::Expected;

/// Whose APIs they are, and who hears of what comes.
#[derive(Clone)]
pub struct Home {
    pub trust_domain: TrustDomain,
    pub news: News,
}

/// One socket, and the bundles that come by it.
pub struct Api {
    pub link: Arc<Link>,
    pub trust: watch::Receiver<Trust>,
    pub hurry: Arc<Notify>,
    _task: Task,
}

/// A stream of SVIDs, with the bundles that they are judged by.
pub struct Subscription {
    pub known: Shared,
    pub link: Arc<Link>,
    pub trust: watch::Receiver<Trust>,
    pub hurry: Arc<Notify>,
    /// Rung when something else is known.
    pub changed: watch::Receiver<()>,
    pub(super) _task: Task,
}

/// Ends with its owner.
pub struct Task(pub JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Api {
    /// `ask` asks for the bundles.
    pub fn open<M, Answer>(home: &Home, socket: &Path, ask: impl Fn(Channel) -> Answer + Send + 'static) -> Self
    where
        M: Into<Bundles> + Send + 'static,
        Answer: Future<Output = Result<Response<Streaming<M>>, Status>> + Send + 'static,
    {
        let link = Arc::new(Link::to(socket));
        let (sender, trust) = watch::channel(Trust::default());
        let hurry = Arc::<Notify>::default();
        let refusals = refusals("it does not give its bundles to sluice-ctrl yet");
        // Nothing changes what a bundle means.
        let (_, world) = watch::channel(());
        let line = Line { link: link.clone(), refusals, hurry: hurry.clone(), world };
        let keeper =
            Keeper { own: home.trust_domain.clone(), link: link.clone(), trust: sender, news: home.news.clone() };
        let task = tokio::spawn(stream::follow(line, ask, keeper));
        Self { link, trust, hurry, _task: Task(task) }
    }

    /// `ask` asks for SVIDs.
    pub fn subscribe<M, Answer>(
        &self,
        home: &Home,
        of: Of,
        expected: BTreeMap<SpiffeId, Expected>,
        ask: impl Fn(Channel) -> Answer + Send + 'static,
    ) -> Subscription
    where
        M: Into<Svids> + Send + 'static,
        Answer: Future<Output = Result<Response<Streaming<M>>, Status>> + Send + 'static,
    {
        let wait = match of {
            Of::Workload => {
                "sluice-ctrl may not ask for others yet: its own SPIFFE ID has to stand in authorized_delegates of \
                 the agent, and its entry to have reached it"
            }
            Of::Ourselves | Of::Referenced => "no entry for sluice-ctrl has reached the agent yet",
        };
        let hurry = Arc::<Notify>::default();
        let (link, world) = (self.link.clone(), self.trust.clone());
        let line = Line { link: link.clone(), refusals: refusals(wait), hurry: hurry.clone(), world };
        let (feed, changed) = feed(home, of, link.clone(), self.trust.clone(), expected);
        let known = feed.known.clone();
        let task = tokio::spawn(stream::follow(line, ask, feed));
        Subscription { known, link, trust: self.trust.clone(), hurry, changed, _task: Task(task) }
    }
}

/// One that has heard nothing, and what is rung when it has.
pub fn feed(
    home: &Home,
    of: Of,
    link: Arc<Link>,
    trust: watch::Receiver<Trust>,
    expected: BTreeMap<SpiffeId, Expected>,
) -> (Feed, watch::Receiver<()>) {
    let (known, (changed, heard)) = (Shared::default(), watch::channel(()));
    lock(&known).expected = expected;
    let (trust_domain, news) = (home.trust_domain.clone(), home.news.clone());
    (Feed { of, link, trust, trust_domain, known, news, changed, last: None, fault: None }, heard)
}

fn refusals(wait: &str) -> Refusals {
    let unknown = "`socket` is the agent's socket_path, `adminSocket` its admin_socket_path";
    Refusals { denied: wait.to_owned(), not_found: None, unknown }
}
