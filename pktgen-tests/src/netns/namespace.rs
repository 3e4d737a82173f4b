//! A handle on one network namespace: run programs in it, or our own code in a thread of its own.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Output, Process, rig, run};

#[derive(Clone, Debug)]
pub struct Namespace {
    name: Arc<str>,
}

impl Namespace {
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.into() }
    }

    /// As `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&*self.name)
    }

    /// `ip -n NAME ...`, the arguments divided by blanks.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        rig::ip(&["-n", &self.name].into_iter().chain(arguments.split_whitespace()).collect::<Vec<_>>())
    }

    /// A program that will run in the namespace. nsenter replaces itself by it: the PID stays.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a command line, its words divided by blanks, to its end.
    pub fn run(&self, line: &str, timeout: Duration) -> Result<Output> {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().context("an empty command line")?);
        command.args(words);
        run(command, timeout)
    }

    /// Starts a command line whose output goes to `log`.
    pub fn spawn(&self, line: &str, log: &Path) -> Result<Process> {
        let mut words = line.split_whitespace();
        let mut command = self.command(words.next().context("an empty command line")?);
        command.args(words);
        Process::start(command, log)
    }

    /// Runs `work` in a thread that stands in the namespace; sockets opened there stay there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.path();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || -> Result<T> {
                enter(&path)?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Like [`Self::enter`], and goes on by itself.
    pub fn enter_detached<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<Result<T>> {
        let path = self.path();
        std::thread::spawn(move || {
            enter(&path)?;
            Ok(work())
        })
    }

    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(&format!("sysctl -qw {key}={value}"), SHORT)?.ok().map(drop)
    }

    /// Makes it a router of both families.
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// `ethtool -K INTERFACE ...`: `tso off gso off gro off`.
    pub fn offload(&self, interface: &str, features: &str) -> Result<()> {
        self.run(&format!("ethtool -K {interface} {features}"), SHORT)?.ok().map(drop)
    }

    pub fn mac(&self, interface: &str) -> Result<[u8; 6]> {
        let output = self.run(&format!("ip -o link show {interface}"), SHORT)?;
        let text = output.ok()?;
        let mut words = text.split_whitespace().skip_while(|w| *w != "link/ether").skip(1);
        let mac = words.next().with_context(|| format!("{interface} has no MAC"))?;
        let bytes: Vec<u8> = mac.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
        bytes.try_into().ok().with_context(|| format!("{mac} is no MAC"))
    }

    /// Drops each `n`-th TCP packet that the namespace forwards, by count, so that runs are alike.
    pub fn lose_one_in(&self, n: u32) -> Result<()> {
        self.nft("add table inet lossy")?;
        self.nft("add chain inet lossy forward { type filter hook forward priority 0; }")?;
        self.nft(&format!("add rule inet lossy forward meta l4proto tcp numgen inc mod {n} == {} counter drop", n - 1))
    }

    /// How many packets [`Self::lose_one_in`] has dropped.
    pub fn lost(&self) -> Result<u64> {
        let output = self.run("nft list chain inet lossy forward", SHORT)?;
        let text = output.ok()?;
        let mut words = text.split_whitespace().skip_while(|w| *w != "packets").skip(1);
        words.next().and_then(|n| n.parse().ok()).context("the chain has no counter")
    }

    fn nft(&self, rule: &str) -> Result<()> {
        let mut command = self.command("nft");
        command.arg(rule);
        run(command, SHORT)?.ok().map(drop)
    }

    /// Processes that stand in it.
    pub fn pids(&self) -> Vec<Pid> {
        let mut command = Command::new("ip");
        command.args(["netns", "pids", &self.name]);
        let text = run(command, SHORT).map(|o| o.stdout).unwrap_or_default();
        text.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)).collect()
    }
}

pub(super) fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("enter the namespace")
}

const SHORT: Duration = Duration::from_secs(10);
