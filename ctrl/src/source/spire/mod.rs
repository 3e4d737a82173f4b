//! SVIDs and bundles that a SPIRE agent pushes: of this process by the Workload API, of the node's workloads
//! by the Delegated Identity API or the SPIFFE Broker API.
//!
//! ```text
//!   socket ──────── link ┬─ FetchX509SVID ────────── feed (who has no other way) ─┐
//!       │                └─ FetchX509Bundles ─────── trust                        │
//!       │ our own SVID                                                            ├─▶ news, issue, bundle,
//!       ▼                                                                         │   federated
//!   broker ──────── link ── SubscribeToX509SVID ──── feed and trust (a workload) ─┤
//!   adminSocket ─── link ┬─ SubscribeToX509SVIDs ─── feed (a workload) ───────────┤
//!                        └─ SubscribeToX509Bundles ─ trust                        ┘
//! ```
//! Each stream has a task that asks again for as long as it is wanted ([`stream`]). An SVID is held to the
//! rules that files are held to, under the bundle that came by the same socket; what is not right leaves the
//! last good in force. A refusal is no failure but a wait: it takes seconds until an agent hears of an entry.

mod api;
mod broker;
mod fault;
mod feed;
mod link;
mod look;
mod mutual;
mod proto;
mod stream;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use snapshot::{Bundle, Svid};
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

use super::svid::{self, Expected};
use super::{Error, IssuedSvid, News, Renewal, Source, Wanted};
use crate::config::broker::To;
use crate::config::spire::{Selector, Spire as Config};
use crate::config::{SpiffeId, TrustDomain};
use crate::rotate::utc;

pub use fault::Fault;
pub use look::{look, look_at_broker};
pub(crate) use stream::back_off;

use api::{Api, Home, Subscription};
use broker::{Broker, Referenced};
use feed::{Known, Of, lock};
use proto::delegated::delegated_identity_client::DelegatedIdentityClient;
use proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use proto::{X509BundlesRequest, X509svidRequest, delegated, types};
use trust::Trust;

/// The source.
pub struct Spire {
    config: Config,
    home: Home,
    /// From the first that is followed on: who only validates asks nobody.
    ourselves: Option<(Api, Subscription)>,
    delegated: Option<Api>,
    broker: Option<Broker>,
    workloads: BTreeMap<SpiffeId, (By, Subscription)>,
}

/// How one workload is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    Selectors(Vec<Selector>),
    Reference(Referenced),
}

/// Where a workload's SVID is to come from.
enum Route {
    Ourselves,
    Asked(By),
    /// By a pod that there is not.
    NoPod,
}

impl Spire {
    pub fn new(config: Config, trust_domain: TrustDomain, news: News) -> Self {
        let home = Home { trust_domain, news };
        Self { config, home, ourselves: None, delegated: None, broker: None, workloads: BTreeMap::new() }
    }

    fn expected(&self, wanted: &Wanted) -> Expected {
        let trust_domain = self.home.trust_domain.clone();
        Expected { id: wanted.id.clone(), workload: wanted.workload.clone(), trust_domain }
    }

    fn route(&self, wanted: &Wanted) -> Route {
        if let Some(selectors) = self.config.selectors_of(&wanted.id, &wanted.workload) {
            return Route::Asked(By::Selectors(selectors));
        }
        let broker = self.config.broker.as_ref();
        match broker.and_then(|broker| broker.reference_of(&wanted.id, &wanted.workload)) {
            Some(To::Object(object)) => Route::Asked(By::Reference(Referenced::Object(object))),
            Some(To::AttestedPod) => match self.pod(wanted) {
                Some(pod) => Route::Asked(By::Reference(pod)),
                None => Route::NoPod,
            },
            None => Route::Ourselves,
        }
    }

    /// The one that it is asked about by already, if that is still there.
    fn pod(&self, wanted: &Wanted) -> Option<Referenced> {
        let all = || wanted.pods.iter().cloned().map(Referenced::Pod);
        let asked = self.workloads.get(&wanted.id).map(|(by, _)| by);
        all().find(|pod| matches!(asked, Some(By::Reference(asked)) if asked == pod)).or_else(|| all().next())
    }

    /// Those who have no other way, out of the SVIDs of this process; and the one that it shows itself.
    fn follow_ourselves(&mut self, wanted: &[&Wanted], shown: Option<Expected>) {
        let Some(socket) = &self.config.socket else { return };
        let mut expected: BTreeMap<_, _> = shown.into_iter().map(|shown| (shown.id.clone(), shown)).collect();
        expected.extend(wanted.iter().map(|one| (one.id.clone(), self.expected(one))));
        if let Some((_, subscription)) = &self.ourselves {
            let mut known = lock(&subscription.known);
            if known.expected != expected {
                known.expected = expected;
                subscription.hurry.notify_one();
            }
            return;
        }
        let api = Api::open(&self.home, socket, move |channel| async move {
            client(channel)
                .max_decoding_message_size(LARGEST_BUNDLES)
                .fetch_x509_bundles(own(X509BundlesRequest {}))
                .await
        });
        let ask = |channel: Channel| async move {
            client(channel).max_decoding_message_size(LARGEST_SVIDS).fetch_x509svid(own(X509svidRequest {})).await
        };
        let subscription = api.subscribe(&self.home, Of::Ourselves, expected, ask);
        self.ourselves = Some((api, subscription));
    }

    fn follow_workload(&mut self, wanted: &Wanted, by: By) {
        let same = |(before, subscription): &(By, Subscription)| {
            let of = lock(&subscription.known).expected.get(&wanted.id).map(|one| one.workload.clone());
            *before == by && of.as_ref() == Some(&wanted.workload)
        };
        if self.workloads.get(&wanted.id).is_some_and(same) {
            return;
        }
        let expected = self.expected(wanted);
        let before = self.workloads.remove(&wanted.id).map(|(_, before)| before);
        let trust = before.as_ref().map(|before| before.trust.borrow().known()).unwrap_or_default();
        let subscription = match &by {
            By::Selectors(selectors) => self.by_selectors(selectors, expected),
            By::Reference(about) => self.by_reference(about, expected, trust),
        };
        let Some(subscription) = subscription else { return };
        // Asked about by something else, it has the same peers, and nobody is to be cut until there is an answer.
        if let Some(before) = before {
            lock(&subscription.known).federates_with.clone_from(&lock(&before.known).federates_with);
        }
        self.workloads.insert(wanted.id.clone(), (by, subscription));
    }

    fn by_selectors(&mut self, selectors: &[Selector], expected: Expected) -> Option<Subscription> {
        let (home, socket) = (&self.home, self.config.admin_socket.as_ref()?);
        let api = self.delegated.get_or_insert_with(|| {
            Api::open(home, socket, |channel| async move {
                let mut client = DelegatedIdentityClient::new(channel).max_decoding_message_size(LARGEST_BUNDLES);
                client.subscribe_to_x509_bundles(delegated::SubscribeToX509BundlesRequest {}).await
            })
        });
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
        let expected = BTreeMap::from([(expected.id.clone(), expected)]);
        Some(api.subscribe(home, Of::Workload, expected, ask))
    }

    fn by_reference(&mut self, about: &Referenced, expected: Expected, trust: Trust) -> Option<Subscription> {
        let (home, config) = (&self.home, self.config.broker.as_ref()?);
        let (_, ourselves) = self.ourselves.as_ref()?;
        let broker = self.broker.get_or_insert_with(|| Broker::open(config, home, ourselves));
        Some(broker.subscribe(home, about, expected, trust))
    }

    /// Whose SVID is shown to the broker endpoint.
    fn shown(&self) -> Option<Expected> {
        let id = self.config.broker.as_ref()?.id.clone();
        Some(Expected { id, workload: "sluice-ctrl".into(), trust_domain: self.home.trust_domain.clone() })
    }

    /// What is wrong with it, while the last good one still serves.
    fn own_fault(&self) -> Option<String> {
        let shown = &self.config.broker.as_ref()?.id;
        let known = lock(&self.ourselves.as_ref()?.1.known);
        let found = known.found.get(shown).filter(|found| found.last_good().is_some())?;
        let fault = found.now()?.err().filter(|fault| !fault.is_wait())?;
        Some(format!("the SVID of {shown}, by which the broker endpoint is asked: {fault}"))
    }

    fn apis(&self) -> impl Iterator<Item = &Api> {
        self.ourselves.iter().map(|(api, _)| api).chain(&self.delegated)
    }

    fn subscriptions(&self) -> impl Iterator<Item = &Subscription> {
        self.ourselves.iter().map(|(_, own)| own).chain(self.workloads.values().map(|(_, one)| one))
    }

    /// Those whose bundles come along.
    fn referenced(&self) -> impl Iterator<Item = &Subscription> {
        self.workloads.values().filter_map(|(by, one)| matches!(by, By::Reference(_)).then_some(one))
    }
}

impl Source for Spire {
    fn issue(&self, wanted: &Wanted, now: u64) -> Result<IssuedSvid, Error> {
        let workload = wanted.workload.clone();
        let subscription = match (self.route(wanted), &self.ourselves) {
            (Route::NoPod, _) => return Err(Fault::NoPod { workload }.into()),
            (Route::Asked(_), _) => self.workloads.get(&wanted.id).map(|(_, one)| one),
            (Route::Ourselves, own) => own.as_ref().map(|(_, own)| own),
        };
        let subscription = subscription.ok_or(Fault::NotAsked { workload })?;
        let found = |known: &Known| {
            let found = known.found.get(&wanted.id)?.now()?;
            Some(found.map(Arc::clone).map_err(Clone::clone))
        };
        // Let go of before the bundles are looked at: a feed takes them the other way round.
        let found = found(&lock(&subscription.known));
        match found {
            Some(Ok(held)) => {
                let Svid { not_before, not_after, .. } = held.issued.svid;
                let life = (not_before, not_after);
                svid::within(subscription.link.path(), "its chain", life, now).map_err(Fault::from)?;
                Ok(held.issued.clone())
            }
            Some(Err(fault)) => Err(fault.into()),
            None => {
                let path = subscription.link.path();
                Err(subscription.trust.borrow().missing(path, &self.home.trust_domain).into())
            }
        }
    }

    fn bundle(&self) -> Bundle {
        let trusts = self.apis().map(|api| &api.trust).chain(self.referenced().map(|one| &one.trust));
        let mut roots = Roots::default();
        trusts.for_each(|trust| roots.add(trust.borrow().own.iter().flatten()));
        roots.bundle(&self.home.trust_domain)
    }

    /// The Workload API gives those that this process federates with; of the others' those count that a
    /// workload federates with.
    fn federated(&self) -> Vec<Bundle> {
        let mut all: BTreeMap<TrustDomain, Roots> = BTreeMap::new();
        if let Some((api, _)) = &self.ourselves {
            for (domain, roots) in &api.trust.borrow().federated {
                all.entry(domain.clone()).or_default().add(roots.iter());
            }
        }
        for (_, subscription) in self.workloads.values() {
            let trust = subscription.trust.borrow();
            for domain in &lock(&subscription.known).federates_with {
                if let (Some(roots), false) = (trust.federated.get(domain), *domain == self.home.trust_domain) {
                    all.entry(domain.clone()).or_default().add(roots.iter());
                }
            }
        }
        all.into_iter().map(|(domain, roots)| roots.bundle(&domain)).collect()
    }

    fn warnings(&self, now: u64) -> Vec<String> {
        let mut found = Vec::new();
        for trust in self.apis().map(|api| &api.trust).chain(self.referenced().map(|one| &one.trust)) {
            let trust = trust.borrow();
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
        found.extend(self.own_fault());
        found
    }

    fn renewal(&self) -> Renewal {
        Renewal::Given
    }

    fn follow(&mut self, wanted: &[&Wanted]) {
        let routed: Vec<_> = wanted.iter().map(|one| (*one, self.route(one))).collect();
        let asked = |route: &Route| matches!(route, Route::Asked(_));
        let ids: BTreeSet<_> = routed.iter().filter(|(_, route)| asked(route)).map(|(one, _)| &one.id).collect();
        self.workloads.retain(|id, _| ids.contains(id));
        let own = routed.iter().filter(|(_, route)| matches!(route, Route::Ourselves));
        let own: Vec<_> = own.map(|(one, _)| *one).collect();
        let brokered = routed.iter().any(|(_, route)| matches!(route, Route::Asked(By::Reference(_))));
        let shown = self.shown().filter(|_| brokered);
        // Also for nobody: its bundles, and who is forgotten.
        if !own.is_empty() || brokered || self.ourselves.is_some() {
            self.follow_ourselves(&own, shown);
        }
        for (one, route) in routed {
            match route {
                Route::Asked(by) => self.follow_workload(one, by),
                Route::Ourselves | Route::NoPod => {}
            }
        }
        if !brokered {
            self.broker = None;
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
        self.broker.iter().for_each(|broker| broker.hurry.notify_one());
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

/// Each once, in the order in which they come: ten thousand workloads bring the same.
#[derive(Default)]
struct Roots {
    all: Vec<Vec<u8>>,
    known: BTreeSet<Vec<u8>>,
}

impl Roots {
    fn add<'r>(&mut self, roots: impl Iterator<Item = &'r Vec<u8>>) {
        for root in roots {
            if !self.known.contains(root) {
                self.known.insert(root.clone());
                self.all.push(root.clone());
            }
        }
    }

    fn bundle(self, trust_domain: &TrustDomain) -> Bundle {
        Bundle { trust_domain: trust_domain.to_string(), roots: self.all }
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

/// Small parts of a message take more in memory than on the wire, so there is little room for them.
const LARGEST_SVIDS: usize = 1 << 20;
const LARGEST_BUNDLES: usize = 4 << 20;
