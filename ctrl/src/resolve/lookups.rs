//! Asks for each name when its time has come, and puts together what was answered.
//!
//! Every name is asked for by itself: one that is answered late, or never, holds up no other. An answer is
//! asked for again when four fifths of its TTL are over; a failure after a second, then twice as long each
//! time, up to thirty.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::answer::{Answer, SHORTEST};
use super::{Dns, Name, Resolved, from_hosts, names};
use crate::clock;
use crate::config::Loaded;

/// Names that are asked for at the same time. Beyond that they wait for each other, each for as long as
/// one look-up may take.
pub const AT_ONCE: usize = 256;

/// Between two attempts at a name that fails, at the most.
const PAUSE: Duration = Duration::from_secs(30);

/// A name that is asked for.
#[derive(Debug)]
struct Asked {
    /// None: it is being asked for.
    due: Option<Instant>,
    /// Whether there has been an answer of any kind.
    answered: bool,
    failures: u32,
}

#[derive(Debug)]
pub struct Lookups {
    dns: Arc<Dns>,
    names: BTreeMap<String, Asked>,
    pub(super) resolved: Resolved,
    running: JoinSet<(String, Answer)>,
    room: Arc<Semaphore>,
    counts: Arc<Counts>,
}

/// Look-ups since the start, and those that failed.
#[derive(Debug, Default)]
pub struct Counts {
    pub done: AtomicU64,
    pub failed: AtomicU64,
}

impl Lookups {
    pub fn new(dns: Dns) -> Self {
        Self {
            dns: Arc::new(dns),
            names: BTreeMap::new(),
            resolved: Resolved::default(),
            running: JoinSet::new(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            counts: Arc::default(),
        }
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// The names of a configuration are asked for, besides those that are.
    pub fn want(&mut self, loaded: &Loaded) {
        if self.dns.servers() != loaded.gateway.dns_servers {
            self.dns = Arc::new(Dns::new(&loaded.gateway.dns_servers));
            // What the others have yet to say is not waited for.
            self.running = JoinSet::new();
            for asked in self.names.values_mut() {
                (asked.due, asked.answered) = (Some(Instant::now()), false);
            }
        }
        for name in names(&loaded.services).into_iter().filter(|name| from_hosts(&loaded.gateway, name).is_none()) {
            let due = Some(Instant::now());
            self.names.entry(name.to_owned()).or_insert(Asked { due, answered: false, failures: 0 });
        }
    }

    /// Those of a configuration, and no others.
    pub fn keep(&mut self, loaded: &Loaded) {
        self.want(loaded);
        let wanted: BTreeSet<_> = names(&loaded.services);
        let wanted = |name: &String| wanted.contains(name.as_str()) && from_hosts(&loaded.gateway, name).is_none();
        self.names.retain(|name, _| wanted(name));
        self.resolved.names.retain(|name, _| wanted(name));
    }

    /// Seconds until a name is asked for again; None while it is.
    pub(super) fn next_in(&self, name: &str) -> Option<u64> {
        let due = self.names.get(name)?.due?;
        Some(due.saturating_duration_since(Instant::now()).as_secs())
    }

    /// What the names of a configuration stand for, with what its `hosts` say.
    pub fn of(&self, loaded: &Loaded) -> Resolved {
        let mut resolved = super::of_hosts(loaded);
        for name in names(&loaded.services) {
            if resolved.names.contains_key(name) {
                continue;
            }
            let unanswered = || Name { failure: Some("no answer yet".into()), ..Name::default() };
            let known = self.resolved.names.get(name).cloned().unwrap_or_else(unanswered);
            resolved.names.insert(name.to_owned(), known);
        }
        resolved
    }

    /// Waits for a first answer of all names of a configuration, but no longer than `patience`: those that are
    /// late come when they come.
    pub async fn await_first(&mut self, loaded: &Loaded, patience: Duration) {
        let deadline = Instant::now() + patience;
        let missing = |this: &Self| {
            names(&loaded.services).iter().any(|name| this.names.get(*name).is_some_and(|asked| !asked.answered))
        };
        while missing(self) {
            if timeout_at(deadline, self.step()).await.is_err() {
                break;
            }
        }
    }

    /// Completes when names lead elsewhere, or others do not resolve, than before. May be dropped at any time.
    pub async fn changed(&mut self) {
        loop {
            let before = self.resolved.clone();
            self.step().await;
            if !self.resolved.leads_where(&before) {
                return;
            }
        }
    }

    /// The next answer, or the next address whose time is over.
    async fn step(&mut self) {
        self.ask();
        let due = self.names.values().filter_map(|asked| asked.due).min();
        let end = self
            .resolved
            .next_end()
            .map(|end| Instant::now() + Duration::from_millis(end.saturating_sub(clock::now_ms())));
        let wake = due.into_iter().chain(end).min();
        tokio::select! {
            Some(done) = self.running.join_next(), if !self.running.is_empty() => {
                let (name, answer) = done.expect("look-ups do not panic");
                self.take(&name, &answer);
            }
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {
                self.resolved.forget(clock::now_ms());
            }
            else => std::future::pending().await,
        }
    }

    fn ask(&mut self) {
        let now = Instant::now();
        for (name, asked) in self.names.iter_mut().filter(|(_, asked)| asked.due.is_some_and(|due| due <= now)) {
            asked.due = None;
            let (dns, room, name) = (self.dns.clone(), self.room.clone(), name.clone());
            self.running.spawn(async move {
                let _room = room.acquire().await;
                let answer = dns.look_up(&name).await;
                (name, answer)
            });
        }
    }

    fn take(&mut self, name: &str, answer: &Answer) {
        // It may not be wanted any more.
        let Some(asked) = self.names.get_mut(name) else { return };
        let good = self.resolved.take(name, answer, clock::now_ms());
        self.counts.done.fetch_add(1, Relaxed);
        asked.answered = true;
        let failed = answer.failure().is_some();
        self.counts.failed.fetch_add(failed.into(), Relaxed);
        asked.failures = if failed { asked.failures.saturating_add(1) } else { 0 };
        let again = match (failed, good) {
            (false, Some(ttl)) => (ttl * 4 / 5).max(SHORTEST),
            (true, _) | (false, None) => (SHORTEST * (1 << (asked.failures.max(1) - 1).min(5))).min(PAUSE),
        };
        asked.due = Some(Instant::now() + again);
    }
}
