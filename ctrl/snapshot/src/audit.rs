//! The audit log: where it goes, how much is written, and what became of it.

use serde::{Deserialize, Serialize};

/// `spec.audit` of the Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// An absolute path. Older files are beside it, with `.1` (the youngest) and on.
    pub file: String,
    /// In bytes; a file that would grow beyond it is put aside first.
    pub max_size: u64,
    /// How many files are kept beside the one that is written.
    pub keep: u32,
    /// Whether connections that are allowed are written too.
    pub accepted: bool,
    /// Lines a second and reason.
    pub per_second: u32,
}

/// What became of the lines since the dataplane started. Each decision is in exactly one of the three
/// counts, once it is not on its way any more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AuditStatus {
    pub file: String,
    pub written: u64,
    /// Left out: above the rate, or with nowhere to wait.
    pub omitted: u64,
    /// The file did not take them.
    pub failed: u64,
    /// Why the file takes nothing, until it does again.
    pub error: Option<String>,
}
