//! A node of the simulation's topology, compiled as its agent would.

use dataplane::snapshot::{Compiled, Keys};
use dataplane::tls::provider;
use pktgen_tests::sim::chance::Chance;
use pktgen_tests::sim::pki::{Authority, TRUST_DOMAIN};
use pktgen_tests::sim::topology;
use snapshot::{Snapshot, Workload};

/// The policy of `node`, changed by `edit`. All nodes have the same authority.
pub fn compiled(node: usize, edit: impl FnOnce(&mut Snapshot)) -> Compiled {
    provider::seed(node as u64);
    let mut authority = Authority::new(Chance::new(1), TRUST_DOMAIN);
    let identities = topology::identities(node, &mut authority);
    let mut snapshot = topology::snapshot(node, &authority, &identities);
    edit(&mut snapshot);
    let mut keys = Keys::default();
    for identity in &identities {
        keys.insert(identity.svid.key, identity.key.clone());
    }
    Compiled::compile(&snapshot, &keys, &provider::seeded(), None).expect("the snapshot compiles")
}

pub fn workload<'a>(snapshot: &'a mut Snapshot, name: &str) -> &'a mut Workload {
    let name = format!("default/{name}");
    snapshot.workloads.iter_mut().find(|workload| workload.name == name).expect("a workload of the node")
}
