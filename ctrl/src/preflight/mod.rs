//! What a machine needs to run a gateway, looked at from outside: nothing is changed or attached.
//!
//! ✓ is fine, ! is something to know, ✗ will not work. Each line says what was found and, where it
//! is not fine, what would be right.

mod brokers;
mod bypass;
mod interfaces;
mod kernel;
mod paths;
mod vaults;

use std::path::Path;

use serde::Serialize;

use crate::config::{Gateway, Loaded};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Fine,
    Note,
    Wrong,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub outcome: Outcome,
    /// What was looked at.
    pub subject: String,
    pub found: String,
}

impl Line {
    fn fine(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fine, subject: subject.into(), found: found.into() }
    }

    fn note(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { outcome: Outcome::Note, ..Self::fine(subject, found) }
    }

    fn wrong(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self { outcome: Outcome::Wrong, ..Self::fine(subject, found) }
    }
}

/// Everything that can be told about this machine for this Gateway.
pub async fn check(gateway: &Gateway) -> Vec<Line> {
    let mut lines = kernel::check(gateway);
    lines.extend(vaults::check(gateway).await);
    lines.extend(brokers::check(gateway).await);
    lines.extend(interfaces::check(gateway).await);
    lines.extend(bypass::check(gateway));
    lines
}

/// What else its files name, with the workloads that need it.
pub fn check_paths(loaded: &Loaded) -> Vec<Line> {
    paths::check(loaded)
}

/// A file of /proc or /sys without its newline.
fn read(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
