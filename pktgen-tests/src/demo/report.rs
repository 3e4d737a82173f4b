//! What the demo has shown: a line for each step on the terminal, and all of them as JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Report {
    steps: Vec<Step>,
    #[serde(skip)]
    began: Option<Instant>,
}

#[derive(Debug, Serialize)]
struct Step {
    name: String,
    ok: bool,
    detail: String,
}

impl Report {
    pub fn new() -> Self {
        Self { steps: Vec::new(), began: Some(Instant::now()) }
    }

    /// Runs one step; its evidence, or why there is none, becomes the line under its name.
    pub fn step(&mut self, name: &str, step: impl FnOnce() -> Result<String>) {
        let result = step();
        let (mark, ok, detail) = match result {
            Ok(detail) => ("✓", true, detail),
            Err(error) => ("✗", false, format!("{error:#}")),
        };
        println!("{mark} {name}\n    {}", detail.replace('\n', "\n    "));
        self.steps.push(Step { name: name.into(), ok, detail });
    }

    /// Writes the report, and says whether all steps succeeded.
    pub fn finish(&self) -> Result<bool> {
        let path = path()?;
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(&path, serde_json::to_string_pretty(self)?).with_context(|| format!("write {}", path.display()))?;
        let good = self.steps.iter().filter(|step| step.ok).count();
        let seconds = self.began.map_or(0, |began| began.elapsed().as_secs());
        println!("\n{good} of {} steps, {seconds} s; report in {}", self.steps.len(), path.display());
        Ok(good == self.steps.len())
    }
}

/// `target/demo/report.json`, wherever the demo is called from.
fn path() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("the demo stands in target/<profile>")?;
    Ok(target.join("demo/report.json"))
}
