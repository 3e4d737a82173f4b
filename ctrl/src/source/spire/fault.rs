//! What can be wrong with an agent, and what is only not there yet.

use std::path::PathBuf;

use tonic::{Code, Status};

use crate::config::{SpiffeId, TrustDomain};
use crate::source::svid;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No failure: an entry takes seconds to reach an agent, and it is created when somebody gets to it.
    #[error("{}: {reason}", socket.display())]
    Waiting { socket: PathBuf, reason: String },
    /// It cannot be spoken to.
    #[error("{}: {reason}", socket.display())]
    Away { socket: PathBuf, reason: String },
    #[error("{}: it gives {found} for {asked_by}; want {want}, which is the SPIFFE ID of {workload}", socket.display())]
    OtherIds { socket: PathBuf, found: String, asked_by: &'static str, want: SpiffeId, workload: String },
    #[error("{}: {what}: {count}; at most {most} are taken", socket.display())]
    Many { socket: PathBuf, what: &'static str, count: usize, most: usize },
    #[error("{}: trust domain of a bundle: {found:?}: {reason}", socket.display())]
    TrustDomain { socket: PathBuf, found: String, reason: String },
    #[error("{}: it has bundles of {found}, and none of {want}, the Gateway's trust domain", socket.display())]
    OtherTrustDomain { socket: PathBuf, found: String, want: TrustDomain },
    #[error("bundle of {trust_domain}: {fault}")]
    Bundle { trust_domain: TrustDomain, fault: Box<svid::Fault> },
    #[error("{0}")]
    Svid(#[from] svid::Fault),
    #[error("no entry of `delegated` takes {workload}, and the source has no `socket`")]
    NotAsked { workload: String },
    #[error(
        "no `address` of the broker, and SPIFFE_BROKER_SOCKET in the environment of sluice-ctrl is {found}; want \
         unix:///PATH or tcp://IP:PORT in one of the two"
    )]
    NoAddress { found: String },
    #[error("{}: it is asked by mutual TLS, for which sluice-ctrl has no SVID of its own: {fault}", endpoint.display())]
    NoOwnSvid { endpoint: PathBuf, fault: Box<Fault> },
    #[error("{workload} has no pod on this node that its k8s:* selectors mean, to ask the broker endpoint about")]
    NoPod { workload: String },
}

/// What it means, to whom can change it, that an API refuses.
#[derive(Debug, Clone)]
pub struct Refusals {
    /// `PermissionDenied`: what it may wait for.
    pub denied: String,
    /// `NotFound`: the same, where the API has that.
    pub not_found: Option<String>,
    /// `Unimplemented`: which socket it should be.
    pub unknown: &'static str,
}

impl Fault {
    pub fn is_wait(&self) -> bool {
        match self {
            Self::Waiting { .. } | Self::NoPod { .. } => true,
            Self::NoOwnSvid { fault, .. } => fault.is_wait(),
            Self::Away { .. }
            | Self::OtherIds { .. }
            | Self::Many { .. }
            | Self::TrustDomain { .. }
            | Self::OtherTrustDomain { .. }
            | Self::Bundle { .. }
            | Self::Svid(_)
            | Self::NotAsked { .. }
            | Self::NoAddress { .. } => false,
        }
    }

    /// What the agent answered instead of a message.
    pub fn of(status: &Status, socket: PathBuf, refusals: &Refusals) -> Self {
        let said = shown(status.message());
        match (status.code(), &refusals.not_found) {
            (Code::PermissionDenied, _) => {
                Self::Waiting { socket, reason: format!("{} (it says {said})", refusals.denied) }
            }
            (Code::NotFound, Some(wait)) => Self::Waiting { socket, reason: format!("{wait} (it says {said})") },
            (Code::Unimplemented, _) => {
                Self::Away { socket, reason: format!("it does not know this API: {}", refusals.unknown) }
            }
            // The size of a message is tonic's to judge.
            (Code::OutOfRange, _) => Self::Away { socket, reason: format!("its message is too large: {said}") },
            (code, _) => Self::Away { socket, reason: cause(status).unwrap_or_else(|| format!("{code:?}: {said}")) },
        }
    }
}

/// The deepest reason of an error that was none of the agent's own, such as a socket that is not there.
fn cause(status: &Status) -> Option<String> {
    let mut at = std::error::Error::source(status)?;
    while let Some(deeper) = at.source() {
        at = deeper;
    }
    Some(shown(&at.to_string()))
}

/// Words of somebody else, so much of them as a line holds.
pub fn shown(text: &str) -> String {
    text.chars().take(LONGEST).flat_map(char::escape_debug).collect()
}

/// The first of them, and how many there are.
pub fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    let first: Vec<_> = names.iter().take(MOST_NAMED).map(|name| shown(name)).collect();
    match names.len() {
        0 => "nothing".into(),
        count if count > MOST_NAMED => format!("{} and {} more", first.join(", "), count - MOST_NAMED),
        _ => first.join(", "),
    }
}

const LONGEST: usize = 200;
const MOST_NAMED: usize = 4;
