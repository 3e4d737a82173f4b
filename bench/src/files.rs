//! File descriptors: each connection takes one at either end of the load, and two in a proxy.

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes what the machine gives, up to what 100,000 connections through a proxy need; what is
/// started after this has as many. Says how many that are.
pub fn take_all() -> Result<u64> {
    let wanted = 1 << 18;
    let limit = getrlimit(Resource::Nofile);
    let ours = limit.maximum.unwrap_or(wanted);
    // Above the hard limit only root with CAP_SYS_RESOURCE gets.
    if ours < wanted && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(wanted) }).is_ok() {
        return Ok(wanted);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(ours.min(wanted)), maximum: limit.maximum })?;
    Ok(ours.min(wanted))
}

/// For so many connections at one end.
pub fn ensure_enough(connections: u32) -> Result<()> {
    let (have, need) = (take_all()?, u64::from(connections) + 256);
    ensure!(
        have >= need,
        "{connections} connections need {need} file descriptors, and the limit is {have} (ulimit -Hn)"
    );
    Ok(())
}
