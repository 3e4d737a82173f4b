//! `sluice check`: can this machine run the gateway, before it is started.

use std::path::PathBuf;

use clap::Args;

use super::output::{Output, green, red, yellow};
use super::{Done, place};
use crate::preflight::{self, Line, Outcome};

/// Look whether this machine can run a gateway; nothing is changed.
///
/// ✓ fine, ! something to know, ✗ will not work. Exit code 0: no ✗. 1: at least one.
///
/// Example:
///   sluice check --config /etc/sluice
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Check {
    /// Directory with the configuration.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    #[command(flatten)]
    output: Output,
}

impl Check {
    pub async fn run(self) -> Done {
        let loaded = place::load(&self.config)?;
        let mut lines = preflight::check(&loaded.gateway).await;
        lines.extend(preflight::check_paths(&loaded));
        self.output.show(&lines, |_| lines.iter().map(show).collect::<Vec<_>>().join("\n"))?;
        Ok(lines.iter().all(|line| line.outcome != Outcome::Wrong))
    }
}

fn show(line: &Line) -> String {
    let mark = match line.outcome {
        Outcome::Fine => green("✓"),
        Outcome::Note => yellow("!"),
        Outcome::Wrong => red("✗"),
    };
    format!("{mark} {}: {}", line.subject, line.found)
}
