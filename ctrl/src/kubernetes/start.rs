//! What a Gateway asks for becomes tasks: a follower for each list, and one that writes statuses.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::follow::{Asked, Follower, Known, Object, Patience};
use super::report::Reporter;
use super::{Feed, Live, Verdicts, object, pod};
use crate::config::{Gateway, Kubernetes};
use crate::crds::{KINDS, Kind};
use crate::source::News;
use crate::view::Watched;

/// Follows what the Gateway asks for; None if it asks for nothing.
pub fn start(gateway: &Gateway, news: &News) -> Option<Feed> {
    start_with(gateway, news, Patience::default())
}

pub fn start_with(gateway: &Gateway, news: &News, patience: Patience) -> Option<Feed> {
    let spec = gateway.kubernetes.as_ref()?;
    let node = spec.node.clone().or_else(|| std::env::var("NODE_NAME").ok()).unwrap_or_else(|| gateway.name.clone());
    let mut tasks = Tasks { spec, patience, news, live: vec![], tasks: JoinSet::new() };
    let pods = tasks.follow::<pod::Listed>(Asked {
        path: "/api/v1/pods".into(),
        fields: Some(format!("spec.nodeName={node}")),
        what: format!("pods of node {node}"),
        resource: "pods".into(),
        group: "",
    });
    let mut resources = vec![];
    for kind in KINDS.iter().filter(|_| spec.resources) {
        for asked in lists_of(kind, &spec.namespaces) {
            resources.push((kind.kind, tasks.follow::<object::Listed>(asked)));
        }
    }
    let (verdicts, verdicts_out) = watch::channel(Verdicts::default());
    if spec.resources {
        let shown = tasks.shown("statuses of them");
        let reporter = Reporter { spec: spec.clone(), node, patience, verdicts: verdicts_out, shown };
        tasks.tasks.spawn(reporter.run());
    }
    Some(Feed { pods, resources, verdicts, live: Live(tasks.live), _tasks: tasks.tasks })
}

/// One of all namespaces, or one of each.
fn lists_of(kind: &Kind, namespaces: &[String]) -> Vec<Asked> {
    let asked = |within: &str, of: &str| Asked {
        path: format!("/apis/{}{within}/{}", kind.api_version, kind.plural),
        fields: None,
        what: format!("{}{of}", kind.plural),
        resource: kind.plural.into(),
        group: kind.group(),
    };
    match namespaces {
        [] => vec![asked("", "")],
        some => some.iter().map(|name| asked(&format!("/namespaces/{name}"), &format!(" of {name}"))).collect(),
    }
}

struct Tasks<'a> {
    spec: &'a Kubernetes,
    patience: Patience,
    news: &'a News,
    live: Vec<Arc<Mutex<Watched>>>,
    tasks: JoinSet<()>,
}

impl Tasks<'_> {
    fn shown(&mut self, what: &str) -> Arc<Mutex<Watched>> {
        let shown = Arc::new(Mutex::new(Watched { what: what.into(), ..Watched::default() }));
        self.live.push(shown.clone());
        shown
    }

    fn follow<T: Object>(&mut self, asked: Asked) -> watch::Receiver<Option<Known<T>>> {
        let (known, known_out) = watch::channel(None);
        let shown = self.shown(&asked.what);
        let follower = Follower::<T>::new(self.spec.clone(), asked, self.patience, known, shown, self.news.clone());
        self.tasks.spawn(follower.run());
        known_out
    }
}
