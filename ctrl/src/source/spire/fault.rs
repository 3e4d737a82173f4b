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
    #[error("{}: it gives {found} for these selectors; want {want}, which is the SPIFFE ID of {workload}", socket.display())]
    OtherIds { socket: PathBuf, found: String, want: SpiffeId, workload: String },
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
}

impl Fault {
    pub fn is_wait(&self) -> bool {
        matches!(self, Self::Waiting { .. })
    }

    /// What the agent answered instead of a message. `asked` is what a refusal may wait for.
    pub fn of(status: &Status, socket: PathBuf, asked: &str) -> Self {
        let said = shown(status.message());
        match status.code() {
            Code::PermissionDenied => Self::Waiting { socket, reason: format!("{asked} (it says {said})") },
            Code::Unimplemented => {
                let reason = "it does not know this API: `socket` is the agent's socket_path, `adminSocket` its \
                              admin_socket_path";
                Self::Away { socket, reason: reason.into() }
            }
            // The size of a message is tonic's to judge.
            Code::OutOfRange => Self::Away { socket, reason: format!("its message is too large: {said}") },
            code => Self::Away { socket, reason: cause(status).unwrap_or_else(|| format!("{code:?}: {said}")) },
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
