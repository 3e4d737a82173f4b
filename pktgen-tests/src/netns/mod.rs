//! A rig of network namespaces: cables, programs and captures, all gone when it is dropped.
//!
//! ```text
//!   Rig ── owns ──▶ Namespace ── cable ── Namespace
//!                     ├─ run / spawn: programs, through nsenter
//!                     ├─ enter: our own code, in a thread of that namespace
//!                     └─ Capture, PacketSocket: raw frames of one interface
//! ```
//! A rig cleans up in `drop` (so also on panic) and on SIGINT, SIGTERM and SIGHUP; what a killed
//! process left is swept when the next rig starts. Programs run through `nsenter --net`, not `ip
//! netns exec`: that one unshares the mounts, and what a program pins in a bpffs would die with it.

mod capture;
pub mod gateway;
mod namespace;
mod packet_socket;
mod process;
mod rig;
mod signal;
mod site;

use std::time::{Duration, Instant};

pub use capture::Capture;
pub use gateway::Gateway;
pub use namespace::Namespace;
pub use packet_socket::PacketSocket;
pub use process::{Output, Process, run};
pub use rig::{End, Rig};
pub use site::{Host, Mtu, Site};

/// Asks `condition` until it is `Some` or `timeout` has passed. For what the kernel has no event
/// for; `what` is what the error says did not happen.
pub fn wait_until<T>(what: &str, timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        anyhow::ensure!(start.elapsed() < timeout, "waited {timeout:?} in vain: {what}");
        #[expect(clippy::disallowed_methods, reason = "the one place that polls")]
        std::thread::sleep(Duration::from_millis(10));
    }
}
