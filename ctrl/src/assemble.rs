//! Everything put together: one snapshot, deterministic, checked before it leaves.

use snapshot::channel::PrivateKey;
use snapshot::{Boot, Cores, KeyId, Network, Snapshot, Version};

use crate::config::{Diagnostic, Gateway, Loaded};
use crate::resolve::Resolved;
use crate::rotate::{Identities, Wanted};

/// A snapshot, the keys it refers to, and warnings.
pub type Assembled = (Snapshot, Vec<(KeyId, PrivateKey)>, Vec<Diagnostic>);

/// The identities that workloads of this node need now.
pub fn wanted(loaded: &Loaded, network: &Network, resolved: &Resolved) -> Vec<Wanted> {
    let _ = (loaded, network, resolved);
    Vec::new()
}

pub fn assemble(
    loaded: &Loaded,
    network: &Network,
    resolved: &Resolved,
    identities: &Identities,
    version: Version,
    now: u64,
) -> Result<Assembled, Vec<Diagnostic>> {
    let _ = (loaded, network, resolved, identities, version, now);
    Err(Vec::new())
}

pub fn boot(gateway: &Gateway) -> Boot {
    Boot {
        node: gateway.name.clone(),
        ports: gateway.ports.clone(),
        cores: Cores(gateway.cores.clone()),
        waiting: gateway.waiting,
        on_absent: gateway.on_absent,
        limits: gateway.limits.clone(),
        timeouts: gateway.timeouts.clone(),
        pin_directory: gateway.pin_directory.clone(),
    }
}
