//! Measures Sluice beside its peers, in one run on one machine.
//!
//! ```text
//!   client ── gateway A ── wire ── gateway B ── server
//!   (load)    sluice, haproxy or none: in turn        (load)
//! ```
//! [`stage`] lays the namespaces and puts a [`contender`] in its place; [`load`] runs as processes
//! of their own inside them and measures, with [`cpu`]; [`wire`] reads what the probe's handshake
//! settled on; [`plan`] says what is measured in which order, and [`report`] what came of it.

pub mod cli;
pub mod contender;
pub mod cpu;
pub mod environment;
pub mod haproxy;
pub mod load;
pub mod plan;
pub mod report;
pub mod stage;
pub mod wire;
