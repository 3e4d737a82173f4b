//! Tests of TLS legs: against each other, and against a stock peer with anything wrong with it.

pub mod certs;
mod chains;
mod peers;
mod records;
pub mod stock;
pub mod world;
