//! `sluice validate`: everything that is wrong with a configuration, before it is used.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::{Output, green};
use super::{Done, Failure};
use crate::clock;
use crate::config::{self, Diagnostic, TrustBundle, trust};

/// Check a configuration: all faults with file, line and what would be right.
///
/// Exit code 0: right (warnings may be printed). 1: not right.
///
/// Examples:
///   sluice validate --config /etc/sluice
///   sluice validate policy.yaml services.yaml
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    override_usage = "sluice validate [OPTIONS] --config <DIR>\n       sluice validate [OPTIONS] <FILE>..."
)]
pub struct Validate {
    /// Directory with a whole configuration.
    #[arg(long, value_name = "DIR", conflicts_with = "files", required_unless_present = "files")]
    config: Option<PathBuf>,
    /// Files on their own; a Gateway need not be among them.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Report {
    valid: bool,
    diagnostics: Vec<Diagnostic>,
}

impl Validate {
    pub fn run(self) -> Done {
        let parsed = match &self.config {
            Some(directory) => config::load_dir(directory).map(|l| {
                let summary = summary(1, l.identities.len(), l.services.len(), (l.policies.len(), l.bundles.len()));
                (summary, with_time(l.warnings, &l.bundles))
            }),
            None => config::parse_files(&self.read()?).map(|r| {
                let gateways = r.gateway.iter().count();
                let few = (r.policies.len(), r.bundles.len());
                let summary = summary(gateways, r.identities.len(), r.services.len(), few);
                (summary, with_time(r.warnings, &r.bundles))
            }),
        };
        let (valid, summary, diagnostics) = match parsed {
            Ok((summary, warnings)) => (true, summary, warnings),
            Err(faults) => (false, String::new(), faults),
        };
        let report = Report { valid, diagnostics };
        self.output.show(&report, |_| summary)?;
        if matches!(self.output.output, super::output::Format::Table | super::output::Format::Wide) {
            report.diagnostics.iter().for_each(|d| eprintln!("{d}"));
        }
        Ok(valid)
    }

    fn read(&self) -> Result<Vec<(PathBuf, String)>, Failure> {
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Failure::Other(anyhow::anyhow!("{}: {e}", path.display())))?;
            Ok((path.clone(), text))
        };
        self.files.iter().map(read).collect()
    }
}

/// And what the time makes of roots.
fn with_time(mut warnings: Vec<Diagnostic>, bundles: &[TrustBundle]) -> Vec<Diagnostic> {
    warnings.extend(trust::expiry(bundles, clock::now()));
    warnings
}

fn summary(gateways: usize, identities: usize, services: usize, (policies, bundles): (usize, usize)) -> String {
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    // Most configurations have none.
    let policies = if policies > 0 { format!(", {}", count(policies, "Policy", "Policies")) } else { String::new() };
    format!(
        "{} {}, {}, {}, {}{policies}",
        green("right:"),
        count(gateways, "Gateway", "Gateways"),
        count(identities, "WorkloadIdentity", "WorkloadIdentities"),
        count(services, "Service", "Services"),
        count(bundles, "TrustBundle", "TrustBundles"),
    )
}
