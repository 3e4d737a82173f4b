//! What a core counts and tells: counters with one writer, and records of connections.

mod counters;
mod record;

pub use counters::{CoreCounters, Total};
pub use record::Report;
