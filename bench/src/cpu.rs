//! CPU time of the machine, of chosen processes and of strangers over a stretch of time.
//!
//! On a veth the receiver's softirq work runs inside the sender's system call, and the kernel bills
//! whoever was on the CPU: the sum over one gateway's processes is part of another's work, and
//! part of its own is billed elsewhere. So the machine's busy time is what counts here, and the
//! processes' own stands beside it. What processes that are not of the bench have used is
//! foreign: too much of it, and the figures are nobody's.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Counters at one moment, in the kernel's ticks.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// On CLOCK_MONOTONIC, by which perf can tell time too.
    at: Duration,
    cpus: u64,
    idle: u64,
    stolen: u64,
    processes: u64,
    foreign: u64,
}

/// What was spent between two readings, in seconds of CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spent {
    /// When, on CLOCK_MONOTONIC.
    pub began: f64,
    /// Of the clock.
    pub seconds: f64,
    /// Busy time of all CPUs: user, system, irq, softirq.
    pub machine: f64,
    /// What the hypervisor gave to others.
    pub stolen: f64,
    /// User and system time of the gateways' processes.
    pub processes: f64,
    /// That of processes which are not of the bench.
    pub foreign: f64,
}

impl Reading {
    /// `root` is the bench: it and what descends from it is not foreign. A gateway's process that
    /// has ended is an error: its time is lost, and it should have been at work.
    pub fn take(gateways: &[u32], root: u32) -> Result<Self> {
        let processes = gateways.iter().map(|pid| gateway(*pid)).sum::<Result<u64>>()?;
        let (at, Machine { cpus, idle, stolen }) = (now(), machine(&fs::read_to_string("/proc/stat")?)?);
        Ok(Self { at, cpus, idle, stolen, processes, foreign: foreign(&all()?, root) })
    }

    pub fn until(&self, later: &Self) -> Spent {
        let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        let elapsed = later.at.saturating_sub(self.at).as_secs_f64();
        let stolen = seconds(later.stolen.saturating_sub(self.stolen));
        let idle = seconds(later.idle.saturating_sub(self.idle));
        Spent {
            began: self.at.as_secs_f64(),
            seconds: elapsed,
            machine: (elapsed * self.cpus as f64 - idle - stolen).max(0.0),
            stolen,
            processes: seconds(later.processes.saturating_sub(self.processes)),
            // Time of a process whose parent does not wait for it goes with it.
            foreign: seconds(later.foreign.saturating_sub(self.foreign)),
        }
    }
}

impl Spent {
    /// The machine's busy time without that of strangers.
    pub fn own(&self) -> f64 {
        self.machine - self.foreign
    }

    /// The share of the machine that strangers had: other processes, and the hypervisor's guests.
    pub fn foreign_share(&self, cpus: usize) -> f64 {
        (self.foreign + self.stolen) / (self.seconds * cpus as f64)
    }
}

/// All CPUs of the first line of proc(5) stat.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    cpus: u64,
    /// Without work, or with nothing but I/O to wait for.
    idle: u64,
    stolen: u64,
}

/// What is busy is what is not idle: the kernel measures idle time, but samples at its ticks who is
/// busy, and a load that works by a timer is in step with these.
fn machine(stat: &str) -> Result<Machine> {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("/proc/stat begins with cpu")?;
    let ticks =
        line.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>().context("ticks of /proc/stat")?;
    ensure!(ticks.len() >= 8, "/proc/stat knows no steal: {line}");
    let cpus = stat.lines().skip(1).take_while(|line| line.starts_with("cpu")).count() as u64;
    Ok(Machine { cpus, idle: ticks[3] + ticks[4], stolen: ticks[7] })
}

/// A process, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Process {
    parent: u32,
    kernel: bool,
    /// utime + stime of all its threads.
    own: u64,
    /// And of its children that have ended.
    children: u64,
}

impl Process {
    /// Fields of proc(5) pid_stat, counted behind the name, which may hold blanks and brackets.
    fn parse(stat: &str) -> Result<Self> {
        let (_, fields) = stat.rsplit_once(')').context("it has a name in brackets")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |at: usize| fields.get(at).context("it has fewer fields")?.parse::<u64>().context("a number");
        Ok(Self {
            parent: u32::try_from(field(1)?)?,
            kernel: field(6)? & KERNEL_THREAD != 0,
            own: field(11)? + field(12)?,
            children: field(13)? + field(14)?,
        })
    }
}

/// PF_KTHREAD: what the kernel does for everybody is nobody's.
const KERNEL_THREAD: u64 = 0x0020_0000;

fn now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).expect("it does not run before it began")
}

/// By PID. What they do, they do for everybody.
pub fn kernel_threads() -> Result<HashSet<u32>> {
    Ok(all()?.into_iter().filter(|(_, process)| process.kernel).map(|(pid, _)| pid).collect())
}

fn gateway(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("a gateway's process, PID {pid}, has ended"))?;
    Ok(Process::parse(&stat).with_context(|| format!("/proc/{pid}/stat"))?.own)
}

fn all() -> Result<HashMap<u32, Process>> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended meanwhile: its time is then its parent's.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            all.insert(pid, Process::parse(&stat).with_context(|| format!("/proc/{pid}/stat"))?);
        }
    }
    Ok(all)
}

/// Children that ended count, so that a stranger's short-lived ones are not missed.
fn foreign(all: &HashMap<u32, Process>, root: u32) -> u64 {
    let mut ours = HashSet::from([root]);
    // Parents may have higher numbers than their children.
    loop {
        let more: Vec<u32> = all
            .iter()
            .filter(|(pid, p)| ours.contains(&p.parent) && !ours.contains(*pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            break;
        }
        ours.extend(more);
    }
    all.iter().filter(|(pid, p)| !p.kernel && !ours.contains(*pid)).map(|(_, p)| p.own + p.children).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_io_is_idle_and_steal_stands_apart() {
        let stat = "cpu  1 20 300 4000 50000 600000 7000000 80000000 9 9\ncpu0 1 1\ncpu1 1 1\nintr 5\n";
        assert_eq!(machine(stat).unwrap(), Machine { cpus: 2, idle: 54_000, stolen: 80_000_000 });
        assert!(machine("cpu  1 2 3 4\n").is_err());
        assert!(machine("intr 1\n").is_err());
    }

    #[test]
    fn a_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let process = Process::parse("7 (a) (b c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15").unwrap();
        assert_eq!((process.parent, process.own, process.children), (1, 11 + 12, 13 + 14));
        assert!(Process::parse("7 (a) S 1 2").is_err());
    }

    #[test]
    fn descendants_and_kernel_threads_are_not_foreign_and_a_strangers_ended_children_are() {
        let process = |parent, kernel, own, children| Process { parent, kernel, own, children };
        let all = HashMap::from([
            (1, process(0, false, 1, 2)),
            (2, process(0, true, 1000, 0)),
            (90, process(1, false, 5000, 7000)),
            (40, process(90, false, 5000, 0)),
            (95, process(40, false, 5000, 0)),
            (96, process(1, false, 40, 80)),
        ]);
        assert_eq!(foreign(&all, 90), 1 + 2 + 40 + 80);
    }

    #[test]
    fn a_gateway_that_has_ended_is_an_error() {
        let error = Reading::take(&[u32::MAX], 1).unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error:#}");
    }

    #[test]
    fn the_share_of_strangers_is_one_of_all_cpus() {
        let spent = Spent { seconds: 10.0, machine: 9.0, stolen: 0.5, foreign: 1.5, ..Spent::default() };
        assert_eq!((spent.own(), spent.foreign_share(2)), (7.5, 0.1));
    }
}
