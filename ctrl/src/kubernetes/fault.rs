//! What can be wrong with an API server, in words for who has to mend it.

use crate::causes::with_causes;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("no way to the API server: {0}")]
    Config(String),
    #[error("{0}")]
    Away(String),
    #[error("it does not answer within {0} s")]
    Silent(u64),
    #[error("401 Unauthorized: {0}: it does not know this token or certificate")]
    Unknown(String),
    #[error("403 Forbidden: {message}: a ClusterRole of ours has to allow verb `{verb}` on `{resource}` of {group}")]
    Denied { verb: &'static str, resource: String, group: String, message: String },
    #[error("{code}: {message}")]
    Refused { code: u16, message: String },
    #[error("410 Gone: {0}")]
    Gone(String),
    #[error("it says what is not understood: {0}")]
    Garbage(String),
    #[error("it sends more than {0} MiB at once")]
    Large(usize),
    #[error("it has {count} {what}, at most {most} are taken")]
    Many { what: String, count: usize, most: usize },
    #[error("it ended the watch at once")]
    Ended,
}

impl Fault {
    /// The version that a watch went on from may be what is wrong: everything is listed again.
    pub fn voids_version(&self) -> bool {
        match self {
            Self::Config(_) | Self::Away(_) | Self::Silent(_) | Self::Ended => false,
            Self::Unknown(_)
            | Self::Denied { .. }
            | Self::Refused { .. }
            | Self::Gone(_)
            | Self::Garbage(_)
            | Self::Large(_)
            | Self::Many { .. } => true,
        }
    }
}

/// An error with what it came from, as long as that says more.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut all = std::iter::successors(Some(error), |error| error.source());
    if let Some(told) = all.find_map(super::login::told) {
        return told;
    }
    // The library's names of its own layers say nothing.
    let text = error.to_string();
    let text = text.trim_start_matches("ServiceError: ").trim_start_matches("HyperError: ");
    with_causes(text, error)
}
