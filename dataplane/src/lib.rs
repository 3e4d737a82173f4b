//! The dataplane: takes packets off the interfaces, ends TCP, speaks TLS, enforces policy.
//!
//! Start with [`worker`], the loop of a core; [`io`] is where its packets come from.

pub mod io;
pub mod planted;
pub mod policy;
pub mod snapshot;
pub mod time;
pub mod tls;
