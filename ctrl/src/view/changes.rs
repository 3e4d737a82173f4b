//! What is asked for and answered about changes: a file to be applied, or only looked at, and what became of it.

use serde::{Deserialize, Serialize};
use snapshot::Version;

/// `POST /v1/apply`: a file by its name, without a directory, and its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    pub file: String,
    pub text: String,
    pub dry_run: bool,
    /// Also if living connections chain to a root that the change drops or are reset by it, or plain callers would
    /// be refused.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/diff`, `POST /v1/replay`: the same, and only looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    pub file: String,
    pub text: String,
    /// Calls that were seen then or later count, in seconds since the epoch.
    #[serde(default)]
    pub since: u64,
}

/// What recorded calls would come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    pub recorded: snapshot::Recorded,
    /// Only those that the change turns.
    pub turned: Vec<snapshot::Turned>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// False: the file says the same already, or it was a dry run.
    pub changed: bool,
    pub path: String,
    pub warnings: Vec<String>,
    /// What it costs beside what it says: a new start of the dataplane, or of `sluice-ctrl`.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What became of it, where somebody waited for that.
    #[serde(flatten)]
    pub in_force: Option<InForce>,
}

/// `POST /v1/reload`: the directory is to be read now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// How long the answer may wait for the dataplane.
    pub wait_ms: u64,
}

/// What the directory holds, as a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    pub version: Version,
    /// On all cores of the dataplane that is connected.
    pub in_force: bool,
    /// Why not.
    pub waiting_for: Option<String>,
    /// None is connected: whichever comes gets it first of all.
    pub no_dataplane: bool,
}
