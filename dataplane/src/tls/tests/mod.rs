//! Tests of TLS legs: against each other, and against a stock peer with anything wrong with it.

pub mod certs;
pub mod chains;
pub mod letter;
mod peers;
mod records;
mod resumption;
pub mod stock;
pub mod world;
