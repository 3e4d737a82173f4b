//! When identities are renewed: at half their life, before they end, never all at once.
//!
//! ```text
//!   not_before ────────────── half-life ± 10 % ──────────────── not_after
//!        │        in use            │ renew; on failure back off    │ gone: NoSvid
//! ```
//! [`Rotation`] is the schedule alone: time comes in as an argument, nothing is read. [`Identities`]
//! drives a source by it and holds what came out. An old SVID stays until its successor is there
//! or it expires, whichever is first. All times are seconds since the epoch.

use std::collections::BTreeMap;
use std::time::Duration;

use snapshot::channel::PrivateKey;
use snapshot::{Bundle, Svid};

use crate::config::{Gateway, SpiffeId};
use crate::source::{IssuedSvid, OfSource, Renewal, Reopened, Sources, Together, Unopened};

pub use crate::source::Wanted;

/// When each identity is due.
#[derive(Debug, Default)]
pub struct Rotation {
    entries: BTreeMap<SpiffeId, Entry>,
    seed: u64,
}

#[derive(Debug, Default)]
struct Entry {
    due: u64,
    failures: u32,
}

impl Rotation {
    /// `seed` spreads the renewals of one node; two nodes want different ones.
    pub fn new(seed: u64) -> Self {
        Self { entries: BTreeMap::new(), seed }
    }

    /// Forgets whom `wanted` leaves out; who is new is due at once.
    pub fn want<'a>(&mut self, wanted: impl Iterator<Item = &'a SpiffeId>) {
        let mut before = std::mem::take(&mut self.entries);
        self.entries = wanted.map(|id| (id.clone(), before.remove(id).unwrap_or_default())).collect();
    }

    pub fn due(&self, now: u64) -> Vec<SpiffeId> {
        self.entries.iter().filter(|(_, entry)| entry.due <= now).map(|(id, _)| id.clone()).collect()
    }

    pub fn next_due(&self) -> Option<u64> {
        self.entries.values().map(|entry| entry.due).filter(|due| *due != u64::MAX).min()
    }

    /// Makes one due now, whatever its schedule said.
    pub fn hurry(&mut self, id: &SpiffeId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.due = 0;
        }
    }

    /// An SVID of this life was issued at `now`.
    pub fn issued(&mut self, id: &SpiffeId, now: u64, not_after: u64) {
        let jitter = self.jitter(id, not_after);
        if let Some(entry) = self.entries.get_mut(id) {
            let half = not_after.saturating_sub(now) * 500 / 1000;
            let spread = half as i128 * i128::from(jitter) / 1000;
            let after = (half as i128 + spread).max(1) as u64;
            *entry = Entry { due: now + after, failures: 0 };
        }
    }

    /// Somebody else renews it, and says when.
    pub fn rests(&mut self, id: &SpiffeId) {
        if let Some(entry) = self.entries.get_mut(id) {
            *entry = Entry { due: u64::MAX, failures: 0 };
        }
    }

    /// It could not be issued at `now`; asks again after 1, 2, 4, … 60 s.
    pub fn failed(&mut self, id: &SpiffeId, now: u64) {
        if let Some(entry) = self.entries.get_mut(id) {
            let wait = 1u64.checked_shl(entry.failures).unwrap_or(u64::MAX).min(LONGEST_BACK_OFF);
            *entry = Entry { due: now.saturating_add(wait), failures: entry.failures.saturating_add(1) };
        }
    }

    /// Thousandths, from -100 to 100: the same for the same node, identity and certificate.
    fn jitter(&self, id: &SpiffeId, not_after: u64) -> i64 {
        let bytes = id.as_str().bytes().chain(not_after.to_le_bytes()).chain(self.seed.to_le_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        ((hash >> 16) % 201) as i64 - 100
    }
}

/// The identities of this node: what was issued, and what went wrong.
pub struct Identities {
    sources: Sources,
    rotation: Rotation,
    wanted: BTreeMap<SpiffeId, Wanted>,
    held: BTreeMap<SpiffeId, IssuedSvid>,
    failures: BTreeMap<SpiffeId, Failure>,
}

/// Why an identity is missing or was not renewed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    pub id: SpiffeId,
    pub reason: String,
    /// When it first failed in a row, and when it is tried again; u64::MAX: when its source has news.
    pub since: u64,
    pub retry_at: u64,
    /// Nothing is wrong: somebody else has to do his part first.
    pub waiting: bool,
}

/// What a look at the schedule came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refreshed {
    Nothing,
    /// Somebody has a newer SVID than before, in good time.
    Renewed,
    /// Somebody has one who had none or whose ends soon, or has none any more.
    Changed,
}

impl Identities {
    pub fn new(sources: impl Into<Sources>, seed: u64) -> Self {
        Self {
            sources: sources.into(),
            rotation: Rotation::new(seed),
            wanted: BTreeMap::new(),
            held: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Issues what is new or due, drops what is no longer wanted or has expired.
    pub fn refresh(&mut self, wanted: &[Wanted], now: u64) -> Refreshed {
        for id in self.follow(wanted, now) {
            self.rotation.hurry(&id);
        }
        let before = self.held.len();
        let rotation = &mut self.rotation;
        self.held.retain(|id, issued| {
            let ended = issued.svid.not_after <= now;
            if ended {
                // If there is no other, its source says why.
                rotation.hurry(id);
            }
            self.wanted.contains_key(id) && !ended
        });
        self.failures.retain(|id, _| self.wanted.contains_key(id));
        let mut done = if self.held.len() == before { Refreshed::Nothing } else { Refreshed::Changed };
        for id in self.rotation.due(now) {
            done = done.max(self.renew(&id, now));
        }
        done
    }

    /// Takes over who is wanted and tells the sources. Returns who cannot wait for the schedule.
    fn follow(&mut self, wanted: &[Wanted], now: u64) -> Vec<SpiffeId> {
        let mut hurried = Vec::new();
        if !self.wanted.values().eq(wanted) {
            let before = std::mem::take(&mut self.wanted);
            self.wanted = wanted.iter().map(|one| (one.id.clone(), one.clone())).collect();
            self.rotation.want(self.wanted.keys());
            let changed = |one: &Wanted, before: &Wanted| {
                // Who signs himself has nothing to do with pods, and would sign anew for each.
                let pods = before.pods != one.pods && self.sources.renewal(one) == Renewal::Given;
                pods || before.dns_names != one.dns_names || before.workload != one.workload
            };
            let changed =
                self.wanted.values().filter(|one| before.get(&one.id).is_some_and(|before| changed(one, before)));
            hurried.extend(changed.map(|one| one.id.clone()));
        }
        hurried.extend(self.sources.follow(wanted, now));
        hurried
    }

    fn renew(&mut self, id: &SpiffeId, now: u64) -> Refreshed {
        let Some(wanted) = self.wanted.get(id) else { return Refreshed::Nothing };
        match self.sources.issue(wanted, now) {
            Ok(issued) => {
                match self.sources.renewal(wanted) {
                    Renewal::Asked => self.rotation.issued(id, now, issued.svid.not_after),
                    Renewal::Given => self.rotation.rests(id),
                }
                self.failures.remove(id);
                let done = match self.held.get(id) {
                    None => Refreshed::Changed,
                    Some(before) if *before == issued => Refreshed::Nothing,
                    // Too late to wait for others.
                    Some(before) if before.svid.not_after.saturating_sub(now) <= life(&before.svid) / 5 => {
                        Refreshed::Changed
                    }
                    Some(_) => Refreshed::Renewed,
                };
                self.held.insert(id.clone(), issued);
                done
            }
            Err(error) => {
                match self.sources.renewal(wanted) {
                    Renewal::Asked => self.rotation.failed(id, now),
                    Renewal::Given => self.rotation.rests(id),
                }
                let retry_at = self.rotation.entries.get(id).map_or(now, |entry| entry.due);
                let since = self.failures.get(id).map_or(now, |failure| failure.since);
                let (reason, waiting) = (error.to_string(), error.is_wait());
                self.failures.insert(id.clone(), Failure { id: id.clone(), reason, since, retry_at, waiting });
                Refreshed::Nothing
            }
        }
    }

    /// Opens the sources of a changed configuration; nothing changes yet.
    pub fn reopen(&self, gateway: &Gateway) -> Result<Vec<Reopened>, Unopened> {
        self.sources.reopen(gateway)
    }

    /// What would be trusted with the sources of a changed configuration.
    pub fn would_trust(&self, gateway: &Gateway, now: u64) -> Result<Together, crate::source::Error> {
        self.sources.would_trust(gateway, now)
    }

    /// Takes what [`Identities::reopen`] found. What is held stays until it is due, but for those who
    /// are now another source's, or whose source has another signer.
    pub fn replace_sources(&mut self, gateway: &Gateway, reopened: Vec<Reopened>) {
        let chosen = |sources: &Sources, wanted: &Wanted| sources.chosen(wanted).map(str::to_owned);
        let before: Vec<_> = self.wanted.values().map(|wanted| chosen(&self.sources, wanted)).collect();
        self.sources.replace(gateway, reopened);
        for (wanted, before) in self.wanted.values().zip(before) {
            let held = self.held.get(&wanted.id);
            let stands = held.is_none_or(|held| self.sources.stands_by(wanted, &held.svid));
            // Who has failed may have been waiting for just this change.
            if chosen(&self.sources, wanted) != before || !stands || self.failures.contains_key(&wanted.id) {
                self.rotation.hurry(&wanted.id);
            }
        }
    }

    /// What peers are verified by, source by source.
    pub fn trusted(&self) -> Vec<OfSource> {
        self.sources.by_source()
    }

    /// The same as it was in the process before this one, for sources that have yet to answer.
    pub fn remember(&mut self, before: Vec<OfSource>) {
        self.sources.remember(before);
    }

    /// Time has jumped: what was planned by it is void, so everything is asked for now.
    pub fn clock_jumped(&mut self, now: u64) {
        self.sources.hurry(now);
        self.wanted.keys().for_each(|id| self.rotation.hurry(id));
    }

    /// All sources have answered once for everybody, be it with a failure.
    pub fn settled(&self) -> bool {
        self.sources.settled()
    }

    /// When [`Identities::refresh`] has something to do next: a renewal, or an expiry.
    pub fn next_due(&self) -> Option<u64> {
        let expiry = self.held.values().map(|issued| issued.svid.not_after);
        self.rotation.next_due().into_iter().chain(expiry).chain(self.sources.next_due()).min()
    }

    pub fn svid(&self, id: &SpiffeId) -> Option<(&Svid, &PrivateKey)> {
        self.held.get(id).map(|issued| (&issued.svid, &issued.key))
    }

    /// The whole life of the SVID that lives shortest.
    pub fn shortest_life(&self) -> Option<Duration> {
        let lives = self.held.values().map(|issued| life(&issued.svid));
        lives.min().map(Duration::from_secs)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&SpiffeId, &Svid)> {
        self.held.iter().map(|(id, issued)| (id, &issued.svid))
    }

    /// The roots of all sources.
    pub fn bundle(&self, now: u64) -> Bundle {
        self.sources.bundle(now)
    }

    /// The bundles of other trust domains that the sources bring.
    pub fn federated(&self, now: u64) -> Vec<Bundle> {
        self.sources.federated(now)
    }

    /// The name of the source that it comes from; empty for one without a name.
    pub fn source_of(&self, id: &SpiffeId) -> Option<&str> {
        self.sources.chosen(self.wanted.get(id)?)
    }

    pub fn errors(&self) -> Vec<Failure> {
        self.failures.values().cloned().collect()
    }

    pub fn error(&self, id: &SpiffeId) -> Option<&Failure> {
        self.failures.get(id)
    }

    /// What is or will soon be wrong with the sources.
    pub fn warnings(&self, now: u64) -> Vec<String> {
        self.sources.warnings(now)
    }
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identities").field("held", &self.held.keys()).field("failures", &self.failures).finish()
    }
}

fn life(svid: &Svid) -> u64 {
    svid.not_after.saturating_sub(svid.not_before)
}

/// Seconds since the epoch as people read them.
pub fn utc(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

const LONGEST_BACK_OFF: u64 = 60;
