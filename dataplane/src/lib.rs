//! The dataplane: takes packets off the interfaces, ends TCP, speaks TLS, enforces policy.
//!
//! Start with [`worker`], the loop of a core; [`io`] is where its packets come from.

pub mod admin;
pub mod balance;
pub mod flow;
pub mod io;
pub mod neigh;
pub mod parse;
pub mod planted;
pub mod policy;
pub mod proxy;
pub mod runtime;
pub mod session;
pub mod snapshot;
pub mod stats;
pub mod steering;
pub mod time;
pub mod tls;
pub mod worker;
