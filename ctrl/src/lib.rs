//! The control process: reads the configuration, gives out identities, assembles what the
//! dataplane enforces.

#![forbid(unsafe_code)]

pub mod assemble;
pub mod attest;
pub mod config;
pub mod resolve;
pub mod rotate;
pub mod source;
