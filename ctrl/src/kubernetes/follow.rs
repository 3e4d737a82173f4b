//! One list of the API: read whole, then watched from its version on, and read again when that is no more.
//!
//! ```text
//!   connect ─▶ list ─▶ watch from its version ─▶ events, bookmarks ─┐
//!      ▲        ▲         ▲      └────── silent for too long, ended ┤
//!      │        └─────────┼───────────── 410 Gone, refused, garbage ┤
//!      └── 0.5, 1, 2, … 30 s, each ± a quarter ◀──── away ──────────┘
//! ```
//! What was listed stays until something newer has been. A server that was away is asked from the version
//! on where it went, so that coming back costs it little.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::{Request, WatchEvent};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::client::{Ask, LARGEST, connect};
use super::fault::Fault;
use super::listed::{Asked, Known, Object, Odd, Patience};
use crate::clock;
use crate::config::Kubernetes;
use crate::source::News;
use crate::source::spire::back_off;
use crate::view::Watched;

pub struct Follower<T: Object> {
    spec: Kubernetes,
    asked: Asked,
    patience: Patience,
    out: watch::Sender<Option<Known<T>>>,
    shown: Arc<Mutex<Watched>>,
    news: News,
    known: BTreeMap<String, T::Kept>,
    /// Objects whose newest versions are not understood, and why.
    odd: BTreeMap<String, String>,
    /// Where to go on from; None: it has to be listed.
    version: Option<String>,
    failures: u32,
}

#[derive(Deserialize)]
struct Page<J> {
    metadata: PageMeta,
    #[serde(default = "Vec::new")]
    items: Vec<J>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue", default)]
    more: Option<String>,
}

#[derive(Deserialize)]
struct Versioned {
    metadata: VersionOf,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionOf {
    resource_version: String,
}

/// Of one list: a server that never says that it was the last would be asked for ever.
const MOST_PAGES: usize = 1_000;

impl<T: Object> Follower<T> {
    pub fn new(
        spec: Kubernetes,
        asked: Asked,
        patience: Patience,
        out: watch::Sender<Option<Known<T>>>,
        shown: Arc<Mutex<Watched>>,
        news: News,
    ) -> Self {
        let (known, odd) = Default::default();
        Self { spec, asked, patience, out, shown, news, known, odd, version: None, failures: 0 }
    }

    /// Never ends by itself.
    pub async fn run(mut self) {
        loop {
            let fault = match connect(&self.spec).await {
                Ok((client, server)) => {
                    self.show(|shown| shown.server = server);
                    self.listen(&client).await
                }
                Err(fault) => fault,
            };
            if fault.voids_version() {
                self.version = None;
            }
            self.failed(&fault);
            sleep(back_off(self.failures, self.patience.back_off)).await;
            self.failures = self.failures.saturating_add(1);
        }
    }

    async fn listen(&mut self, client: &Client) -> Fault {
        loop {
            if self.version.is_none()
                && let Err(fault) = self.list(client).await
            {
                return fault;
            }
            match self.watch(client).await {
                Ok(()) => {}
                // That is how a watch ends which has fallen behind; twice in a row it is no way to go on.
                Err(Fault::Gone(why)) if self.failures == 0 => {
                    info!(what = self.asked.what, why, "listing again");
                    (self.version, self.failures) = (None, 1);
                }
                Err(fault) => return fault,
            }
        }
    }

    fn ask<'a>(&'a self, client: &'a Client, verb: &'static str) -> Ask<'a> {
        Ask { client, asked: &self.asked, verb, answer: self.patience.answer }
    }

    async fn list(&mut self, client: &Client) -> Result<(), Fault> {
        let (mut all, mut odd, mut more, mut pages) = (BTreeMap::new(), BTreeMap::new(), None, 0);
        let version = loop {
            pages += 1;
            if pages > MOST_PAGES {
                return Err(Fault::Garbage(format!("a list of more than {MOST_PAGES} pages")));
            }
            // Without a version: as it is now, and not as some cache has it.
            let limit = Some(PAGE);
            let (fields, labels) = (self.asked.fields.clone(), self.asked.labels.clone());
            let params = ListParams {
                field_selector: fields,
                label_selector: labels,
                limit,
                continue_token: more,
                ..ListParams::default()
            };
            let request = Request::new(&self.asked.path).list(&params).expect("parameters of a list fit each other");
            let page = self.ask(client, "list").read(request).await?;
            let page: Page<T::Json> = serde_json::from_slice(&page).map_err(|e| Fault::Garbage(e.to_string()))?;
            for item in page.items {
                let (key, kept) = self.take(T::of(item), &mut odd)?;
                all.extend(kept.map(|kept| (key, kept)));
            }
            self.not_too_many(all.len() + odd.len())?;
            more = page.metadata.more.filter(|token| !token.is_empty());
            if more.is_none() {
                break page.metadata.resource_version;
            }
        };
        self.show(|shown| (shown.lists, shown.version) = (shown.lists + 1, Some(version.clone())));
        (self.known, self.odd, self.version) = (all, odd, Some(version));
        self.publish();
        Ok(())
    }

    /// Its key, and what is to be kept of it.
    fn take(
        &self,
        read: Result<(String, Option<T::Kept>), Odd>,
        odd: &mut BTreeMap<String, String>,
    ) -> Result<(String, Option<T::Kept>), Fault> {
        let is_wanted = |whose: &str| self.asked.only.as_ref().is_none_or(|only| only.contains(whose));
        match read {
            Ok((key, kept)) => {
                odd.remove(&key);
                let kept = kept.filter(|kept| is_wanted(T::whose(&key, kept)));
                Ok((key, kept))
            }
            Err(Odd::All(why)) => Err(Fault::Garbage(why)),
            Err(Odd::One { key, whose, .. }) if !is_wanted(&whose) => Ok((key, None)),
            Err(Odd::One { key, why, .. }) => {
                if odd.get(&key).or(self.odd.get(&key)) != Some(&why) {
                    warn!(what = self.asked.what, why, "left as it was last");
                }
                let last = self.known.get(&key).cloned();
                odd.insert(key.clone(), why);
                Ok((key, last))
            }
        }
    }

    fn not_too_many(&self, count: usize) -> Result<(), Fault> {
        match count <= T::MOST {
            true => Ok(()),
            false => Err(Fault::Many { what: self.asked.what.clone(), count, most: T::MOST }),
        }
    }

    /// Ok: it ended as it should, and is to be asked for again.
    async fn watch(&mut self, client: &Client) -> Result<(), Fault> {
        let version = self.version.clone().expect("listed before");
        let params = WatchParams {
            field_selector: self.asked.fields.clone(),
            label_selector: self.asked.labels.clone(),
            timeout: Some(WATCH),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request =
            Request::new(&self.asked.path).watch(&params, &version).expect("parameters of a watch fit each other");
        let body = self.ask(client, "watch").send(request).await?;
        let began = Instant::now();
        self.watched();
        let heard = self.hear(client, body).await?;
        match heard || began.elapsed() > AT_ONCE {
            true => {
                self.failures = 0;
                Ok(())
            }
            false => Err(Fault::Ended),
        }
    }

    /// Reads events until there are no more. True: there were some.
    async fn hear(&mut self, client: &Client, mut body: Body) -> Result<bool, Fault> {
        let (mut rest, mut heard): (Vec<u8>, bool) = (Vec::new(), false);
        loop {
            let frame = match timeout(self.patience.silence, body.frame()).await {
                // Whether anybody is there shows when it is asked for again.
                Err(_silent) => return Ok(true),
                Ok(None) => return Ok(heard),
                Ok(Some(Err(error))) => return Err(Fault::Away(super::fault::chain(&error))),
                Ok(Some(Ok(frame))) => frame,
            };
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
                if rest.len() > LARGEST {
                    return Err(Fault::Large(LARGEST >> 20));
                }
                continue;
            };
            let lines: Vec<u8> = rest.drain(..=end).collect();
            let mut changed = false;
            let mut lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let result = lines.try_for_each(|line| self.event(client, line).map(|one| changed |= one));
            // What came before the fault has happened.
            if changed {
                self.publish();
            }
            result?;
            (heard, self.failures) = (true, 0);
            let version = self.version.clone();
            self.show(|shown| (shown.heard_at, shown.version) = (Some(clock::now()), version));
            self.show_odd();
            // Who has ever so much news is not listened to more often.
            sleep(PACE).await;
        }
    }

    /// True: something is other than before.
    fn event(&mut self, client: &Client, line: &[u8]) -> Result<bool, Fault> {
        let garbage = |error: serde_json::Error| Fault::Garbage(error.to_string());
        let event: WatchEvent<serde_json::Value> = serde_json::from_slice(line).map_err(garbage)?;
        let (object, gone) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(bookmark) => {
                self.version = Some(bookmark.metadata.resource_version);
                return Ok(false);
            }
            WatchEvent::Error(status) => return Err(self.ask(client, "watch").refusal(0, *status)),
        };
        let version = Versioned::deserialize(&object).map_err(garbage)?.metadata.resource_version;
        let mut odd = std::mem::take(&mut self.odd);
        let taken = self.take(T::of(serde_json::from_value(object).map_err(garbage)?), &mut odd);
        self.odd = odd;
        let (key, kept) = taken?;
        self.version = Some(version);
        if gone {
            self.odd.remove(&key);
        }
        let (kept, before) = (kept.filter(|_| !gone), self.known.get(&key));
        if kept.as_ref() == before {
            return Ok(false);
        }
        match kept {
            Some(kept) => drop(self.known.insert(key, kept)),
            None => drop(self.known.remove(&key)),
        }
        self.not_too_many(self.known.len() + self.odd.len()).map(|()| true)
    }

    fn publish(&mut self) {
        self.show_odd();
        let count = self.known.len();
        self.show(|shown| (shown.known, shown.heard_at) = (Some(count), Some(clock::now())));
        self.out.send_replace(Some(Arc::new(self.known.clone())));
        self.news.notify_one();
    }

    fn show_odd(&self) {
        let (count, first) = (self.odd.len(), self.odd.values().next().cloned());
        self.show(|shown| (shown.odd, shown.first_odd) = (count, first));
    }

    fn watched(&self) {
        let mut shown = self.shown();
        if let Some(was) = shown.problem.take() {
            info!(what = self.asked.what, was, "watched again");
        }
        shown.failing_since = None;
        shown.since.get_or_insert_with(clock::now);
    }

    fn failed(&self, fault: &Fault) {
        let problem = fault.to_string();
        let mut shown = self.shown();
        if shown.problem.as_ref() != Some(&problem) {
            warn!(what = self.asked.what, problem, "not watched; what is known stays");
        }
        shown.failures += 1;
        (shown.since, shown.problem) = (None, Some(problem));
        shown.failing_since.get_or_insert_with(clock::now);
    }

    fn show(&self, change: impl FnOnce(&mut Watched)) {
        change(&mut self.shown());
    }

    fn shown(&self) -> MutexGuard<'_, Watched> {
        self.shown.lock().expect("no holder panics")
    }
}

const PAGE: u32 = 500;
/// The server ends a watch after so many seconds.
const WATCH: u32 = 290;
const AT_ONCE: Duration = Duration::from_secs(5);
const PACE: Duration = Duration::from_millis(50);
