//! What is fetched besides files: bundles of other trust domains from their endpoints, and CRLs from URLs.
//!
//! ```text
//!   Loaded ─ keep ─▶ sources ─ due ─▶ ask (a task each) ─▶ hear ─ judged, taken ─▶ Got ─ fill ─▶ Loaded
//!                       ▲                                   │ refused: the last good stays
//!                       └──── pace: hint, nextUpdate, back-off ◀┘
//! ```
//! What was taken stays in force while its source is away, and over a restart: trust ends by its own dates and by
//! somebody's word, not by silence. How old it may be, a CRL says itself.

mod ask;
mod got;
mod pace;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::info;

use crate::config::crl::RevocationList;
use crate::config::roots::SpiffeBundle;
use crate::config::{Loaded, SpiffeId, TrustDomain};
use crate::rotate::utc;
use crate::source::News;
use crate::trusted::Trusted;
use crate::web::Url;
use ask::{Came, Want};
use got::{GotBundle, GotCrl};
use task::{Done, Task};

pub use got::{Got, Known};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub domain: TrustDomain,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Bundle,
    Crl(Url),
}

/// Everything that is fetched.
#[derive(Debug)]
pub struct Fetches {
    sources: BTreeMap<Key, Source>,
    got: Arc<Got>,
    done: mpsc::UnboundedReceiver<Done>,
    /// Each source has at most one task, so that it holds no more than there are sources.
    done_in: mpsc::UnboundedSender<Done>,
    news: News,
    /// Of the last task.
    nth: u64,
}

#[derive(Debug)]
struct Source {
    want: Want,
    holder: String,
    /// None: it is being asked for.
    due: Option<Instant>,
    task: Option<Task>,
    /// By what it was judged who answers, if that is somebody of a trust domain.
    by: Option<Trusted>,
    /// In a row.
    failures: u32,
    fault: Option<String>,
    counts: Counts,
}

/// Since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub fetched: u64,
    pub failed: u64,
}

/// What new answers changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Heard {
    Nothing,
    /// Who is trusted is as before.
    News,
    Trust,
}

/// Of a source, as people see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `spec.endpoint`, `spec.crls[0]`.
    pub field: String,
    pub url: String,
    /// `https_web`, `https_spiffe`, `crl`.
    pub kind: String,
    /// `spiffe_sequence`.
    pub sequence: Option<u64>,
    /// Seconds since the epoch. None: nothing was taken yet.
    pub got_at: Option<u64>,
    /// Seconds until it is asked again; None while it is being asked.
    pub next_in: Option<u64>,
    pub fault: Option<String>,
    pub counts: Counts,
}

impl Fetches {
    /// With what the process before had. [`Fetches::keep`] says what of it is still wanted.
    pub fn new(before: Known, news: News) -> Self {
        let (done_in, done) = mpsc::unbounded_channel();
        Self { sources: BTreeMap::new(), got: Arc::new(before.into()), done, done_in, news, nth: 0 }
    }

    pub fn got(&self) -> &Arc<Got> {
        &self.got
    }

    /// The sources of a configuration, and no others. What is new, or another than before, is due.
    pub fn keep(&mut self, loaded: &Loaded) {
        let wanted = wanted(loaded);
        self.sources.retain(|key, _| wanted.contains_key(key));
        let got = Arc::make_mut(&mut self.got);
        got.take(loaded);
        got.crls.retain(|key, _| wanted.contains_key(key));
        got.bundles.retain(|domain, got| {
            let key = Key { domain: domain.clone(), what: What::Bundle };
            wanted.get(&key).is_some_and(|(_, want)| want.origin() == Some(got.origin))
        });
        for (key, (holder, want)) in wanted {
            match self.sources.get_mut(&key) {
                Some(source) if source.want == want => source.holder = holder,
                Some(source) => source.want_anew(want, holder),
                None => drop(self.sources.insert(key, Source::of(want, holder))),
            }
        }
    }

    /// Has everything that is due asked for. `trusted` says by what whoever has an ID is judged now.
    pub fn ask(&mut self, trusted: impl Fn(&SpiffeId) -> Trusted) {
        let now = Instant::now();
        let mut due: Vec<_> = self.free().filter(|(_, due)| *due <= now).map(|(key, due)| (due, key.clone())).collect();
        // Who has waited longest is first, so that one that hangs keeps nobody away for good.
        due.sort_unstable();
        let (mut asked, mut room) = (self.asked(), self.room());
        for (_, key) in due {
            if room == 0 || !asked.insert(key.domain.clone()) {
                continue;
            }
            room -= 1;
            self.nth += 1;
            let source = self.sources.get_mut(&key).expect("it is due");
            source.due = None;
            let want = source.want.clone();
            source.by = want.verified_by().map(&trusted);
            let by = source.by.clone().unwrap_or_default();
            let asking = async move { want.ask(by).await };
            source.task = Some(Task::start((key, self.nth), asking, self.done_in.clone(), self.news.clone()));
        }
    }

    /// Trust domains of which something is being asked for: one thing at a time, so that none takes all the room.
    fn asked(&self) -> BTreeSet<TrustDomain> {
        let asked = self.sources.iter().filter(|(_, source)| source.task.is_some());
        asked.map(|(key, _)| key.domain.clone()).collect()
    }

    fn room(&self) -> usize {
        AT_ONCE - self.sources.values().filter(|source| source.task.is_some()).count()
    }

    /// What may be asked for as soon as it is due.
    fn free(&self) -> impl Iterator<Item = (&Key, Instant)> {
        let (asked, room) = (self.asked(), self.room());
        let all = self.sources.iter().filter(move |(key, _)| room > 0 && !asked.contains(&key.domain));
        all.filter_map(|(key, source)| Some((key, source.due?)))
    }

    /// Takes what came by now, and writes it into `loaded`. `judge` says why a CRL is not taken, beside those of
    /// `loaded`: of two that came together, the second is asked about beside the first. Who is not judged by `trusted`
    /// as he was when he was asked is asked once more: his answer may be a stranger's by now.
    pub fn hear(
        &mut self,
        now: u64,
        loaded: &mut Loaded,
        judge: impl Fn((&str, &Url, &Arc<RevocationList>), &Loaded) -> Result<(), String>,
        trusted: impl Fn(&SpiffeId, &Loaded) -> Trusted,
    ) -> Heard {
        let mut heard = Heard::Nothing;
        while let Ok(Done { key, nth, answer }) = self.done.try_recv() {
            // It may be the answer to a question that nobody asks any more.
            let asked = |source: &&mut Source| source.task.as_ref().is_some_and(|task| task.nth == nth);
            let Some(source) = self.sources.get_mut(&key).filter(asked) else { continue };
            source.task = None;
            let by = source.by.take();
            if source.want.verified_by().is_some_and(|id| by.as_ref() != Some(&trusted(id, loaded))) {
                source.due = Some(Instant::now());
                continue;
            }
            let got = Arc::make_mut(&mut self.got);
            let taken = answer.and_then(|came| take(&key, source, came, got, now, |crl| judge(crl, loaded)));
            heard = heard.max(match taken {
                Ok(heard) => {
                    source.heard(got, &key, now);
                    if heard == Heard::Trust {
                        got.fill(loaded);
                        got.take(loaded);
                    }
                    heard
                }
                Err(why) => {
                    source.failed(why, got, &key, now);
                    Heard::News
                }
            });
        }
        heard
    }

    /// When [`Fetches::ask`] has something to do next.
    pub fn next_due(&self) -> Option<Instant> {
        self.free().map(|(_, due)| due).min()
    }

    /// What was planned by the time is void.
    pub fn clock_jumped(&mut self) {
        let now = Instant::now();
        self.sources.values_mut().filter_map(|source| source.due.as_mut()).for_each(|due| *due = now.min(*due));
    }

    /// What people have to know of.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.problems_of(|_| true)
    }

    /// The same of some trust domains.
    pub fn problems_of(&self, wanted: impl Fn(&TrustDomain) -> bool) -> impl Iterator<Item = String> {
        self.sources.iter().filter(move |(key, _)| wanted(&key.domain)).flat_map(|(key, source)| {
            let of = format!("TrustBundle {} {}", source.holder, source.want.path());
            let kept = match self.got_at(key) {
                Some(at) => format!("what was got at {} stays in force", utc(at)),
                None => "nothing was got yet".into(),
            };
            let fault = source.fault.as_ref().map(|fault| format!("{of}: {fault} ({kept})"));
            let warning = match key.what {
                What::Bundle => self.got.bundles.get(&key.domain).and_then(GotBundle::warning),
                What::Crl(_) => None,
            };
            fault.into_iter().chain(warning.map(|warning| format!("{of}: {}: {warning}", source.want.url())))
        })
    }

    /// Those of a trust domain.
    pub fn rows(&self, domain: &str) -> Vec<Row> {
        let now = Instant::now();
        let of_domain = self.sources.iter().filter(|(key, _)| key.domain.as_str() == domain);
        let row = |(key, source): (&Key, &Source)| Row {
            field: source.want.path().to_owned(),
            url: source.want.url().to_string(),
            kind: source.want.kind().to_owned(),
            sequence: self
                .got
                .bundles
                .get(&key.domain)
                .filter(|_| key.what == What::Bundle)
                .and_then(|got| got.sequence),
            got_at: self.got_at(key),
            next_in: source.due.map(|due| due.saturating_duration_since(now).as_secs()),
            fault: source.fault.clone(),
            counts: source.counts,
        };
        of_domain.map(row).collect()
    }

    fn got_at(&self, key: &Key) -> Option<u64> {
        match key.what {
            What::Bundle => self.got.bundles.get(&key.domain).map(|got| got.at),
            What::Crl(_) => self.got.crls.get(key).map(|got| got.at),
        }
    }
}

impl Source {
    fn of(want: Want, holder: String) -> Self {
        let due = Some(Instant::now());
        Self { want, holder, due, task: None, by: None, failures: 0, fault: None, counts: Counts::default() }
    }

    /// What was wrong may be what was changed; it is shown until that is known.
    fn want_anew(&mut self, want: Want, holder: String) {
        let (fault, counts) = (self.fault.take(), self.counts);
        *self = Self { fault, counts, ..Self::of(want, holder) };
    }

    fn heard(&mut self, got: &Got, key: &Key, now: u64) {
        if self.fault.take().is_some() {
            info!(url = %self.want.url(), "it can be fetched again");
        }
        self.failures = 0;
        self.counts.fetched += 1;
        self.due = Some(Instant::now() + pace::spread(self.regular(got, key, now)));
    }

    fn failed(&mut self, why: String, got: &Got, key: &Key, now: u64) {
        // The log has it from [`Fetches::problems`].
        self.fault = Some(why);
        self.counts.failed += 1;
        let again = pace::after_failure(self.failures, self.regular(got, key, now));
        self.failures = self.failures.saturating_add(1);
        self.due = Some(Instant::now() + again);
    }

    /// Between two looks while all is well.
    fn regular(&self, got: &Got, key: &Key, now: u64) -> Duration {
        match &self.want {
            Want::Bundle { endpoint, .. } => {
                let hint = got.bundles.get(&key.domain).and_then(|got| got.refresh_hint);
                pace::of_bundle(endpoint.refresh, hint)
            }
            Want::Crl(crl) => match got.crls.get(key) {
                Some(got) => pace::of_crl(crl.refresh, got.list.next, now),
                None => crl.refresh,
            },
        }
    }
}

/// It is the last good from now on, or Err says why not.
fn take(
    key: &Key,
    source: &Source,
    came: Came,
    got: &mut Got,
    now: u64,
    judge: impl Fn((&str, &Url, &Arc<RevocationList>)) -> Result<(), String>,
) -> Result<Heard, String> {
    match (came, &key.what) {
        (Came::Bundle(bundle), _) => {
            let origin = source.want.origin().expect("a bundle comes from an endpoint");
            let last = got.bundles.get(&key.domain).filter(|last| last.origin == origin);
            let next = of_bundle(bundle, last, origin, now);
            let same = last.is_some_and(|last| last.certificates == next.certificates);
            if !same {
                let (domain, roots, sequence) = (&key.domain, next.certificates.len(), next.sequence);
                info!(%domain, roots, sequence, "the trust domain's endpoint has another bundle");
            }
            got.bundles.insert(key.domain.clone(), next);
            Ok(if same { Heard::News } else { Heard::Trust })
        }
        (Came::Crl(list), What::Crl(url)) => {
            judge((key.domain.as_str(), url, &list)).map_err(|why| format!("{url}: {why}"))?;
            let last = got.crls.insert(key.clone(), GotCrl { list: list.clone(), at: now });
            let same = last.is_some_and(|last| last.list.sha256 == list.sha256);
            Ok(if same { Heard::News } else { Heard::Trust })
        }
        (Came::Crl(_), What::Bundle) => unreachable!("what was asked for a bundle gives one"),
    }
}

fn of_bundle(bundle: SpiffeBundle, last: Option<&GotBundle>, origin: [u8; 32], now: u64) -> GotBundle {
    let SpiffeBundle { mut certificates, sequence, refresh_hint } = bundle;
    // Each once, and in one order: a bundle that was only written anew is the same.
    certificates.sort_unstable_by(|one, other| one.der.cmp(&other.der));
    certificates.dedup();
    let highest = last.and_then(|last| last.highest).max(sequence);
    GotBundle { origin, certificates: Arc::new(certificates), sequence, highest, refresh_hint, at: now }
}

fn wanted(loaded: &Loaded) -> BTreeMap<Key, (String, Want)> {
    let mut wanted = BTreeMap::new();
    for bundle in &loaded.bundles {
        let domain = || bundle.trust_domain.clone();
        if let Some(endpoint) = &bundle.endpoint {
            let want = Want::Bundle { domain: domain(), endpoint: Box::new(endpoint.clone()) };
            wanted.insert(Key { domain: domain(), what: What::Bundle }, (bundle.name.clone(), want));
        }
        for crl in &bundle.crl_urls {
            let key = Key { domain: domain(), what: What::Crl(crl.url.clone()) };
            wanted.insert(key, (bundle.name.clone(), Want::Crl(Box::new(crl.clone()))));
        }
    }
    wanted
}

/// Connections that are open at the same time; the others wait.
const AT_ONCE: usize = 16;
