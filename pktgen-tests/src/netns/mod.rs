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
mod container;
pub mod gateway;
mod namespace;
mod packet_socket;
pub mod pair;
mod process;
mod rig;
mod service;
mod signal;
mod site;

use std::time::{Duration, Instant};

pub use capture::Capture;
pub use container::Container;
pub use gateway::Gateway;
pub use namespace::Namespace;
pub use packet_socket::PacketSocket;
pub use pair::Pair;
pub use process::{Output, Process, run};
pub use rig::{End, Rig};
pub use service::Service;
pub use signal::stay_if_ending;
pub use site::{Cables, Host, Site};

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

/// How much of one core each of these processes uses over `window`, by name.
pub fn cpu_shares(pids: &[rustix::process::Pid], window: Duration) -> anyhow::Result<Vec<(String, f64)>> {
    // Fields 14 and 15 of proc(5) stat, counted behind the name, which may hold blanks.
    let ticks = |pid: &rustix::process::Pid| -> anyhow::Result<(String, u64)> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))?;
        let (name, fields) = stat.rsplit_once(')').unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Ok((name.split_once('(').unwrap_or_default().1.to_owned(), ticks))
    };
    let all = || pids.iter().map(ticks).collect::<anyhow::Result<Vec<_>>>();
    anyhow::ensure!(!pids.is_empty(), "no process to measure");
    let before = all()?;
    let began = Instant::now();
    #[expect(clippy::disallowed_methods, reason = "a rate needs a stretch of time")]
    std::thread::sleep(window);
    let seconds = began.elapsed().as_secs_f64() * rustix::param::clock_ticks_per_second() as f64;
    let share =
        |((name, after), (_, before)): ((String, u64), (String, u64))| (name, (after - before) as f64 / seconds);
    Ok(all()?.into_iter().zip(before).map(share).collect())
}

/// For tests that hold thousands of sockets.
pub fn raise_file_limit(to: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|now| now >= to) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(to));
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(to), maximum })?)
}
