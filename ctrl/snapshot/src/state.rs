//! The snapshot itself: everything that decides about a connection, whole, under one version.

use serde::{Deserialize, Serialize};

use crate::{Audit, Bundle, Living, Policy, Revoked, RuleSource, Service, Unmatched, Workload};

/// Raised with each change of any type in this crate that goes over the wire. A dataplane refuses
/// a snapshot of another schema whole: a field read as another field would be a policy of nobody.
pub const SCHEMA: u32 = 7;

/// Counts up with every snapshot that ctrl assembles on this node, over restarts too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version(pub u64);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What the dataplane enforces. Private keys are not in it; they travel by [`crate::KeyId`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub schema: u32,
    pub version: Version,
    /// Name of the Gateway that it was made for.
    pub node: String,
    /// The trust domain of the identities that this node gives out.
    pub trust_domain: String,
    /// Identities attested on this node. An index into this list is what packets are matched to.
    pub workloads: Vec<Workload>,
    /// Destinations by name and label, with the addresses they resolved to.
    pub services: Vec<Service>,
    /// One per trust domain; a peer is verified against its own domain's roots only.
    pub bundles: Vec<Bundle>,
    /// Rules of `Policy` resources; those that name a workload stand in [`Workload::policies`].
    pub policies: Vec<Policy>,
    /// At most one per trust domain.
    pub revoked: Vec<Revoked>,
    /// Where each rule stands in the files; [`crate::RuleId`] indexes it.
    pub rules: Vec<RuleSource>,
    /// What a captured caller without an identity gets, and the default of every workload.
    pub unmatched_egress: Unmatched,
    /// Seconds since the epoch at which each capture of this snapshot began, for connections that
    /// are older than the capture. See [`crate::Limits::pre_existing_grace`].
    pub assembled_at: u64,
    /// Of connections that are no workload's of this node.
    pub living: Living,
    /// None: no audit log.
    pub audit: Option<Audit>,
}
