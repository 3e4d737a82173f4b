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

use snapshot::channel::PrivateKey;
use snapshot::{Bundle, Svid};

use crate::config::SpiffeId;
use crate::source::{IssuedSvid, Source};

/// What an identity is wanted for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    pub id: SpiffeId,
    /// Host names of the services that the workload serves, for its DNS SANs.
    pub dns_names: Vec<String>,
}

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
        self.entries.values().map(|entry| entry.due).min()
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
    source: Box<dyn Source>,
    rotation: Rotation,
    wanted: BTreeMap<SpiffeId, Vec<String>>,
    held: BTreeMap<SpiffeId, IssuedSvid>,
    failures: BTreeMap<SpiffeId, Failure>,
}

/// Why an identity is missing or was not renewed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Failure {
    pub id: SpiffeId,
    pub reason: String,
    /// When it first failed in a row, and when it is tried again.
    pub since: u64,
    pub retry_at: u64,
}

impl Identities {
    pub fn new(source: Box<dyn Source>, seed: u64) -> Self {
        Self {
            source,
            rotation: Rotation::new(seed),
            wanted: BTreeMap::new(),
            held: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Issues what is new or due, drops what is no longer wanted or has expired. True: something changed.
    pub fn refresh(&mut self, wanted: &[Wanted], now: u64) -> bool {
        let wanted: BTreeMap<_, _> = wanted.iter().map(|w| (w.id.clone(), w.dns_names.clone())).collect();
        self.rotation.want(wanted.keys());
        for (id, names) in &wanted {
            if self.wanted.get(id).is_some_and(|before| before != names) {
                self.rotation.hurry(id);
            }
        }
        self.wanted = wanted;
        let before = self.held.len();
        self.held.retain(|id, issued| self.wanted.contains_key(id) && issued.svid.not_after > now);
        self.failures.retain(|id, _| self.wanted.contains_key(id));
        let mut changed = self.held.len() != before;
        for id in self.rotation.due(now) {
            changed |= self.renew(&id, now);
        }
        changed
    }

    fn renew(&mut self, id: &SpiffeId, now: u64) -> bool {
        let names = self.wanted.get(id).map(Vec::as_slice).unwrap_or_default();
        match self.source.issue(id, names, now) {
            Ok(issued) => {
                self.rotation.issued(id, now, issued.svid.not_after);
                self.failures.remove(id);
                self.held.insert(id.clone(), issued);
                true
            }
            Err(error) => {
                self.rotation.failed(id, now);
                let retry_at = self.rotation.entries.get(id).map_or(now, |entry| entry.due);
                let since = self.failures.get(id).map_or(now, |failure| failure.since);
                self.failures
                    .insert(id.clone(), Failure { id: id.clone(), reason: error.to_string(), since, retry_at });
                false
            }
        }
    }

    /// Takes another source, for a changed configuration; what is held stays until it is due.
    pub fn replace_source(&mut self, source: Box<dyn Source>) {
        self.source = source;
    }

    /// When [`Identities::refresh`] has something to do next: a renewal, or an expiry.
    pub fn next_due(&self) -> Option<u64> {
        let expiry = self.held.values().map(|issued| issued.svid.not_after);
        self.rotation.next_due().into_iter().chain(expiry).min()
    }

    pub fn svid(&self, id: &SpiffeId) -> Option<(&Svid, &PrivateKey)> {
        self.held.get(id).map(|issued| (&issued.svid, &issued.key))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&SpiffeId, &Svid)> {
        self.held.iter().map(|(id, issued)| (id, &issued.svid))
    }

    pub fn bundle(&self) -> Bundle {
        self.source.bundle()
    }

    pub fn errors(&self) -> Vec<Failure> {
        self.failures.values().cloned().collect()
    }

    /// What will soon go wrong with the source.
    pub fn warnings(&self, now: u64) -> Vec<String> {
        self.source.warnings(now)
    }
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identities").field("held", &self.held.keys()).field("failures", &self.failures).finish()
    }
}

/// Seconds since the epoch as people read them.
pub fn utc(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}

const LONGEST_BACK_OFF: u64 = 60;
