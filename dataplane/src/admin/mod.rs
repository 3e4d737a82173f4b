//! What the dataplane tells about itself: connections, counters, status, explanations.

mod audit;
mod callers;
mod flows;
mod history;
mod log;
mod queries;

#[cfg(test)]
pub mod example;

pub use audit::{Audit, Topic};
pub use callers::{Callers, Limits as CallerLimits};
pub use flows::Flows;
pub use history::History;
pub use log::RefusalLog;
pub use queries::{counters, status};
