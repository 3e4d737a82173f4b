//! perf(1) beside a piece of work: every CPU, with stacks.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pktgen_tests::netns::{Process, run, wait_until};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::Signal;

use super::script::FIELDS;

/// In a second, on each CPU. Not in step with the kernel's ticks, or with a load that works by a
/// timer, as a round number would be.
pub const FREQUENCY: u32 = 1999;

pub struct Recording {
    process: Process,
    data: PathBuf,
}

impl Recording {
    /// Returns when it looks.
    pub fn start(data: &Path) -> Result<Self> {
        let beside = |suffix: &str| data.with_extension(suffix);
        let (control, answer, log) = (beside("control"), beside("answer"), beside("log"));
        let _ = std::fs::remove_file(&log);
        let (mut control_end, mut answer_end) = (pipe(&control)?, pipe(&answer)?);
        let mut command = Command::new("perf");
        command.args(["record", "--quiet", "--all-cpus", "-g", "--event", "cpu-clock", "--no-buildid"]);
        command.args(["--freq", &FREQUENCY.to_string(), "--mmap-pages", "2048"]);
        // The clock by which the load tells when its timed part was.
        command.args(["--clockid", "CLOCK_MONOTONIC"]);
        command.arg(format!("--control=fifo:{},{}", control.display(), answer.display()));
        command.args(["--delay", "-1", "--output"]).arg(data);
        let mut process = Process::start(command, &log).context("perf is of Debian's linux-perf")?;
        control_end.write_all(b"enable\n")?;
        let mut said = [0; 64];
        let looks = wait_until("perf looks", PATIENCE, || match answer_end.read(&mut said) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                process.ended().ok().flatten().map(|status| Err(status.to_string()))
            }
            Ok(_) => Some(Ok(())),
            Err(error) => Some(Err(error.to_string())),
        })?;
        [&control, &answer].into_iter().try_for_each(std::fs::remove_file)?;
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        looks.map_err(|why| anyhow::anyhow!("perf does not begin: {why}: {}", log.trim()))?;
        Ok(Self { process, data: data.to_owned() })
    }

    /// What it saw, for [`super::script::parse`].
    pub fn finish(mut self) -> Result<String> {
        self.process.signal(Signal::INT)?;
        // It ends by the signal, and says so.
        self.process.wait(PATIENCE).context("perf writes down what it saw")?;
        let mut command = Command::new("perf");
        // Inlined functions are not told apart: that takes minutes.
        command.args(["script", "--ns", "--no-inline", "--fields", FIELDS, "--input"]).arg(&self.data);
        let output = run(command, PATIENCE * 4)?;
        let text = output.ok()?;
        ensure!(!text.is_empty(), "perf saw nothing: {}", output.stderr.trim());
        Ok(output.stdout)
    }
}

/// Both ends in one, so that opening it waits for nobody.
fn pipe(path: &Path) -> Result<File> {
    let _ = std::fs::remove_file(path);
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).with_context(|| path.display().to_string())?;
    Ok(open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?.into())
}

const PATIENCE: Duration = Duration::from_secs(60);
