//! TLS legs: who the peer is, whether it may, and the bytes in between.
//!
//! A [`TlsLeg`] is one side of one TLS connection, without I/O: ciphertext and plaintext go in and
//! out by slices. Authentication and the policy verdict both happen while the peer's certificate is
//! verified, so that a peer that is refused hears the right alert before a byte has passed.
//!
//! ```text
//!   wire ─▶ read_tls ─▶ handshake ─▶ verify (chain, SPIFFE ID) ─▶ policy::decide ─▶ read ─▶ workload
//!   wire ◀─ write_tls ◀───────────────── records ◀────────────────────────────── write ◀─ workload
//! ```
//! Nothing outside this folder knows which TLS library runs.

mod certificate;
mod constraints;
mod credentials;
mod der;
mod identity;
mod issued;
mod leg;
mod names;
mod negotiated;
mod path;
pub mod provider;
mod root;
mod rules;
mod tickets;
mod verified;
mod verify;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

pub use credentials::{Credentials, ImportError, Roots};
pub use identity::SpiffeId;
pub use issued::Issued;
pub use leg::TlsLeg;
pub use root::Root;
pub use rustls::crypto::CryptoProvider;
pub use tickets::Unused;

use ::snapshot::{CloseReason, RefuseReason, RuleId};

/// Who is at the other end: proven by its certificate and the private key to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub spiffe_id: Arc<str>,
    /// Lower-case hex.
    pub serial: Arc<str>,
    /// Seconds since the epoch.
    pub not_after: u64,
    /// What its chain led to: who is no longer trusted when this is not.
    pub root: Arc<Root>,
    /// The certificates of its chain below that root, its own first: what CRLs speak of.
    pub issued: Arc<[Issued]>,
}

/// Why we refused, with what an operator needs to see: never sent to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: RefuseReason,
    pub rule: Option<RuleId>,
    pub detail: Option<String>,
}

impl Refusal {
    pub fn new(reason: RefuseReason, detail: impl Into<String>) -> Self {
        Self { reason, rule: None, detail: Some(detail.into()) }
    }

    /// With the name of the one that it is about before the detail.
    fn about(mut self, name: &str) -> Self {
        self.detail = self.detail.map(|detail| format!("{name}: {detail}"));
        self
    }
}

/// What authentication and policy came to: the rule that allows, or why not.
pub type Outcome = Result<Option<RuleId>, Refusal>;

/// Why a leg is dead. An alert to send, if there is one, waits in [`TlsLeg::pending`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Authentication or policy said no.
    Refused(Refusal),
    /// The peer broke the protocol, or a record did not decrypt.
    Protocol(String),
    /// The peer sent this alert.
    Alert(String),
}

impl Failure {
    /// The reason if it happens before the connection stands.
    pub fn refuse_reason(&self) -> RefuseReason {
        match self {
            Self::Refused(refusal) => refusal.reason,
            Self::Protocol(_) => RefuseReason::TlsProtocol,
            Self::Alert(_) => RefuseReason::RefusedByPeer,
        }
    }

    /// The reason if it happens after.
    pub fn close_reason(&self) -> CloseReason {
        match self {
            Self::Refused(_) | Self::Protocol(_) => CloseReason::TlsError,
            Self::Alert(_) => CloseReason::ClosedByPeer,
        }
    }

    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => refusal.detail.as_deref(),
            Self::Protocol(what) | Self::Alert(what) => Some(what),
        }
    }
}
