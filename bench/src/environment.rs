//! What the figures belong to: machine, kernel, versions.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use pktgen_tests::netns::run;
use serde::{Deserialize, Serialize};

use crate::contender::Contender;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub kernel: String,
    pub cpu: String,
    pub cpus: usize,
    pub versions: Vec<String>,
    /// Of the directory that this ran in. None: not a checkout.
    pub commit: Option<String>,
}

impl Environment {
    /// Also says whether the contenders are installed.
    pub fn read(contenders: &[Contender]) -> Result<Self> {
        let versions = contenders.iter().filter_map(|contender| contender.version().transpose());
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into(),
            cpu: model.map_or("of no known model", |(_, name)| name).into(),
            cpus: std::thread::available_parallelism()?.get(),
            versions: versions.collect::<Result<_>>()?,
            commit: commit().ok(),
        })
    }
}

/// As `git describe` has it, with `-dirty` if the tree is not what the commit says.
fn commit() -> Result<String> {
    let mut command = Command::new("git");
    command.args(["describe", "--always", "--dirty", "--abbrev=12"]);
    let output = run(command, Duration::from_secs(10))?;
    output.ok()?.lines().next().map(str::to_owned).context("it printed nothing")
}
