//! What the tests of interop stand on: the peers' programs, an authority, and a pair of gateways
//! whose workloads have SVIDs out of files, so that the kind of their keys can change.

pub mod pki;
pub mod runtime;
pub mod stage;
