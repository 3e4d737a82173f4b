//! The Services that ours name, and their slices: followed as long as somebody names one.
//!
//! Slices change with each pod, and a cluster has many that nobody here asks about. So the server is asked for
//! those of the named Services alone, and asked anew when others are named; what was known stays until then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Followed;
use super::listed::{Asked, Known};
use super::service::{OF_SERVICE, Services, Slices};
use super::start::{Follow, lists_of};
use crate::services::cluster::{Led, lead};
use crate::source::News;

pub struct ServicesFollower {
    pub follow: Follow,
    pub named: watch::Receiver<BTreeSet<String>>,
    pub out: watch::Sender<Option<Followed>>,
}

impl ServicesFollower {
    /// Ends when there is nobody who could name any.
    pub async fn run(mut self) {
        loop {
            let named = self.named.borrow_and_update().clone();
            let gone = match named.is_empty() {
                true => self.named.changed().await.is_err(),
                false => self.follow_these(named).await,
            };
            if gone {
                return;
            }
        }
    }

    /// Until others are named. True: nobody is there any more.
    async fn follow_these(&mut self, named: BTreeSet<String>) -> bool {
        let news = News::default();
        let lists = Lists::start(&Follow { news: news.clone(), ..self.follow.clone() }, &named);
        loop {
            tokio::select! {
                changed = self.named.changed() => return changed.is_err(),
                () = news.notified() => self.tell(&named, &lists),
            }
        }
    }

    fn tell(&self, named: &BTreeSet<String>, lists: &Lists) {
        let Some(all) = lists.lead(named, &self.follow.node) else { return };
        let told = Some((named.clone(), Arc::new(all)));
        if self.out.send_if_modified(|before| {
            *before != told && {
                *before = told;
                true
            }
        }) {
            self.follow.news.notify_one();
        }
    }
}

/// Of all namespaces, or of each that is asked about.
struct Lists {
    services: Vec<watch::Receiver<Option<Known<Services>>>>,
    slices: Vec<watch::Receiver<Option<Known<Slices>>>>,
    _tasks: JoinSet<()>,
}

impl Lists {
    fn start(follow: &Follow, named: &BTreeSet<String>) -> Self {
        let (mut tasks, namespaces, selector) = (follow.tasks(), &follow.spec.namespaces, selector(named));
        // Others' Services and slices are of any number, and may not keep those that are named from being known.
        let only = Arc::new(named.clone());
        let mut lists = Self { services: vec![], slices: vec![], _tasks: JoinSet::new() };
        for asked in lists_of("/api/v1", ("services", ""), namespaces) {
            // Ours have the same name.
            let what = format!("Kubernetes {}", asked.what);
            lists.services.push(tasks.follow::<Services>(Asked { what, only: Some(only.clone()), ..asked }));
        }
        for asked in lists_of("/apis/discovery.k8s.io/v1", ("endpointslices", "discovery.k8s.io"), namespaces) {
            let (labels, only) = (Some(selector.clone()), Some(only.clone()));
            lists.slices.push(tasks.follow::<Slices>(Asked { labels, only, ..asked }));
        }
        Self { _tasks: tasks.tasks, ..lists }
    }

    /// None until each list has been read once: what is missing would look like deleted.
    fn lead(&self, named: &BTreeSet<String>, node: &str) -> Option<BTreeMap<String, Led>> {
        let services: Vec<_> = self.services.iter().map(|list| list.borrow().clone()).collect::<Option<_>>()?;
        let slices: Vec<_> = self.slices.iter().map(|list| list.borrow().clone()).collect::<Option<_>>()?;
        let service = |name: &str| services.iter().find_map(|list| list.get(name));
        Some(lead(named, service, slices.iter().flat_map(|list| list.values()), node))
    }
}

/// Of their names alone: a selector knows no namespaces. So many that a URL would be longer than proxies take
/// are asked for as all that there are.
fn selector(named: &BTreeSet<String>) -> String {
    let names: BTreeSet<_> = named.iter().filter_map(|name| name.split('/').nth(1)).collect();
    let selector = format!("{OF_SERVICE} in ({})", names.into_iter().collect::<Vec<_>>().join(","));
    if selector.len() > LONGEST_SELECTOR { OF_SERVICE.into() } else { selector }
}

const LONGEST_SELECTOR: usize = 4_000;
