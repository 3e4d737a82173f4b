//! `sluice connections`: live, refused and closed connections, each with its reason.

use std::time::Duration;

use clap::Args;
use snapshot::{ConnectionReport, Direction};
use tokio::time::sleep;

use super::Done;
use super::output::{Output, age_ms, clock_time, or_dash, red, table};
use super::place::Place;

/// List connections: live ones, or the last that were refused or closed, with the reason.
///
/// Examples:
///   sluice connections
///   sluice connections --refused -o wide
///   sluice connections --closed --watch
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Connections {
    /// Those that were refused, and why.
    #[arg(long, conflicts_with = "closed")]
    refused: bool,
    /// Those that have ended, and how.
    #[arg(long)]
    closed: bool,
    /// Print new ones as they come, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

impl Connections {
    pub async fn run(self) -> Done {
        let client = self.place.client()?;
        let (which, show): (_, fn(&[ConnectionReport], bool) -> String) = match (self.refused, self.closed) {
            (true, _) => ("refused", refused),
            (false, true) => ("closed", ended),
            (false, false) => ("live", live),
        };
        let path = format!("/v1/connections?which={which}");
        let mut seen = None;
        loop {
            let all: Vec<ConnectionReport> = client.get(&path).await?;
            let newest = all.iter().map(|c| c.id).max();
            let fresh: Vec<_> = all.into_iter().filter(|c| Some(c.id) > seen).collect();
            if seen.is_none() || !fresh.is_empty() {
                self.output.show(&fresh, |wide| show(&fresh, wide))?;
            }
            if !self.watch {
                return Ok(true);
            }
            seen = seen.max(newest).or(Some(0));
            sleep(Duration::from_secs(1)).await;
        }
    }
}

pub fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Egress => "egress",
        Direction::Local => "local",
    }
}

fn tls(connection: &ConnectionReport) -> String {
    connection.tls.as_ref().map_or_else(|| "plain".into(), |t| format!("{} {} {}", t.version, t.group, t.cipher))
}

fn start(c: &ConnectionReport) -> Vec<String> {
    vec![direction(c.direction).into(), c.client.to_string(), c.server.to_string(), or_dash(c.mode.map(|m| m.name()))]
}

fn live(connections: &[ConnectionReport], wide: bool) -> String {
    let row = |c: &ConnectionReport| {
        let mut row = start(c);
        row.extend([or_dash(c.local_id.as_ref()), or_dash(c.peer_id.as_ref()), tls(c), c.state.clone()]);
        row.push(age_ms(c.opened_at));
        if wide {
            row.extend([c.sent.to_string(), c.received.to_string(), c.core.to_string(), or_dash(c.rule.as_ref())]);
            row.push(or_dash(c.source));
        }
        row
    };
    let header: &[&str] = &[
        "DIRECTION",
        "CLIENT",
        "SERVER",
        "MODE",
        "LOCAL ID",
        "PEER ID",
        "TLS",
        "STATE",
        "AGE",
        "SENT",
        "RECEIVED",
        "CORE",
        "RULE",
        "SEEN AS",
    ];
    table(if wide { header } else { &header[..9] }, connections.iter().map(row))
}

fn ended(connections: &[ConnectionReport], wide: bool) -> String {
    let row = |c: &ConnectionReport| {
        let mut row = start(c);
        row.extend([or_dash(c.local_id.as_ref()), or_dash(c.peer_id.as_ref()), or_dash(c.closed)]);
        row.extend([c.sent.to_string(), c.received.to_string(), or_dash(c.ended_at.map(age_ms))]);
        if wide {
            row.extend([tls(c), or_dash(c.detail.as_ref()), or_dash(c.rule.as_ref())]);
            row.push(or_dash(c.source));
        }
        row
    };
    let header: &[&str] = &[
        "DIRECTION",
        "CLIENT",
        "SERVER",
        "MODE",
        "LOCAL ID",
        "PEER ID",
        "REASON",
        "SENT",
        "RECEIVED",
        "AGO",
        "TLS",
        "DETAIL",
        "RULE",
        "SEEN AS",
    ];
    table(if wide { header } else { &header[..10] }, connections.iter().map(row))
}

pub fn refused(connections: &[ConnectionReport], wide: bool) -> String {
    let row = |c: &ConnectionReport| {
        let reason = c.refused.map_or_else(|| "-".into(), |r| red(r.name()));
        let mut row = vec![clock_time(c.ended_at.unwrap_or(c.opened_at)), c.client.to_string(), c.server.to_string()];
        row.extend([reason, or_dash(c.detail.as_ref()), or_dash(c.rule.as_ref())]);
        if wide {
            row.extend([or_dash(c.local_id.as_ref()), or_dash(c.peer_id.as_ref()), direction(c.direction).into()]);
        }
        row
    };
    let header: &[&str] = &["TIME", "CLIENT", "SERVER", "REASON", "DETAIL", "RULE", "LOCAL ID", "PEER ID", "DIRECTION"];
    table(if wide { header } else { &header[..6] }, connections.iter().map(row))
}
