//! SVIDs and bundles that a SPIRE agent pushes: of this process by the Workload API, of the node's workloads
//! by the Delegated Identity API.
//!
//! ```text
//!   socket ──────── link ┬─ FetchX509SVID ────────── feed (who has no selectors) ─┐
//!                        └─ FetchX509Bundles ─────── trust                        ├─▶ news, issue, bundle,
//!   adminSocket ─── link ┬─ SubscribeToX509SVIDs ─── feed (one a workload)        │   federated
//!                        └─ SubscribeToX509Bundles ─ trust                        ┘
//! ```
//! Each stream has a task that asks again for as long as it is wanted ([`stream`]). An SVID is held to the
//! rules that files are held to, under the bundle that came by the same socket; what is not right leaves the
//! last good in force. A refusal is no failure but a wait: it takes seconds until an agent hears of an entry.

mod fault;
mod feed;
mod link;
mod proto;
mod stream;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use snapshot::{Bundle, Svid};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::svid::{self, Expected};
use super::{Error, IssuedSvid, News, Renewal, Source, Wanted};
use crate::config::spire::{Selector, Spire as Config};
use crate::config::{SpiffeId, TrustDomain};
use crate::rotate::utc;

pub use fault::Fault;
pub(crate) use stream::back_off;

use feed::{Feed, Of, Shared, lock};
use link::Link;
use proto::delegated::delegated_identity_client::DelegatedIdentityClient;
use proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use proto::{X509BundlesRequest, X509svidRequest, delegated, types};
use stream::Line;
use trust::{Keeper, Trust};

/// The source.
pub struct Spire {
    config: Config,
    trust_domain: TrustDomain,
    news: News,
    /// From the first that is followed on: who only validates asks nobody.
    ourselves: Option<(Api, Subscription)>,
    delegated: Option<Api>,
    /// Each with the selectors that it is asked for by.
    workloads: BTreeMap<SpiffeId, (Vec<Selector>, Subscription)>,
}

/// One socket, and the bundles that come by it.
struct Api {
    link: Arc<Link>,
    trust: watch::Receiver<Trust>,
    hurry: Arc<Notify>,
    _task: Task,
}

struct Subscription {
    known: Shared,
    hurry: Arc<Notify>,
    _task: Task,
}

/// Ends with its owner.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Spire {
    pub fn new(config: Config, trust_domain: TrustDomain, news: News) -> Self {
        Self { config, trust_domain, news, ourselves: None, delegated: None, workloads: BTreeMap::new() }
    }

    fn expected(&self, wanted: &Wanted) -> Expected {
        Expected { id: wanted.id.clone(), workload: wanted.workload.clone(), trust_domain: self.trust_domain.clone() }
    }

    /// Those who have no selectors, out of the SVIDs of this process.
    fn follow_ourselves(&mut self, wanted: &[&Wanted]) {
        let expected: BTreeMap<_, _> = wanted.iter().map(|one| (one.id.clone(), self.expected(one))).collect();
        let Some(socket) = &self.config.socket else { return };
        if let Some((_, subscription)) = &self.ourselves {
            let mut known = lock(&subscription.known);
            if known.expected != expected {
                known.expected = expected;
                subscription.hurry.notify_one();
            }
            return;
        }
        let api = self.api(socket, move |channel| async move {
            client(channel)
                .max_decoding_message_size(LARGEST_BUNDLES)
                .fetch_x509_bundles(own(X509BundlesRequest {}))
                .await
        });
        let ask = |channel: Channel| async move {
            client(channel).max_decoding_message_size(LARGEST_SVIDS).fetch_x509svid(own(X509svidRequest {})).await
        };
        let subscription = self.subscribe(&api, Of::Ourselves, expected, ask);
        self.ourselves = Some((api, subscription));
    }

    fn follow_workload(&mut self, wanted: &Wanted, selectors: Vec<Selector>) {
        let Some(socket) = &self.config.admin_socket else { return };
        let same = |(by, subscription): &(Vec<Selector>, Subscription)| {
            let of = lock(&subscription.known).expected.get(&wanted.id).map(|one| one.workload.clone());
            *by == selectors && of.as_ref() == Some(&wanted.workload)
        };
        if self.workloads.get(&wanted.id).is_some_and(same) {
            return;
        }
        if self.delegated.is_none() {
            self.delegated = Some(self.api(socket, |channel| async move {
                let mut client = DelegatedIdentityClient::new(channel).max_decoding_message_size(LARGEST_BUNDLES);
                client.subscribe_to_x509_bundles(delegated::SubscribeToX509BundlesRequest {}).await
            }));
        }
        let asked: Vec<_> = selectors
            .iter()
            .map(|selector| types::Selector { r#type: selector.kind.clone(), value: selector.value.clone() })
            .collect();
        let ask = move |channel: Channel| {
            let request = delegated::SubscribeToX509sviDsRequest { selectors: asked.clone(), pid: 0 };
            async move {
                let mut client = DelegatedIdentityClient::new(channel).max_decoding_message_size(LARGEST_SVIDS);
                client.subscribe_to_x509svi_ds(request).await
            }
        };
        let expected = BTreeMap::from([(wanted.id.clone(), self.expected(wanted))]);
        let api = self.delegated.as_ref().expect("it was just made");
        let subscription = self.subscribe(api, Of::Workload, expected, ask);
        self.workloads.insert(wanted.id.clone(), (selectors, subscription));
    }

    fn api<M, Answer>(&self, socket: &Path, ask: impl Fn(Channel) -> Answer + Send + 'static) -> Api
    where
        M: Into<proto::Bundles> + Send + 'static,
        Answer: Future<Output = Result<Response<Streaming<M>>, Status>> + Send + 'static,
    {
        let link = Arc::new(Link::to(socket));
        let (sender, trust) = watch::channel(Trust::default());
        let hurry = Arc::<Notify>::default();
        let wait = "it does not give its bundles to sluice-ctrl yet".to_owned();
        // Nothing changes what a bundle means.
        let (_, world) = watch::channel(());
        let line = Line { link: link.clone(), wait, hurry: hurry.clone(), world };
        let keeper =
            Keeper { own: self.trust_domain.clone(), link: link.clone(), trust: sender, news: self.news.clone() };
        let task = tokio::spawn(stream::follow(line, ask, keeper));
        Api { link, trust, hurry, _task: Task(task) }
    }

    fn subscribe<M, Answer>(
        &self,
        api: &Api,
        of: Of,
        expected: BTreeMap<SpiffeId, Expected>,
        ask: impl Fn(Channel) -> Answer + Send + 'static,
    ) -> Subscription
    where
        M: Into<proto::Svids> + Send + 'static,
        Answer: Future<Output = Result<Response<Streaming<M>>, Status>> + Send + 'static,
    {
        let wait = match of {
            Of::Ourselves => "no entry for sluice-ctrl has reached the agent yet",
            Of::Workload => {
                "sluice-ctrl may not ask for others yet: its own SPIFFE ID has to stand in authorized_delegates of \
                 the agent, and its entry to have reached it"
            }
        };
        let (known, hurry) = (Shared::default(), Arc::<Notify>::default());
        lock(&known).expected = expected;
        let line = Line { link: api.link.clone(), wait: wait.into(), hurry: hurry.clone(), world: api.trust.clone() };
        let feed = Feed {
            of,
            link: api.link.clone(),
            trust: api.trust.clone(),
            trust_domain: self.trust_domain.clone(),
            known: known.clone(),
            news: self.news.clone(),
            last: None,
            fault: None,
        };
        Subscription { known, hurry, _task: Task(tokio::spawn(stream::follow(line, ask, feed))) }
    }

    fn apis(&self) -> impl Iterator<Item = &Api> {
        self.ourselves.iter().map(|(api, _)| api).chain(&self.delegated)
    }

    fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.ourselves.iter().map(|(_, own)| own).chain(self.workloads.values().map(|(_, one)| one))
    }

    /// Where this one's SVID comes from.
    fn of(&self, id: &SpiffeId) -> Option<(&Api, &Subscription)> {
        match (self.workloads.get(id), &self.delegated, &self.ourselves) {
            (Some((_, one)), Some(api), _) => Some((api, one)),
            (_, _, Some((api, own))) => Some((api, own)),
            (_, _, None) => None,
        }
    }
}

impl Source for Spire {
    fn issue(&self, wanted: &Wanted, now: u64) -> Result<IssuedSvid, Error> {
        let not_asked = || Fault::NotAsked { workload: wanted.workload.clone() };
        let (api, subscription) = self.of(&wanted.id).ok_or_else(not_asked)?;
        let known = lock(&subscription.known);
        let socket = api.link.path();
        match known.found.get(&wanted.id).and_then(|found| found.now()) {
            Some(Ok(held)) => {
                let Svid { not_before, not_after, .. } = held.issued.svid;
                svid::within(socket, "its chain", (not_before, not_after), now).map_err(Fault::from)?;
                Ok(held.issued.clone())
            }
            Some(Err(fault)) => Err(fault.clone().into()),
            None => Err(api.trust.borrow().missing(socket, &self.trust_domain).into()),
        }
    }

    fn bundle(&self) -> Bundle {
        let own = self.apis().flat_map(|api| api.trust.borrow().own.clone().unwrap_or_default());
        Bundle { trust_domain: self.trust_domain.to_string(), roots: own.collect() }
    }

    /// The Workload API gives those that this process federates with; of the agent's, those count that a
    /// workload federates with.
    fn federated(&self) -> Vec<Bundle> {
        let mut all: BTreeMap<TrustDomain, Vec<Vec<u8>>> = BTreeMap::new();
        if let Some((api, _)) = &self.ourselves {
            for (domain, roots) in &api.trust.borrow().federated {
                all.entry(domain.clone()).or_default().extend(roots.iter().cloned());
            }
        }
        if let Some(api) = &self.delegated {
            let trust = api.trust.borrow();
            for (_, subscription) in self.workloads.values() {
                for domain in &lock(&subscription.known).federates_with {
                    if let (Some(roots), false) = (trust.federated.get(domain), domain == &self.trust_domain) {
                        all.entry(domain.clone()).or_default().extend(roots.iter().cloned());
                    }
                }
            }
        }
        all.into_iter().map(|(domain, roots)| Bundle { trust_domain: domain.to_string(), roots }).collect()
    }

    fn warnings(&self, now: u64) -> Vec<String> {
        let mut found = Vec::new();
        for api in self.apis() {
            let trust = api.trust.borrow();
            found.extend(trust.faults.iter().filter(|fault| !fault.is_wait()).map(ToString::to_string));
            found.extend(trust.warnings.iter().cloned());
        }
        for subscription in self.subscriptions() {
            let known = lock(&subscription.known);
            for (id, held) in known.found.iter().filter_map(|(id, found)| Some((id, found.last_good()?))) {
                found.extend(held.warnings.iter().cloned());
                found.extend(late(id, &held.issued.svid, now));
            }
        }
        found
    }

    fn renewal(&self) -> Renewal {
        Renewal::Given
    }

    fn follow(&mut self, wanted: &[&Wanted]) {
        let ids: BTreeSet<_> = wanted.iter().map(|one| &one.id).collect();
        self.workloads.retain(|id, _| ids.contains(id));
        let mut own = Vec::new();
        for one in wanted {
            match self.config.selectors_of(&one.id, &one.workload) {
                Some(selectors) => self.follow_workload(one, selectors),
                None => own.push(*one),
            }
        }
        // Also for nobody: its bundles, and who is forgotten.
        if !own.is_empty() || self.ourselves.is_some() {
            self.follow_ourselves(&own);
        }
    }

    fn news(&self) -> Vec<SpiffeId> {
        let told = |subscription: &Subscription| {
            let mut known = lock(&subscription.known);
            let told = known.found.iter_mut().filter_map(|(id, found)| found.has_news().then(|| id.clone()));
            told.collect::<Vec<_>>()
        };
        self.subscriptions().flat_map(told).collect()
    }

    fn hurry(&self) {
        self.apis().for_each(|api| api.hurry.notify_one());
        self.subscriptions().for_each(|subscription| subscription.hurry.notify_one());
    }

    fn settled(&self) -> bool {
        let has_looked = |subscription: &Subscription| {
            let known = lock(&subscription.known);
            known.expected.keys().all(|id| known.found.get(id).is_some_and(|found| found.has_looked()))
        };
        self.apis().all(|api| api.trust.borrow().looked) && self.subscriptions().all(has_looked)
    }
}

fn client(channel: Channel) -> SpiffeWorkloadApiClient<Channel> {
    SpiffeWorkloadApiClient::new(channel)
}

/// Shows that no web page sent it (SPIFFE Workload Endpoint §3).
fn own<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

/// An agent renews at half-life, so that a third is late.
fn late(id: &SpiffeId, svid: &Svid, now: u64) -> Option<String> {
    let (life, left) = (svid.not_after.saturating_sub(svid.not_before), svid.not_after.saturating_sub(now));
    (left > 0 && left <= life / 3).then(|| {
        let end = utc(svid.not_after);
        format!("the SVID of {id} ends at {end}, and the SPIRE agent has not renewed it: see its log and its server's")
    })
}

/// Whether somebody listens at the sockets, for `sluice check`.
pub fn look(config: &Config) -> Result<(), String> {
    let sockets = config.socket.iter().chain(&config.admin_socket);
    let connect = |path: &std::path::PathBuf| {
        std::os::unix::net::UnixStream::connect(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    sockets.map(connect).try_for_each(|connected| connected.map(drop))
}

/// Small parts of a message take more in memory than on the wire, so there is little room for them.
const LARGEST_SVIDS: usize = 1 << 20;
const LARGEST_BUNDLES: usize = 4 << 20;
