//! `sluice policy diff`: what recorded calls would come to under a changed file.

use std::time::Duration;

use clap::{Args, Subcommand};
use snapshot::{Flow, Outcome, Turned};

use super::output::{Output, age_ms, green, red, table, yellow};
use super::place::Place;
use super::status::duration;
use super::{Done, Failure};
use crate::cli::file;
use crate::{clock, view};

/// Try policy before it is in force.
#[derive(Debug, Subcommand)]
pub enum Policy {
    Diff(Diff),
}

/// Show which calls that there were a changed file would newly refuse or allow.
///
/// The dataplane decides each kind of call that it has seen since it started, by what is in force and by what
/// would be: a call is known by its ends, its port, and the SPIFFE ID that the other side has shown. Nothing is
/// changed, and nobody is refused.
///
/// Exit code 0: all would come to the same. 1: some would not. 2: the file cannot be read, or the configuration
/// would not be right.
///
/// Examples:
///   sluice policy diff policy.yaml
///   sluice policy diff policy.yaml --against 24h -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Diff {
    /// The file as it would be; `-` reads stdin and takes its name from --name.
    #[arg(value_name = "NEW.yaml")]
    file: std::path::PathBuf,
    /// Name in the configuration directory, if not the file's own.
    #[arg(long, value_name = "NAME.yaml", required_if_eq("file", "-"))]
    name: Option<String>,
    /// Calls that were seen within this time.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "24h")]
    against: Duration,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

impl Policy {
    pub async fn run(self) -> Done {
        match self {
            Self::Diff(command) => command.run().await,
        }
    }
}

impl Diff {
    async fn run(self) -> Done {
        let file = file::File::new(self.file, self.name);
        let since = clock::now().saturating_sub(self.against.as_secs());
        let text = file.text().map_err(Failure::other_is_usage)?;
        let trial = view::Trial { file: file.name()?, text, since };
        let client = self.place.client().map_err(Failure::other_is_usage)?;
        let replayed: view::Replayed = client.post("/v1/replay", &trial).await.map_err(Failure::refused_is_usage)?;
        self.output.show(&replayed, |wide| show(&replayed, wide))?;
        Ok(replayed.turned.is_empty())
    }
}

fn show(replayed: &view::Replayed, wide: bool) -> String {
    let recorded = &replayed.recorded;
    let mut lines = Vec::new();
    type Test = fn(&Outcome) -> bool;
    let groups: [(String, Test); 3] = [
        (red("newly refused"), |then| matches!(then, Outcome::Refused { .. })),
        (yellow("the other side would have to show a certificate"), |then| matches!(then, Outcome::Open { .. })),
        (green("newly allowed"), |then| matches!(then, Outcome::Allowed { .. })),
    ];
    for (title, is) in groups {
        let turned: Vec<&Turned> = replayed.turned.iter().filter(|turned| is(&turned.then)).collect();
        if !turned.is_empty() {
            let connections: u64 = turned.iter().map(|turned| turned.flow.connections).sum();
            lines.push(format!("{title}: {}, seen {}", kinds(turned.len()), times(connections)));
            let header: &[&str] = &["FROM", "TO", "WORKLOAD", "PEER", "CALLS", "LAST SEEN", "BECAUSE", "BEFORE"];
            let columns = if wide { 8 } else { 7 };
            lines.push(table(&header[..columns], turned.iter().map(|turned| row(turned, wide))));
        }
    }
    if replayed.turned.is_empty() {
        lines.push(green("all would come to the same"));
    }
    let since = age_ms(recorded.since.saturating_mul(1000));
    lines.push(format!(
        "{} in {}, of the {since} since the dataplane started",
        times(recorded.connections),
        kinds(recorded.flows as usize)
    ));
    if recorded.lost > 0 {
        lines.push(yellow(&format!("{} were not recorded, for want of room", times(recorded.lost))));
    }
    lines.join("\n")
}

fn kinds(count: usize) -> String {
    format!("{count} {} of call", if count == 1 { "kind" } else { "kinds" })
}

fn times(count: u64) -> String {
    format!("{count} {}", if count == 1 { "call" } else { "calls" })
}

fn row(turned: &Turned, wide: bool) -> Vec<String> {
    let Flow { workload, client, server, peer_id, tls, connections, last_seen, .. } = &turned.flow;
    let peer = peer_id.clone().unwrap_or_else(|| if *tls { "anonymous" } else { "plain" }.into());
    let mut row = vec![
        client.to_string(),
        server.to_string(),
        workload.clone().unwrap_or_else(|| "-".into()),
        peer,
        connections.to_string(),
        format!("{} ago", age_ms(last_seen * 1000)),
        why(&turned.then),
    ];
    if wide {
        row.push(why(&turned.now));
    }
    row
}

fn why(outcome: &Outcome) -> String {
    let by = |rule: &Option<String>| rule.as_ref().map_or(String::new(), |rule| format!(" by {rule}"));
    match outcome {
        Outcome::Allowed { rule } => format!("allowed{}", by(rule)),
        Outcome::Open { rule } => format!("a certificate decides{}", by(rule)),
        Outcome::Refused { reason, rule, detail } => {
            let detail = detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"));
            format!("{}{}{detail}", reason.name(), by(rule))
        }
    }
}
