//! `sluice describe`: one thing in all its parts.

mod bundle;
mod policy;
mod service;
mod workload;

use clap::Subcommand;

use super::Done;
use super::output::{Rows, red, table};
use crate::describe::Revision;

/// Describe one thing in all its parts: what is configured, what it has come to, who depends on it.
#[derive(Debug, Subcommand)]
pub enum Describe {
    Workload(workload::Workload),
    Service(service::Service),
    Policy(policy::Policy),
    Trustbundle(bundle::Trustbundle),
}

impl Describe {
    pub async fn run(self) -> Done {
        match self {
            Self::Workload(workload) => workload.run().await,
            Self::Service(service) => service.run().await,
            Self::Policy(policy) => policy.run().await,
            Self::Trustbundle(bundle) => bundle.run().await,
        }
    }
}

/// `label      what`, as wide for all of them.
fn fact(label: &str, what: impl std::fmt::Display) -> String {
    format!("{label:<10} {what}")
}

/// A table under its title; nothing where it has no row.
fn section(title: &str, (header, rows): Rows) -> Vec<String> {
    match rows.is_empty() {
        true => vec![],
        false => vec![String::new(), format!("{title}:"), table(header, rows)],
    }
}

/// The facts that all of them end with.
fn last_facts(revision: &Revision, problems: &[String], not_counted: Option<&String>) -> Vec<String> {
    let revision = fact("revision", since(revision));
    let unknown = not_counted.map(|why| fact("counts", format!("not known: {why}")));
    let problems = problems.iter().map(|problem| fact("problem", red(problem)));
    [revision].into_iter().chain(unknown).chain(problems).collect()
}

fn since(revision: &Revision) -> String {
    let since = match (revision.since, revision.or_before) {
        (None, _) => "in no snapshot yet".to_owned(),
        (Some(since), false) => format!("as it is since version {since}"),
        (Some(since), true) => format!("as it is since version {since} or before"),
    };
    let in_force = match (revision.made, revision.in_force) {
        (None, _) => "none was made".into(),
        (Some(made), None) => format!("version {made} was made, no dataplane has it"),
        (Some(made), Some(in_force)) if made == in_force => format!("version {made} is in force"),
        (Some(made), Some(in_force)) => format!("version {made} was made, version {in_force} is in force"),
    };
    format!("{since}; {in_force}")
}
