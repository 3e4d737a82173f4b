//! CPU time of the machine and of chosen processes over a stretch of time.
//!
//! On a veth the receiver's softirq work runs inside the sender's system call, and the kernel bills
//! whoever was on the CPU: the sum over one gateway's processes is part of another's work, and
//! part of its own is billed elsewhere. So the machine's busy time is what counts here, and the
//! processes' own stands beside it.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// Counters at one moment, in the kernel's ticks.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    at: Instant,
    busy: u64,
    stolen: u64,
    processes: u64,
}

/// What was spent between two readings, in seconds of CPU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// Of the clock.
    pub seconds: f64,
    /// user + nice + system + irq + softirq of all CPUs.
    pub machine: f64,
    /// What the hypervisor gave to others.
    pub stolen: f64,
    pub processes: f64,
}

impl Reading {
    /// A process that has ended is an error: its time is lost, and it should have been at work.
    pub fn take(pids: &[u32]) -> Result<Self> {
        let processes = pids.iter().map(|pid| process(*pid)).sum::<Result<u64>>()?;
        let (busy, stolen) = machine(&fs::read_to_string("/proc/stat")?)?;
        Ok(Self { at: Instant::now(), busy, stolen, processes })
    }

    pub fn until(&self, later: &Self) -> Spent {
        let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        Spent {
            seconds: later.at.duration_since(self.at).as_secs_f64(),
            machine: seconds(later.busy - self.busy),
            stolen: seconds(later.stolen - self.stolen),
            processes: seconds(later.processes - self.processes),
        }
    }
}

/// Busy and stolen ticks of all CPUs: the first line of proc(5) stat.
fn machine(stat: &str) -> Result<(u64, u64)> {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat begins with cpu")?;
    let ticks =
        line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>().context("ticks of /proc/stat")?;
    ensure!(ticks.len() >= 8, "/proc/stat knows no steal: {line}");
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks[..8] else { unreachable!("eight of them") };
    Ok((user + nice + system + irq + softirq, steal))
}

/// utime + stime of one process and all of its threads.
fn process(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("a gateway's process, PID {pid}, has ended"))?;
    user_and_system(&stat).with_context(|| format!("/proc/{pid}/stat"))
}

/// Fields 14 and 15 of proc(5) pid_stat, counted behind the name, which may hold blanks and brackets.
fn user_and_system(stat: &str) -> Result<u64> {
    let (_, fields) = stat.rsplit_once(')').context("it has a name in brackets")?;
    let ticks: Vec<u64> = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse().ok()).collect();
    ensure!(ticks.len() == 2, "it has utime and stime");
    Ok(ticks.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_are_not_busy_and_steal_stands_apart() {
        let (busy, stolen) = machine("cpu  1 20 300 4000 50000 600000 7000000 80000000 9 9\ncpu0 1 1\n").unwrap();
        assert_eq!((busy, stolen), (7_600_321, 80_000_000));
        assert!(machine("cpu  1 2 3 4\n").is_err());
        assert!(machine("intr 1\n").is_err());
    }

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) (b c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15";
        assert_eq!(user_and_system(stat).unwrap(), 11 + 12);
    }

    #[test]
    fn a_process_that_has_ended_is_an_error() {
        let error = Reading::take(&[u32::MAX]).unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error:#}");
    }
}
