//! What a Gateway asks for becomes tasks: a follower for each list, and one that writes statuses.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::follow::Follower;
use super::listed::{Asked, Known, Object, Patience};
use super::report::Reporter;
use super::services::ServicesFollower;
use super::{Feed, Live, Verdicts, object, pod};
use crate::config::{Gateway, Kubernetes};
use crate::crds::KINDS;
use crate::source::News;
use crate::view::Watched;

/// Follows what the Gateway asks for; None if it asks for nothing.
pub fn start(gateway: &Gateway, news: &News) -> Option<Feed> {
    start_with(gateway, news, Patience::default())
}

pub fn start_with(gateway: &Gateway, news: &News, patience: Patience) -> Option<Feed> {
    let spec = gateway.kubernetes.clone()?;
    let node = spec.node.clone().or_else(|| std::env::var("NODE_NAME").ok()).unwrap_or_else(|| gateway.name.clone());
    let follow = Follow { spec, node, patience, news: news.clone(), live: Live::default() };
    let mut tasks = follow.tasks();
    let pods = tasks.follow::<pod::Listed>(Asked {
        path: "/api/v1/pods".into(),
        fields: Some(format!("spec.nodeName={}", follow.node)),
        labels: None,
        what: format!("pods of node {}", follow.node),
        resource: "pods".into(),
        group: "",
        only: None,
    });
    let mut resources = vec![];
    for kind in KINDS.iter().filter(|_| follow.spec.resources) {
        let root = format!("/apis/{}", kind.api_version);
        for asked in lists_of(&root, (kind.plural, kind.group()), &follow.spec.namespaces) {
            resources.push((kind.kind, tasks.follow::<object::Listed>(asked)));
        }
    }
    let (named, named_out) = watch::channel(BTreeSet::new());
    let (services, services_out) = watch::channel(None);
    tasks.tasks.spawn(ServicesFollower { follow: follow.clone(), named: named_out, out: services }.run());
    let (verdicts, verdicts_out) = watch::channel(Verdicts::default());
    if follow.spec.resources {
        let (shown, Follow { spec, node, .. }) = (follow.live.add("statuses of them"), follow.clone());
        tasks.tasks.spawn(Reporter { spec, node, patience, verdicts: verdicts_out, shown }.run());
    }
    let (live, tasks) = (follow.live, tasks.tasks);
    Some(Feed { pods, resources, named, services: services_out, verdicts, live, _tasks: tasks })
}

/// One of all namespaces, or one of each.
pub fn lists_of(root: &str, (plural, group): (&str, &'static str), namespaces: &[String]) -> Vec<Asked> {
    let asked = |within: &str, of: &str| Asked {
        path: format!("{root}{within}/{plural}"),
        fields: None,
        labels: None,
        what: format!("{plural}{of}"),
        resource: plural.into(),
        group,
        only: None,
    };
    match namespaces {
        [] => vec![asked("", "")],
        some => some.iter().map(|name| asked(&format!("/namespaces/{name}"), &format!(" of {name}"))).collect(),
    }
}

/// What every follower is given.
#[derive(Debug, Clone)]
pub struct Follow {
    pub spec: Kubernetes,
    pub node: String,
    pub patience: Patience,
    pub news: News,
    pub live: Live,
}

/// Followers, for as long as this lives.
pub struct Tasks {
    with: Follow,
    pub tasks: JoinSet<()>,
}

impl Follow {
    pub fn tasks(&self) -> Tasks {
        Tasks { with: self.clone(), tasks: JoinSet::new() }
    }
}

impl Tasks {
    pub fn follow<T: Object>(&mut self, asked: Asked) -> watch::Receiver<Option<Known<T>>> {
        let (known, known_out) = watch::channel(None);
        let Follow { spec, patience, news, live, .. } = self.with.clone();
        let shown = live.add(&asked.what);
        self.tasks.spawn(Follower::<T>::new(spec, asked, patience, known, shown, news).run());
        known_out
    }
}

impl Live {
    /// One more, for as long as it is held.
    fn add(&self, what: &str) -> Arc<Mutex<Watched>> {
        let shown = Arc::new(Mutex::new(Watched { what: what.into(), ..Watched::default() }));
        self.0.lock().expect("no holder panics").push(Arc::downgrade(&shown));
        shown
    }
}
