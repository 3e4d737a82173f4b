//! Where identities come from: one trait, one file per source.
//!
//! A source gives out an X.509-SVID with its key for a SPIFFE ID, and the roots that peers of its
//! trust domain are verified against. When to ask is [`crate::rotate`]'s.

pub mod embedded_ca;
pub mod keyfile;
pub mod signer;

use std::path::PathBuf;

use snapshot::channel::PrivateKey;
use snapshot::{Bundle, Svid};

use crate::config::{Gateway, IdentitySource, SpiffeId, TrustDomain};

pub use embedded_ca::EmbeddedCa;

/// An SVID and its private key. Debug shows the SVID only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedSvid {
    pub svid: Svid,
    pub key: PrivateKey,
}

/// Something that gives out identities. Times are seconds since the epoch.
pub trait Source: Send {
    fn issue(&self, id: &SpiffeId, dns_names: &[String], now: u64) -> Result<IssuedSvid, Error>;

    fn bundle(&self) -> Bundle;

    /// What will soon go wrong with the source itself, such as an issuer about to expire.
    fn warnings(&self, now: u64) -> Vec<String>;
}

/// The source that the Gateway names.
pub fn open(gateway: &Gateway) -> Result<Box<dyn Source>, Error> {
    match &gateway.identity {
        IdentitySource::Embedded { directory, ttl } => {
            let ca = EmbeddedCa::open(directory)?;
            if *ca.trust_domain() != gateway.trust_domain {
                return Err(Error::TrustDomain {
                    path: directory.clone(),
                    found: ca.trust_domain().clone(),
                    want: gateway.trust_domain.clone(),
                });
            }
            Ok(Box::new(ca.with(*ttl)))
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
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
    #[error("node name {0:?}: use letters, digits, '.', '-' and '_'")]
    Node(String),
}
