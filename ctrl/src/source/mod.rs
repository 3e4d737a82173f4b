//! Where identities come from: one trait, one file or folder per source, several at once.
//!
//! A source gives out an X.509-SVID with its key for a workload, and the roots that peers of its
//! trust domain are verified against. Which source a workload gets its own from is [`Sources`]'; when
//! to ask is [`crate::rotate`]'s.

pub mod embedded_ca;
pub mod files;
mod found;
pub mod keyfile;
mod roots;
mod set;
pub mod signer;
pub mod spire;
pub(crate) mod svid;
pub mod vault;

use std::path::PathBuf;

use snapshot::channel::PrivateKey;
use snapshot::{Bundle, Svid};

use crate::config::identity::Opens;
use crate::config::kubernetes::PodId;
use crate::config::{SpiffeId, TrustDomain};

pub use embedded_ca::EmbeddedCa;
pub use set::{News, OfSource, Opened, Reopened, Sources, Together, Trusted, open};

/// What an identity is wanted for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    pub id: SpiffeId,
    /// Host names of the services that the workload serves, for its DNS SANs.
    pub dns_names: Vec<String>,
    /// `namespace/name` of its WorkloadIdentity; of several that share the ID, the first.
    pub workload: String,
    /// Those of this node that its selectors mean.
    pub pods: Vec<PodId>,
}

/// An SVID and its private key. Debug shows the SVID only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedSvid {
    pub svid: Svid,
    pub key: PrivateKey,
}

/// Who begins a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// We ask, at half of an SVID's life.
    Asked,
    /// Somebody else renews; [`Source::news`] says when it has happened.
    Given,
}

/// Something that gives out identities. Times are seconds since the epoch.
pub trait Source: Send {
    /// Never waits: a source that has to ask somebody does that on its own, and then has news.
    fn issue(&self, wanted: &Wanted, now: u64) -> Result<IssuedSvid, Error>;

    fn bundle(&self) -> Bundle;

    /// The bundles of other trust domains that it brings, for federation.
    fn federated(&self) -> Vec<Bundle> {
        Vec::new()
    }

    /// What will soon go wrong with the source itself, such as an issuer about to expire.
    fn warnings(&self, now: u64) -> Vec<String>;

    fn renewal(&self) -> Renewal {
        Renewal::Asked
    }

    /// All that are wanted of this source from now on, for those that prepare what they give out.
    fn follow(&mut self, _wanted: &[&Wanted]) {}

    /// For whom [`Source::issue`] would now say something else than before, each told once.
    fn news(&self) -> Vec<SpiffeId> {
        Vec::new()
    }

    /// Whether it would still have this one of its own signed by the same certificates.
    fn stands_by(&self, _svid: &Svid) -> bool {
        true
    }

    /// Time has jumped, so that whatever was waited for may be overdue.
    fn hurry(&self) {}

    /// A first answer for everybody that is followed has been had, be it a failure.
    fn settled(&self) -> bool {
        true
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reason is no `source`: who prints the chain would say it twice.
    #[error("{}: {reason}", path.display())]
    Io { path: PathBuf, reason: std::io::Error },
    #[error("{} exists already; it is never overwritten: choose another directory or move it away", .0.display())]
    Exists(PathBuf),
    #[error("{}: mode {mode:04o} lets others read a private key; run: chmod 600 {}", path.display(), path.display())]
    KeyPermissions { path: PathBuf, mode: u32 },
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{} is a CA of trust domain {found}, the Gateway's is {want}", path.display())]
    TrustDomain { path: PathBuf, found: TrustDomain, want: TrustDomain },
    #[error("{id} is not of trust domain {domain}, which this CA is for")]
    ForeignId { id: SpiffeId, domain: TrustDomain },
    #[error("{} {what} {}", path.display(), crate::rotate::utc(*at))]
    IssuerNotValid { path: PathBuf, what: &'static str, at: u64 },
    #[error("a time to live of {0} s is too short: use 2s or more")]
    Ttl(u64),
    #[error("{what}: {reason}")]
    Crypto { what: &'static str, reason: String },
    #[error("{0}")]
    Files(#[from] files::Fault),
    #[error("{0}")]
    Spire(Box<spire::Fault>),
    #[error("{0}")]
    Vault(Box<vault::Fault>),
    #[error("no identity source takes it: add it to `workloads` of a source in spec.identity.sources")]
    NoSource,
    #[error("its identity source {name} does not open: {reason}")]
    Down { name: String, reason: String },
    #[error("node name {0:?}: use letters, digits, '.', '-' and '_'")]
    Node(String),
}

/// A source that does not open, and the field that says how it would.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", at.path)]
pub struct Unopened {
    pub at: Opens,
    pub error: Box<Error>,
}

impl From<spire::Fault> for Error {
    fn from(fault: spire::Fault) -> Self {
        Self::Spire(Box::new(fault))
    }
}

impl From<vault::Fault> for Error {
    fn from(fault: vault::Fault) -> Self {
        Self::Vault(Box::new(fault))
    }
}

impl Error {
    /// Nothing is wrong, and there is nothing yet: somebody else has to do his part first.
    pub fn is_wait(&self) -> bool {
        matches!(self, Self::Spire(fault) if fault.is_wait())
            || matches!(self, Self::Vault(fault) if fault.is_wait())
            || matches!(self, Self::Files(files::Fault::NotRead { .. }))
    }
}
