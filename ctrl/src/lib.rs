//! The control process and the CLI: everything that decides, and nothing that touches packets.

#![forbid(unsafe_code)]

pub mod clock;
pub mod netlink;
pub mod publish;
