//! What the dataplane tells about itself: connections, counters, status, explanations.

mod history;
mod log;
mod queries;

pub use history::History;
pub use log::RefusalLog;
pub use queries::{counters, status};
