//! The SPIFFE Broker API of an agent: SVIDs of workloads by what they are in the agent's world, a Kubernetes object
//! or a pod, with the bundles of each.
//!
//! One stream a workload brings all that is of it, so an SVID is judged by the bundle that came in the same message.
//! All go over one connection by mutual TLS ([`mutual`](super::mutual)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use tokio::sync::{Notify, watch};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::api::{self, Home, Subscription, Task};
use super::fault::{Fault, Refusals};
use super::feed::{Feed, Of};
use super::link::Link;
use super::mutual::{self, Own};
use super::proto::broker::api_client::ApiClient;
use super::proto::broker::{
    KubernetesObjectKey, KubernetesObjectReference, KubernetesObjectType, SubscribeToX509svidRequest,
    SubscribeToX509svidResponse, WorkloadReference,
};
use super::proto::{Svids, bundles_of};
use super::stream::{self, Line, Listener};
use super::trust::{Keeper, Trust};
use crate::config::broker::{Address, Broker as Config, Object};
use crate::config::kubernetes::PodId;
use crate::source::svid::Expected;

/// What the agent is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Referenced {
    Object(Object),
    Pod(PodId),
}

pub struct Broker {
    pub link: Arc<Link>,
    /// Rung when time has jumped.
    pub hurry: Arc<Notify>,
    /// Rung to have our own SVID asked for.
    ourselves: Arc<Notify>,
    _task: Task,
}

impl Broker {
    /// `ourselves` gives the SVID that is shown.
    pub fn open(config: &Config, home: &Home, ourselves: &Subscription) -> Self {
        let address = address(config);
        let endpoint = address.as_ref().map_or("the broker endpoint".into(), ToString::to_string);
        let (ways, known) = watch::channel(None);
        let hurry = Arc::<Notify>::default();
        let own = Own {
            id: config.id.clone(),
            agent: config.agent.clone(),
            trust_domain: home.trust_domain.clone(),
            address,
            endpoint: endpoint.clone().into(),
            known: ourselves.known.clone(),
            changed: ourselves.changed.clone(),
            trust: ourselves.trust.clone(),
            hurry: hurry.clone(),
        };
        let task = Task(tokio::spawn(mutual::keep(own, ways)));
        let link = Arc::new(Link::by(endpoint.into(), known));
        Self { link, hurry, ourselves: ourselves.hurry.clone(), _task: task }
    }

    /// `trust` stands until the agent says another.
    pub fn subscribe(&self, home: &Home, about: &Referenced, expected: Expected, trust: Trust) -> Subscription {
        let (hurry, link) = (Arc::<Notify>::default(), self.link.clone());
        let refusals = Refusals {
            denied: format!(
                "it gives no SVID of {about}: an entry for what it attests that by has to reach it, and `brokers` of \
                 its configuration to allow sluice-ctrl references of that kind"
            ),
            not_found: Some(format!("it does not find {about}")),
            unknown: "`broker` wants the bind address of the agent's broker endpoint, of SPIRE 1.15.2 or newer",
        };
        let (sender, trust) = watch::channel(trust);
        // The bundles come with the SVIDs.
        let (_, world) = watch::channel(());
        let line = Line { link: link.clone(), refusals, hurry: hurry.clone(), world };
        let expected = BTreeMap::from([(expected.id.clone(), expected)]);
        let (feed, changed) = api::feed(home, Of::Referenced, link.clone(), trust.clone(), expected);
        let keeper =
            Keeper { own: home.trust_domain.clone(), link: link.clone(), trust: sender, news: home.news.clone() };
        let known = feed.known.clone();
        let (asked, ourselves) = (about.request(), self.ourselves.clone());
        let ask = move |channel: Channel| {
            let (request, ourselves) = (marked(asked.clone()), ourselves.clone());
            async move {
                let mut client = ApiClient::new(channel).max_decoding_message_size(super::LARGEST_BUNDLES);
                let answer = client.subscribe_to_x509svid(request).await;
                // SPIFFE Broker Endpoint §6: no retry with the same certificate.
                if answer.as_ref().is_err_and(|status| status.code() == Code::Unauthenticated) {
                    ourselves.notify_one();
                }
                answer
            }
        };
        let task = Task(tokio::spawn(stream::follow(line, ask, All { feed, keeper })));
        Subscription { known, link, trust, hurry, changed, _task: task }
    }
}

/// Hears of the bundles first, since they are what the SVIDs are judged by.
struct All {
    feed: Feed,
    keeper: Keeper,
}

impl Listener<SubscribeToX509svidResponse> for All {
    fn hear(&mut self, said: Result<SubscribeToX509svidResponse, Fault>) {
        let svids = said.map(|mut message| {
            match bundles_of(&mut message, &self.keeper.own) {
                Some(bundles) => self.keeper.hear(Ok(bundles)),
                // An empty set is how SPIRE says that there is no entry: it takes back nothing.
                None => drop(self.keeper.trust.send_if_modified(|trust| !std::mem::replace(&mut trust.looked, true))),
            }
            Svids::from(message)
        });
        self.feed.hear(svids);
    }

    fn reconsider(&mut self) {}

    fn patience(&self) -> Duration {
        Listener::<Svids>::patience(&self.feed)
    }
}

impl Referenced {
    fn request(&self) -> SubscribeToX509svidRequest {
        let kind = |plural: &str, group: &str| {
            Some(KubernetesObjectType { plural: plural.to_owned(), group: group.to_owned() })
        };
        let key = |namespace: &str, name: &str| {
            Some(KubernetesObjectKey { namespace: namespace.to_owned(), name: name.to_owned() })
        };
        let object = match self {
            Self::Object(Object { group, plural, namespace, name }) => KubernetesObjectReference {
                r#type: kind(plural, group),
                key: key(namespace.as_deref().unwrap_or_default(), name),
                uid: String::new(),
            },
            // The UID too: another pod by that name is another workload.
            Self::Pod(PodId { namespace, name, uid }) => {
                KubernetesObjectReference { r#type: kind("pods", "core"), key: key(namespace, name), uid: uid.clone() }
            }
        };
        let reference = Any { type_url: OBJECT.into(), value: object.encode_to_vec() };
        SubscribeToX509svidRequest { reference: Some(WorkloadReference { reference: Some(reference) }) }
    }
}

impl std::fmt::Display for Referenced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Object(Object { group, plural, namespace, name }) => {
                f.write_str(plural)?;
                if group != "core" {
                    write!(f, ".{group}")?;
                }
                f.write_str(" ")?;
                namespace.iter().try_for_each(|namespace| write!(f, "{namespace}/"))?;
                f.write_str(name)
            }
            Self::Pod(pod) => write!(f, "pod {pod}"),
        }
    }
}

pub fn address(config: &Config) -> Result<Address, Fault> {
    address_of(config, std::env::var("SPIFFE_BROKER_SOCKET").ok())
}

/// SPIFFE Broker Endpoint §4: the environment, where nothing is configured.
fn address_of(config: &Config, environment: Option<String>) -> Result<Address, Fault> {
    match (&config.address, environment) {
        (Some(address), _) => Ok(address.clone()),
        (None, Some(text)) => {
            Address::parse(&text).map_err(|why| Fault::NoAddress { found: format!("{text:?}, which {why}") })
        }
        (None, None) => Err(Fault::NoAddress { found: "not set".into() }),
    }
}

/// Shows that no server was made to send it (SPIFFE Broker Endpoint §3).
fn marked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("broker.spiffe.io", MetadataValue::from_static("true"));
    request
}

const OBJECT: &str = "type.googleapis.com/spiffe.broker.KubernetesObjectReference";

#[cfg(test)]
mod tests {
    use snapshot::IdPattern;

    use super::*;
    use crate::config::SpiffeId;

    #[test]
    fn the_environment_says_where_the_endpoint_is_only_where_the_configuration_does_not() {
        let config = |address: Option<&str>| Config {
            id: SpiffeId::parse("spiffe://example.com/sluice").unwrap(),
            agent: IdPattern::Under("spiffe://example.com/spire/agent/".into()),
            address: address.map(|text| Address::parse(text).unwrap()),
            references: vec![],
        };
        for (name, configured, environment, want) in [
            ("both", Some("unix:///a/b.sock"), Some("tcp://127.0.0.1:8083"), Ok("/a/b.sock")),
            ("a socket", None, Some("unix:///a/b.sock"), Ok("/a/b.sock")),
            ("an address", None, Some("tcp://[::1]:8083"), Ok("tcp://[::1]:8083")),
            ("neither", None, None, Err("is not set; want unix:///PATH or tcp://IP:PORT")),
            ("a name", None, Some("tcp://localhost:8083"), Err("is \"tcp://localhost:8083\", which is no IP address")),
            ("a relative path", None, Some("unix://a.sock"), Err("which is neither unix:///PATH nor tcp://IP:PORT")),
        ] {
            let found = address_of(&config(configured), environment.map(str::to_owned));
            match (found, want) {
                (Ok(found), Ok(want)) => assert_eq!(found.to_string(), want, "{name}"),
                (Err(fault), Err(want)) => assert!(fault.to_string().contains(want), "{name}: {fault}"),
                (found, want) => panic!("{name}: {found:?} is not {want:?}"),
            }
        }
    }

    #[test]
    fn what_the_agent_is_asked_about_is_shown_as_kubectl_names_it() {
        let object = |group: &str, plural: &str, namespace: Option<&str>| {
            let (namespace, name) = (namespace.map(str::to_owned), "backend".to_owned());
            Referenced::Object(Object { group: group.into(), plural: plural.into(), namespace, name }).to_string()
        };
        assert_eq!(object("core", "serviceaccounts", Some("shop")), "serviceaccounts shop/backend");
        assert_eq!(object("apps", "deployments", Some("shop")), "deployments.apps shop/backend");
        assert_eq!(object("core", "nodes", None), "nodes backend");
    }
}
