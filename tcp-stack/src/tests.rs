//! What a connection does, as scripts against a peer played by hand and as exchanges over bad links.

use crate::{Config, Duration};

mod closing;
mod exchange;
mod flow;
mod guard;
mod opening;
mod timing;

/// Small rings, no timers but the engine's own, no delayed acknowledgements.
fn plain() -> Config {
    Config { buffer: 8192, keep_alive: None, user_timeout: None, ack_delay: None }
}

const SECOND: Duration = Duration::from_secs(1);
const NONE: [&str; 0] = [];
