//! The sources of a node, by name: which one a workload gets its SVID from, and their roots together.
//!
//! A source that does not open stands beside the others as what it is: its workloads have no SVID,
//! with its reason, and it is opened again after 1, 2, 4, … 60 s. All are of the Gateway's trust
//! domain, so their roots are one bundle: a peer may have its SVID from any of them.

mod together;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use snapshot::{Bundle, Svid};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::files::Files;
use super::spire::Spire;
use super::vault::Vault;
use super::{EmbeddedCa, Error, IssuedSvid, Renewal, Source, Unopened, Wanted, roots};
use crate::config::{Gateway, IdentitySource, NamedSource, SpiffeId, TrustDomain};

pub use together::Together;

/// Rung by sources that have something new to say.
pub type News = Arc<Notify>;

/// In the order in which they are asked.
pub struct Sources {
    entries: Vec<Entry>,
    trust_domain: String,
    news: News,
}

struct Entry {
    /// None: a source that a program made and no configuration names; it is for everybody.
    named: Option<(NamedSource, TrustDomain)>,
    state: State,
    /// It did not open as its files are now; what was opened before is in use.
    stale: Option<String>,
    /// What its predecessor of that name was trusted by, until it has roots itself.
    before: Option<Trusted>,
}

/// What a source has peers verified by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    pub roots: Vec<Vec<u8>>,
    pub federated: Vec<Bundle>,
}

impl Trusted {
    fn by(source: &dyn Source) -> Self {
        Self { roots: source.bundle().roots, federated: source.federated() }
    }
}

/// The same of a source by its name, so that it can be known again after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfSource {
    pub source: String,
    pub trust_domain: String,
    pub trusted: Trusted,
}

enum State {
    Open(Box<dyn Source>),
    Down { reason: String, retry_at: u64, failures: u32 },
}

/// Sources out of a configuration, and what did not open of them.
pub struct Opened {
    pub sources: Sources,
    /// None of them opened, so that nobody would have an identity: the first one's reason.
    pub none: Option<Error>,
}

impl Sources {
    /// Opens all; those that fail are named in the log and tried again.
    pub fn open(gateway: &Gateway, news: &News, now: u64) -> Opened {
        let mut none = None;
        let mut entries = Vec::with_capacity(gateway.identity.len());
        for named in &gateway.identity {
            let state = match open(named, &gateway.trust_domain, news) {
                Ok(source) => State::Open(source),
                Err(error) => {
                    let reason = error.to_string();
                    warn!(source = named.name, reason, "an identity source does not open; its workloads have no SVID");
                    none.get_or_insert(error);
                    State::Down { reason, retry_at: now + 1, failures: 1 }
                }
            };
            entries.push(Entry {
                named: Some((named.clone(), gateway.trust_domain.clone())),
                state,
                stale: None,
                before: None,
            });
        }
        let all_down = entries.iter().all(|entry| matches!(entry.state, State::Down { .. }));
        let sources = Self { entries, trust_domain: gateway.trust_domain.to_string(), news: news.clone() };
        Opened { sources, none: none.filter(|_| all_down) }
    }

    /// For a configuration that was read again. What is written there anew has to open, or the
    /// configuration is refused; what stands as before may fail, and goes on as it was.
    pub fn reopen(&self, gateway: &Gateway) -> Result<Vec<Reopened>, Unopened> {
        let same = |named: &NamedSource| self.entries.iter().any(|entry| entry.is_of(named, &gateway.trust_domain));
        let one = |named: &NamedSource| match (&named.source, same(named)) {
            // It looks after what it is given by itself, and knows the last that was good.
            (IdentitySource::Files(_) | IdentitySource::Spire(_) | IdentitySource::Vault(_), true) => {
                Ok(Reopened::Kept(None))
            }
            (_, known) => match open(named, &gateway.trust_domain, &self.news) {
                Ok(source) => Ok(Reopened::Anew(source)),
                Err(error) if known => Ok(Reopened::Kept(Some(error.to_string()))),
                Err(error) => Err(Unopened { at: named.opens.clone(), error: Box::new(error) }),
            },
        };
        gateway.identity.iter().map(one).collect()
    }

    /// Takes what [`Sources::reopen`] found for the same Gateway.
    pub fn replace(&mut self, gateway: &Gateway, reopened: Vec<Reopened>) {
        debug_assert_eq!(gateway.identity.len(), reopened.len());
        let mut before = std::mem::take(&mut self.entries);
        for (named, reopened) in gateway.identity.iter().zip(reopened) {
            let kept = before.iter().position(|entry| entry.is_of(named, &gateway.trust_domain));
            let kept = kept.map(|at| before.swap_remove(at));
            // A source that is told things knows none in its first moment, and nobody is to be cut for that.
            let trusted = match (&reopened, &kept) {
                (Reopened::Anew(_), None) => {
                    let name = |entry: &&Entry| {
                        entry.name() == named.name && gateway.trust_domain.as_str() == self.trust_domain
                    };
                    before.iter().find(name).and_then(Entry::trusted)
                }
                (Reopened::Kept(_), Some(kept)) => kept.before.clone(),
                (Reopened::Anew(_), Some(_)) | (Reopened::Kept(_), None) => None,
            };
            let (state, stale) = match (reopened, kept) {
                (Reopened::Anew(source), _) => (State::Open(source), None),
                (Reopened::Kept(stale), Some(entry)) => {
                    // One that is down says so itself.
                    let open = matches!(entry.state, State::Open(_));
                    (entry.state, stale.filter(|_| open))
                }
                (Reopened::Kept(_), None) => unreachable!("only what was there is kept"),
            };
            let named = Some((named.clone(), gateway.trust_domain.clone()));
            self.entries.push(Entry { named, state, stale, before: trusted });
        }
        self.trust_domain = gateway.trust_domain.to_string();
    }

    /// Whom each source has peers verified by, for [`Sources::remember`] of another process.
    pub fn by_source(&self) -> Vec<OfSource> {
        let of = |entry: &Entry| {
            let (named, trust_domain) = entry.named.as_ref()?;
            let trusted = entry.trusted().filter(|trusted| !trusted.roots.is_empty())?;
            Some(OfSource { source: named.name.clone(), trust_domain: trust_domain.to_string(), trusted })
        };
        self.entries.iter().filter_map(of).collect()
    }

    /// What the sources said to the process before this one holds until they say it themselves: one that is
    /// told things, or is away, knows nothing at first, and nobody is to be cut for that.
    pub fn remember(&mut self, before: Vec<OfSource>) {
        for OfSource { source, trust_domain, trusted } in before {
            let is = |entry: &&mut Entry| {
                entry
                    .named
                    .as_ref()
                    .is_some_and(|(named, domain)| named.name == source && domain.as_str() == trust_domain)
            };
            if let Some(entry) = self.entries.iter_mut().find(is) {
                entry.before = Some(trusted);
                entry.forget();
            }
        }
    }

    /// The name of the source that this workload's SVID comes from.
    pub fn chosen(&self, wanted: &Wanted) -> Option<&str> {
        self.entry(wanted).map(|at| self.entries[at].name())
    }

    pub fn issue(&self, wanted: &Wanted, now: u64) -> Result<IssuedSvid, Error> {
        let entry = &self.entries[self.entry(wanted).ok_or(Error::NoSource)?];
        match &entry.state {
            State::Open(source) => source.issue(wanted, now),
            State::Down { reason, .. } => Err(Error::Down { name: entry.name().to_owned(), reason: reason.clone() }),
        }
    }

    /// What does not open or is none any more has nothing better to give.
    pub fn stands_by(&self, wanted: &Wanted, svid: &Svid) -> bool {
        match self.entry(wanted).map(|at| &self.entries[at].state) {
            Some(State::Open(source)) => source.stands_by(svid),
            Some(State::Down { .. }) | None => true,
        }
    }

    pub fn renewal(&self, wanted: &Wanted) -> Renewal {
        match self.entry(wanted).map(|at| &self.entries[at].state) {
            Some(State::Open(source)) => source.renewal(),
            Some(State::Down { .. }) | None => Renewal::Asked,
        }
    }

    /// Tells each source whom it is for, and opens again what is due. Returns who has news.
    pub fn follow(&mut self, wanted: &[Wanted], now: u64) -> Vec<SpiffeId> {
        let mut lists: Vec<Vec<&Wanted>> = vec![Vec::new(); self.entries.len()];
        for one in wanted {
            if let Some(at) = self.entry(one) {
                lists[at].push(one);
            }
        }
        let mut told = Vec::new();
        for (entry, list) in self.entries.iter_mut().zip(&lists) {
            entry.forget();
            if entry.retry(&self.news, now) {
                told.extend(list.iter().map(|wanted| wanted.id.clone()));
            }
            if let State::Open(source) = &mut entry.state {
                source.follow(list);
                told.extend(source.news());
            }
        }
        told
    }

    /// When a source that is down is tried again.
    pub fn next_due(&self) -> Option<u64> {
        let due = |entry: &Entry| match entry.state {
            State::Down { retry_at, .. } => Some(retry_at),
            State::Open(_) => None,
        };
        self.entries.iter().filter_map(due).min()
    }

    pub fn hurry(&mut self, now: u64) {
        for entry in &mut self.entries {
            match &mut entry.state {
                State::Open(source) => source.hurry(),
                State::Down { retry_at, .. } => *retry_at = now,
            }
        }
    }

    pub fn settled(&self) -> bool {
        self.open_ones().all(|source| source.settled())
    }

    pub fn warnings(&self, now: u64) -> Vec<String> {
        let mut found = Vec::new();
        for entry in &self.entries {
            let name = entry.name();
            match &entry.state {
                State::Down { reason, .. } => found.push(format!("identity source {name} does not open: {reason}")),
                State::Open(source) => found.extend(source.warnings(now)),
            }
            if let Some(reason) = &entry.stale {
                found.push(format!("identity source {name} does not open again, and goes on as it was: {reason}"));
            }
        }
        let count = roots::valid(self.all_roots(), now).len();
        if count > roots::MOST_TOGETHER {
            let most = roots::MOST_TOGETHER;
            found.push(format!("the identity sources have {count} roots together; the first {most} are trusted"));
        }
        found
    }

    fn entry(&self, wanted: &Wanted) -> Option<usize> {
        let takes =
            |entry: &Entry| entry.named.as_ref().is_none_or(|(named, _)| named.takes(&wanted.id, &wanted.workload));
        self.entries.iter().position(takes)
    }

    fn all_roots(&self) -> Vec<Vec<u8>> {
        self.entries.iter().filter_map(Entry::trusted).flat_map(|trusted| trusted.roots).collect()
    }

    fn open_ones(&self) -> impl Iterator<Item = &dyn Source> {
        self.entries.iter().filter_map(|entry| match &entry.state {
            State::Open(source) => Some(source.as_ref()),
            State::Down { .. } => None,
        })
    }
}

/// A source of a configuration that was read again.
pub enum Reopened {
    Anew(Box<dyn Source>),
    /// As it is, with why it would not open as its files are now.
    Kept(Option<String>),
}

impl Entry {
    fn name(&self) -> &str {
        self.named.as_ref().map_or("", |(named, _)| &named.name)
    }

    fn trusted(&self) -> Option<Trusted> {
        match (&self.before, &self.state) {
            (Some(before), _) => Some(before.clone()),
            (None, State::Open(source)) => Some(Trusted::by(source.as_ref())),
            (None, State::Down { .. }) => None,
        }
    }

    /// Lets go of its predecessor as soon as it can stand by itself.
    fn forget(&mut self) {
        let stands =
            matches!(&self.state, State::Open(source) if source.settled() && !source.bundle().roots.is_empty());
        if stands {
            self.before = None;
        }
    }

    /// Whether it is what the configuration describes, wherever that stands now.
    fn is_of(&self, named: &NamedSource, trust_domain: &TrustDomain) -> bool {
        let same = |(own, domain): &(NamedSource, TrustDomain)| {
            own.name == named.name && own.source == named.source && domain == trust_domain
        };
        self.named.as_ref().is_some_and(same)
    }

    /// Opens it if it is down and due; true: it is open now.
    fn retry(&mut self, news: &News, now: u64) -> bool {
        let (Some((named, trust_domain)), State::Down { reason, retry_at, failures }) = (&self.named, &mut self.state)
        else {
            return false;
        };
        if *retry_at > now {
            return false;
        }
        match open(named, trust_domain, news) {
            Ok(source) => {
                info!(source = named.name, "the identity source is open");
                self.state = State::Open(source);
                true
            }
            Err(error) => {
                *reason = error.to_string();
                *retry_at = now + 1u64.checked_shl(*failures).unwrap_or(u64::MAX).min(LONGEST_BACK_OFF);
                *failures = failures.saturating_add(1);
                false
            }
        }
    }
}

/// A source that a program made: the only one, and for everybody.
impl From<Box<dyn Source>> for Sources {
    fn from(source: Box<dyn Source>) -> Self {
        let trust_domain = source.bundle().trust_domain;
        let entries = vec![Entry { named: None, state: State::Open(source), stale: None, before: None }];
        Self { entries, trust_domain, news: News::default() }
    }
}

/// The source that a configuration describes.
pub fn open(named: &NamedSource, trust_domain: &TrustDomain, news: &News) -> Result<Box<dyn Source>, Error> {
    match &named.source {
        IdentitySource::Embedded { directory, ttl } => {
            let ca = EmbeddedCa::open(directory)?;
            if ca.trust_domain() != trust_domain {
                return Err(Error::TrustDomain {
                    path: directory.clone(),
                    found: ca.trust_domain().clone(),
                    want: trust_domain.clone(),
                });
            }
            Ok(Box::new(ca.with(*ttl)))
        }
        IdentitySource::Files(files) => Ok(Box::new(Files::new(files.clone(), trust_domain.clone(), news.clone()))),
        IdentitySource::Spire(spire) => Ok(Box::new(Spire::new(spire.clone(), trust_domain.clone(), news.clone()))),
        IdentitySource::Vault(vault) => {
            Ok(Box::new(Vault::new(&named.name, vault.as_ref().clone(), trust_domain.clone(), news.clone())))
        }
    }
}

const LONGEST_BACK_OFF: u64 = 60;
