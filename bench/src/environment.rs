//! What the figures belong to: machine, kernel, versions.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use pktgen_tests::netns::gateway::binary;
use pktgen_tests::netns::run;
use serde::Serialize;

use crate::contender::Contender;
use crate::haproxy;

#[derive(Debug, Clone, Serialize)]
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
        let mut versions = Vec::new();
        for contender in contenders {
            match contender {
                Contender::None => {}
                Contender::Haproxy => versions.push(haproxy::version()?),
                Contender::Sluice => versions.push(said(&mut Command::new(binary("sluice")?), &["--version"])?),
            }
        }
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into(),
            cpu: model.map_or("of no known model", |(_, name)| name).into(),
            cpus: std::thread::available_parallelism()?.get(),
            versions,
            commit: commit(),
        })
    }
}

/// As `git describe` has it, with `-dirty` if the tree is not what the commit says.
fn commit() -> Option<String> {
    said(&mut Command::new("git"), &["describe", "--always", "--dirty", "--abbrev=12"]).ok()
}

fn said(command: &mut Command, arguments: &[&str]) -> Result<String> {
    let mut own = Command::new(command.get_program());
    own.args(arguments);
    let output = run(own, Duration::from_secs(10))?;
    output.ok()?.lines().next().map(str::to_owned).context("it printed nothing")
}
