//! What connections hold that do nothing: opened, used once, and left.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::held::{Held, open};
use super::pace::sleep_until;
use super::wire::MESSAGE;
use super::{Job, Measured, Memory};

pub fn run(job: &Job, connections: u32) -> Result<Measured> {
    // What the first connections bring once for all (pools, caches, code pages) is not theirs.
    drop(open(job.server, WARM_UP).context("while warming up")?);
    let (before, base, available) = (job.reading()?, proportional(&job.gateways)?, available()?);
    let mut held = Held::open(job.server, connections)?;
    // A gateway may give back what opening took, once there is nothing else to do.
    sleep_until(Instant::now() + IDLE);
    let memory =
        Memory { base, processes: proportional(&job.gateways)? - base, machine: available - self::available()? };
    let spent = before.until(&job.reading()?);
    held.ask()?;
    let count = held.count();
    Ok(Measured { memory: Some(memory), ..Measured::new(spent, count * 2 * MESSAGE as u64, count) })
}

/// KiB of the processes: pages that several share count in parts.
fn proportional(pids: &[u32]) -> Result<f64> {
    let one = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .with_context(|| format!("a gateway's process, PID {pid}, has ended"))?;
        kibibytes(&text, "Pss:").context("smaps_rollup tells Pss")
    };
    pids.iter().map(one).sum()
}

/// KiB that the machine could still give away: sockets of the kernel count here too.
fn available() -> Result<f64> {
    kibibytes(&fs::read_to_string("/proc/meminfo")?, "MemAvailable:").context("/proc/meminfo tells MemAvailable")
}

fn kibibytes(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

const IDLE: Duration = Duration::from_secs(1);
/// Few: what a pool keeps of them is not counted again.
const WARM_UP: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let text = "MemTotal: 9 kB\nPss_Dirty: 3 kB\nPss:          1234 kB\n";
        assert_eq!(kibibytes(text, "Pss:"), Some(1234.0));
        assert_eq!(kibibytes(text, "Rss:"), None);
    }
}
