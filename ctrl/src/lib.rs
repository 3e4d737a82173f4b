//! The control process and the CLI: reads the configuration, gives out identities, assembles what
//! the dataplane enforces, and never touches a packet.

#![forbid(unsafe_code)]

pub mod admin;
pub mod apply;
pub mod assemble;
pub mod at_stake;
pub mod attest;
pub mod bundles;
mod causes;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod crds;
pub mod crls;
pub mod describe;
pub mod difference;
pub mod fetch;
pub mod kubernetes;
pub mod logging;
pub mod metrics;
pub mod migrate;
pub mod named;
pub mod netlink;
pub mod preflight;
pub mod publish;
pub mod remembered;
pub mod resolve;
pub mod rotate;
pub mod running;
pub mod runtime;
pub mod services;
pub mod signals;
pub mod source;
pub mod supervise;
pub mod trusted;
pub mod version;
pub mod view;
pub mod watch;
pub mod web;
pub mod whois;

/// Shown wherever a process says who it is.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");
