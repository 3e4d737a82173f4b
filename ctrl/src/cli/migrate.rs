//! `sluice migrate status`: who calls a workload, and whether it is ready for MUTUAL.

use clap::{Args, Subcommand};
use snapshot::CallerName;
use snapshot::callers::Caller;

use super::Done;
use super::output::{Output, age_ms, green, table, yellow};
use super::place::Place;
use crate::client::escape;
use crate::migrate::{Callers, Row};

/// Go from plain callers to MUTUAL without refusing anybody by surprise.
#[derive(Debug, Subcommand)]
pub enum Migrate {
    Status(Status),
}

/// Show who called a workload, by mTLS or plain, and whether it is ready for MUTUAL.
///
/// A plain caller counts for 24 hours, or until its address has called by mTLS. What is known is what the
/// dataplane has seen since it started. `sluice apply` asks the same before it makes a workload MUTUAL.
///
/// Exit code 0: ready, or MUTUAL already. 1: not ready.
///
/// Examples:
///   sluice migrate status backend-api
///   sluice migrate status shop/backend-api-svc -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Status {
    /// A workload of this node, or a Service that leads to one: `namespace/name`, or the name alone.
    #[arg(value_name = "SERVICE|WORKLOAD")]
    of: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

impl Migrate {
    pub async fn run(self) -> Done {
        match self {
            Self::Status(command) => command.run().await,
        }
    }
}

impl Status {
    async fn run(self) -> Done {
        let client = self.place.client()?;
        let callers: Callers = client.get(&format!("/v1/callers?of={}", escape(&self.of))).await?;
        self.output.show(&callers, |_| show(&callers))?;
        Ok(callers.workloads.iter().all(|row| row.ready))
    }
}

fn show(callers: &Callers) -> String {
    let mut lines: Vec<String> = callers.workloads.iter().map(workload).collect();
    lines.push(format!("seen in the {} since the dataplane started", age_ms(callers.since * 1000)));
    if callers.lost > 0 {
        lines.push(yellow(&format!("{} connections were not seen: reports found no room", callers.lost)));
    }
    lines.join("\n")
}

fn workload(row: &Row) -> String {
    let called = &row.called;
    let verdict = if row.ready { green("ready for MUTUAL") } else { yellow("not ready for MUTUAL") };
    let mut lines = vec![format!("{} ({}): {verdict}", called.workload, called.mode.name())];
    lines.extend(row.because.iter().map(|why| format!("  {why}")));
    if !called.callers.is_empty() {
        lines.push(table(
            &["CALLER", "PORT", "BY", "CONNECTIONS", "LAST SEEN", "THEN BY MTLS"],
            called.callers.iter().map(line),
        ));
    }
    lines.join("\n")
}

fn line(caller: &Caller) -> Vec<String> {
    let name = match &caller.name {
        CallerName::Id(id) => id.clone(),
        CallerName::Address(address) => address.to_string(),
        CallerName::Others => "others".into(),
    };
    let ago = |at: u64| format!("{} ago", age_ms(at * 1000));
    vec![
        name,
        caller.port.map_or("any".into(), |port| port.to_string()),
        if caller.mtls { "mTLS".into() } else { "plain".into() },
        caller.connections.to_string(),
        ago(caller.last_seen),
        caller.mtls_since.map_or("-".into(), ago),
    ]
}
