//! `sluice connections`: live, refused and closed connections, each with its reason.

use std::collections::HashSet;
use std::time::Duration;

use clap::Args;
use snapshot::{Admitted, ConnectionReport, Direction};
use tokio::time::sleep;

use super::Done;
use super::output::{Columns, Output, Rows, age_ms, clock_time, or_dash, red};
use super::place::Place;

/// List connections: live ones, or the last that were refused or closed, with the reason.
///
/// FROM CLIENT and TO CLIENT count bytes of payload, each way as the caller sees it. Times in JSON and
/// YAML are seconds since the epoch.
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
        let (which, rows): (_, fn(&[ConnectionReport], bool) -> Rows) = match (self.refused, self.closed) {
            (true, _) => ("refused", refused),
            (false, true) => ("closed", ended),
            (false, false) => ("live", live),
        };
        let path = format!("/v1/connections?which={which}");
        let mut columns = Columns::default();
        let mut seen: Option<HashSet<_>> = None;
        loop {
            let all: Vec<ConnectionReport> = client.get(&path).await?;
            // They end in another order than they began; and a new dataplane counts from one again.
            let name = |c: &ConnectionReport| (c.id, c.opened_at);
            let now = all.iter().map(name).collect();
            let fresh: Vec<_> =
                all.into_iter().filter(|c| seen.as_ref().is_none_or(|seen| !seen.contains(&name(c)))).collect();
            if seen.is_none() || !fresh.is_empty() {
                let lines = |wide| {
                    let (header, rows) = rows(&fresh, wide);
                    columns.lines(header, &rows)
                };
                self.output.show(&fresh, lines)?;
            }
            if !self.watch {
                return Ok(true);
            }
            seen = Some(now);
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
    let plain = if connection.admitted == Some(Admitted::Bypass) { "plain (bypass)" } else { "plain" };
    connection.tls.as_ref().map_or_else(
        || plain.into(),
        |t| {
            let resumed = if t.resumed { " resumed" } else { "" };
            format!("{} {} {}{resumed}", t.version, t.group, t.cipher)
        },
    )
}

fn start(c: &ConnectionReport) -> Vec<String> {
    vec![direction(c.direction).into(), c.client.to_string(), c.server.to_string(), or_dash(c.mode.map(|m| m.name()))]
}

fn live(connections: &[ConnectionReport], wide: bool) -> Rows {
    let row = |c: &ConnectionReport| {
        let mut row = start(c);
        row.extend([or_dash(c.local_id.as_ref()), or_dash(c.peer_id.as_ref()), tls(c), c.state.clone()]);
        row.push(age_ms(c.opened_at));
        if wide {
            row.extend([c.sent.to_string(), c.received.to_string(), c.core.to_string(), or_dash(c.rule.as_ref())]);
            row.extend([or_dash(c.source), or_dash(c.shadow.as_ref()), or_dash(c.attested.as_ref())]);
            row.extend([or_dash(c.detail.as_ref()), or_dash(c.endpoint)]);
        }
        row
    };
    let header: &'static [&'static str] = &[
        "DIRECTION",
        "CLIENT",
        "SERVER",
        "MODE",
        "LOCAL ID",
        "PEER ID",
        "TLS",
        "STATE",
        "AGE",
        "FROM CLIENT",
        "TO CLIENT",
        "CORE",
        "RULE",
        "SEEN AS",
        "SHADOW",
        "ATTESTED BY",
        "DETAIL",
        "ENDPOINT",
    ];
    (if wide { header } else { &header[..9] }, connections.iter().map(row).collect())
}

fn ended(connections: &[ConnectionReport], wide: bool) -> Rows {
    let row = |c: &ConnectionReport| {
        let mut row = start(c);
        row.extend([or_dash(c.local_id.as_ref()), or_dash(c.peer_id.as_ref()), or_dash(c.closed)]);
        row.extend([c.sent.to_string(), c.received.to_string(), or_dash(c.ended_at.map(age_ms))]);
        if wide {
            row.extend([tls(c), or_dash(c.detail.as_ref()), or_dash(c.rule.as_ref())]);
            row.extend([or_dash(c.source), or_dash(c.shadow.as_ref()), or_dash(c.attested.as_ref())]);
            row.push(or_dash(c.endpoint));
        }
        row
    };
    let header: &'static [&'static str] = &[
        "DIRECTION",
        "CLIENT",
        "SERVER",
        "MODE",
        "LOCAL ID",
        "PEER ID",
        "REASON",
        "FROM CLIENT",
        "TO CLIENT",
        "AGO",
        "TLS",
        "DETAIL",
        "RULE",
        "SEEN AS",
        "SHADOW",
        "ATTESTED BY",
        "ENDPOINT",
    ];
    (if wide { header } else { &header[..10] }, connections.iter().map(row).collect())
}

pub fn refused(connections: &[ConnectionReport], wide: bool) -> Rows {
    let row = |c: &ConnectionReport| {
        let reason = c.refused.map_or_else(|| "-".into(), |r| red(r.name()));
        let mut row = vec![clock_time(c.ended_at.unwrap_or(c.opened_at)), c.client.to_string(), c.server.to_string()];
        row.extend([reason, or_dash(c.detail.as_ref()), or_dash(c.rule.as_ref())]);
        if wide {
            row.extend([or_dash(c.local_id.as_ref()), or_dash(c.peer_id.as_ref()), direction(c.direction).into()]);
            row.extend([or_dash(c.shadow.as_ref()), or_dash(c.attested.as_ref()), or_dash(c.endpoint)]);
        }
        row
    };
    let header: &'static [&'static str] = &[
        "TIME",
        "CLIENT",
        "SERVER",
        "REASON",
        "DETAIL",
        "RULE",
        "LOCAL ID",
        "PEER ID",
        "DIRECTION",
        "SHADOW",
        "ATTESTED BY",
        "ENDPOINT",
    ];
    (if wide { header } else { &header[..6] }, connections.iter().map(row).collect())
}
