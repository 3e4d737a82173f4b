//! The demo's plain HTTP service in a namespace, and what it has logged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::{Host, Namespace, Process, wait_until};

const SCRIPT: &str = include_str!("../../../deploy/demo/service.py");

pub struct Service {
    process: Process,
    log: PathBuf,
}

impl Service {
    /// HTTP on port 3000, a greeting on 3001; script and log go to `directory`.
    pub fn start(namespace: &Namespace, directory: &Path) -> Result<Self> {
        let (script, log) = (directory.join("service.py"), directory.join("service.log"));
        fs::write(&script, SCRIPT)?;
        let process = namespace.spawn(&format!("python3 {}", script.display()), &log)?;
        let service = Self { process, log };
        wait_until("the service is ready", Duration::from_secs(10), || {
            (!service.events("ready").ok()?.is_empty()).then_some(())
        })?;
        Ok(service)
    }

    /// What it has logged under this name: `accept`, `request`.
    pub fn events(&self, name: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.log)?;
        let all = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(all.filter(|event| event["event"] == name).collect())
    }

    /// Connections that it was handed.
    pub fn accepted(&self) -> Result<usize> {
        Ok(self.events("accept")?.len())
    }

    pub fn accepted_from(&self, host: Host) -> Result<usize> {
        let addresses = [host.v4().to_string(), host.v6().to_string()];
        let from = |event: &&Value| event["peer"].as_str().is_some_and(|peer| addresses.iter().any(|a| a == peer));
        Ok(self.events("accept")?.iter().filter(from).count())
    }

    /// Lets it run on when the handle is dropped.
    pub fn leave(self) {
        self.process.leave();
    }
}
