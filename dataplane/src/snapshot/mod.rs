//! Snapshots on the dataplane's side: what came from ctrl, made ready to decide with.
//!
//! A [`snapshot::Snapshot`](::snapshot::Snapshot) is lists and names; [`compiled::Compiled`] is the
//! same content as tables, keys and trust anchors, immutable and shared by all workers.

pub mod addresses;
pub mod agent;
pub mod compiled;
pub mod receive;
pub mod shared;
pub mod virtuals;

pub use addresses::Map;
pub use compiled::{Compiled, EndpointId, Error, Keys, Workload};
pub use shared::{Places, Shared, Whose};
pub use virtuals::{Virtual, Virtuals};
