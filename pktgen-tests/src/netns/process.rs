//! Programs that a test runs: to their end with a time limit, or beside it until it is done.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// What a program that ended has said.
#[derive(Debug)]
pub struct Output {
    pub line: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Its standard output, if it succeeded.
    pub fn ok(&self) -> Result<&str> {
        ensure!(self.status.success(), "`{}`: {}: {}", self.line, self.status, self.stderr.trim());
        Ok(&self.stdout)
    }
}

/// Runs a program to its end; one that takes longer than `timeout` is killed, and an error.
pub fn run(mut command: Command, timeout: Duration) -> Result<Output> {
    let line = line(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("start `{line}`"))?;
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    std::thread::scope(|scope| {
        let stdout = scope.spawn(move || text(&mut out));
        let stderr = scope.spawn(move || text(&mut err));
        let in_time = wait(&child, timeout)?;
        if !in_time {
            child.kill().context("kill what takes too long")?;
        }
        let status = child.wait()?;
        let output = Output {
            line,
            status,
            stdout: stdout.join().unwrap_or_default(),
            stderr: stderr.join().unwrap_or_default(),
        };
        ensure!(in_time, "`{}` took longer than {timeout:?}; it had said: {}", output.line, output.stderr.trim());
        Ok(output)
    })
}

/// A program that runs beside the test, and is stopped when its handle is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    line: String,
    left: bool,
}

impl Process {
    /// Starts it with both outputs appended to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let line = line(&command);
        let file = File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        // A group of its own: Ctrl-C at the terminal reaches the test, which then stops it in order.
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("start `{line}`"))?;
        Ok(Self { child, line, left: false })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("signal `{}`", self.line))
    }

    /// Lets it run on when the handle is dropped.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// None: it still runs.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if !wait(&self.child, timeout)? {
            bail!("`{}` still runs after {timeout:?}", self.line);
        }
        Ok(self.child.wait()?)
    }

    /// Asks it to end, and after three seconds no longer asks.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        if !wait(&self.child, Duration::from_secs(3))? {
            self.child.kill()?;
        }
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        if let Err(error) = self.stop() {
            eprintln!("rig: stop `{}`: {error:#}", self.line);
        }
    }
}

/// Whether it ended in time. Its status is not taken.
fn wait(child: &Child, timeout: Duration) -> Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).context("open a pidfd")?;
    let timeout = Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))? == 1)
}

fn text(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
