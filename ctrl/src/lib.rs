//! The control process and the CLI: reads the configuration, gives out identities, assembles what
//! the dataplane enforces, and never touches a packet.

#![forbid(unsafe_code)]

pub mod assemble;
pub mod attest;
pub mod clock;
pub mod config;
pub mod netlink;
pub mod publish;
pub mod resolve;
pub mod rotate;
pub mod source;
