//! `sluice status`: is the gateway well, and if not, what is it waiting for.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::output::{Output, age_ms, green, or_dash, red, table, yellow};
use super::place::Place;
use super::{Done, Failure};
use crate::client::{self, Client};
use crate::view;

/// Show how a gateway is: versions, ports, cores, identities, and what is wrong.
///
/// `ready, degraded` is a gateway that serves what was right last, while its files have faults now. It is ready, so
/// that a probe does not take it out of service for that; --strict asks for more. Of many warnings the first are
/// shown, with -o wide all.
///
/// Exit code 0: ready, a snapshot is in force. 1: not ready; with --strict, degraded too. 3: not reachable.
///
/// Examples:
///   sluice status
///   sluice status --strict
///   sluice status --wait 30s --config /etc/sluice
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Status {
    /// Wait until the exit code would be 0, for so long at most: `500ms`, `30s`, `2m`.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    /// Exit code 1 also where the files as they are now were refused.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

const POLL: Duration = Duration::from_millis(100);
/// Most warnings that a table shows, each by its first line.
const WARNINGS: usize = 5;

impl Status {
    pub async fn run(self) -> Done {
        let client = self.place.client()?;
        let status = match self.wait {
            Some(patience) => wait(&client, patience, self.strict).await?,
            None => client.get("/v1/status").await?,
        };
        self.output.show(&status, |wide| show(&status, wide))?;
        Ok(is_well(&status, self.strict))
    }
}

/// The first status that is well, or the last before patience ran out.
async fn wait(client: &Client, patience: Duration, strict: bool) -> Result<view::Status, Failure> {
    let deadline = Instant::now() + patience;
    loop {
        let status: Result<view::Status, _> = client.get("/v1/status").await;
        let late = Instant::now() >= deadline;
        match status {
            Ok(status) if is_well(&status, strict) || late => return Ok(status),
            // It may be about to start, or to restart.
            Ok(_) | Err(client::Error::Unreachable { .. } | client::Error::Http { .. }) if !late => sleep(POLL).await,
            Ok(status) => return Ok(status),
            Err(e) => return Err(e.into()),
        }
    }
}

fn is_well(status: &view::Status, strict: bool) -> bool {
    status.ready && !(strict && is_degraded(status))
}

/// What is in force is not what the files say.
fn is_degraded(status: &view::Status) -> bool {
    !status.config.errors.is_empty()
}

fn show(status: &view::Status, wide: bool) -> String {
    let ready = match &status.waiting_for {
        None if is_degraded(status) => yellow("ready, degraded: the configuration has faults"),
        None => green("ready"),
        Some(what) => yellow(&format!("waiting for {what}")),
    };
    let version = status.version.map(|v| v.0);
    let mut lines = vec![
        format!("gateway    {} ({}): {ready}", status.node, status.trust_domain),
        format!(
            "ctrl       pid {}, build {}, up {}, snapshot {}",
            status.pid,
            status.build,
            age_ms(status.started_at * 1000),
            or_dash(version)
        ),
    ];
    lines.push(match (&status.dataplane, &status.dataplane_error) {
        (Some(d), _) => format!(
            "dataplane  pid {}, build {}, up {}, snapshot {} in force, network {}",
            d.pid,
            d.build,
            age_ms(d.started_at * 1000),
            or_dash(d.in_force),
            d.network_revision
        ),
        (None, error) => format!("dataplane  {}", red(error.as_deref().unwrap_or("unknown"))),
    });
    let config = &status.config;
    lines.push(match config.errors.len() {
        0 => format!("config     {}, read {} ago", config.directory, age_ms(config.loaded_at * 1000)),
        n => format!(
            "config     {}: {}; what was read {} ago is in force",
            config.directory,
            red(&counted(n, "fault")),
            age_ms(config.loaded_at * 1000)
        ),
    });
    lines.extend(config.errors.iter().map(|e| red(e)));
    lines.extend(warnings(&config.warnings, wide));
    lines.extend(status.last_nack.iter().map(|n| red(&format!("refused    {n}"))));
    lines.extend(status.kubernetes.iter().map(kubernetes));
    lines.extend(status.waiting.iter().map(|w| yellow(&format!("waiting    for {w}"))));
    lines.extend(status.problems.iter().map(|p| yellow(&format!("problem    {p}"))));
    if let Some(dataplane) = &status.dataplane {
        lines.extend(dataplane.audit.iter().map(audit));
        lines.extend(dataplane.unusable.iter().map(|p| yellow(&format!("problem    {p}"))));
        lines.push(String::new());
        lines.push(ports(dataplane));
        lines.push(String::new());
        lines.push(cores(dataplane));
    }
    if !status.identities.is_empty() {
        lines.push(String::new());
        lines.push(super::identities::show(&status.identities, wide));
    }
    lines.join("\n")
}

/// `1 fault`, `2 faults`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The first of them, by their first lines and how many there are; all in full where that is asked for.
fn warnings(all: &[String], wide: bool) -> Vec<String> {
    if wide {
        return all.iter().map(|warning| yellow(warning)).collect();
    }
    let first = |warning: &String| yellow(warning.lines().next().unwrap_or_default());
    let mut lines: Vec<_> = all.iter().take(WARNINGS).map(first).collect();
    if all.len() > WARNINGS {
        let more = counted(all.len() - WARNINGS, "more warning");
        lines.push(yellow(&format!("and {more}: `sluice status -o wide` shows all")));
    }
    lines
}

/// `kubernetes https://10.96.0.1: 12 pods of node node-a, watched for 3m, heard of 4s ago`.
fn kubernetes(watched: &view::Watched) -> String {
    let ago = |at: Option<u64>| at.map_or("never".into(), |at| format!("{} ago", age_ms(at * 1000)));
    let view::Watched { server, what, .. } = watched;
    let known = watched.known.map_or("no list yet of".into(), |count| count.to_string());
    match (&watched.problem, watched.since) {
        (Some(problem), _) => {
            let since = watched.failing_since.map_or(String::new(), |at| age_ms(at * 1000));
            let kept =
                watched.known.map_or("nothing is known".into(), |count| format!("the last {count} stay in force"));
            yellow(&format!("kubernetes {server}: {what} not watched for {since}: {problem}; {kept}"))
        }
        (None, Some(since)) => {
            let heard = ago(watched.heard_at);
            let line =
                format!("kubernetes {server}: {known} {what}, watched for {}, heard of {heard}", age_ms(since * 1000));
            match &watched.first_odd {
                Some(why) => yellow(&format!("{line}; {} left as it was last: {why}", watched.odd)),
                None => line,
            }
        }
        (None, None) => yellow(&format!("kubernetes {server}: {known} {what}")),
    }
}

fn audit(audit: &snapshot::AuditStatus) -> String {
    let counts = format!("{} lines, {} omitted, {} failed", audit.written, audit.omitted, audit.failed);
    match &audit.error {
        None => format!("audit      {}: {counts}", audit.file),
        Some(why) => red(&format!("audit      {counts}; takes nothing: {why}")),
    }
}

fn ports(dataplane: &snapshot::Status) -> String {
    let row = |p: &snapshot::report::PortReport| {
        let up = if p.up { green("up") } else { red("down") };
        vec![p.interface.clone(), view::side(p.side).into(), up, p.xdp.clone(), p.mtu.to_string(), p.queues.to_string()]
    };
    table(&["PORT", "SIDE", "STATE", "XDP", "MTU", "QUEUES"], dataplane.ports.iter().map(row))
}

fn cores(dataplane: &snapshot::Status) -> String {
    let row = |c: &snapshot::CoreReport| {
        let frames = format!("{} of {}", c.frames_free, c.frames);
        let numbers = [c.sessions, c.handshakes, c.flows].map(|n| n.to_string());
        let [sessions, handshakes, flows] = numbers;
        vec![c.core.to_string(), sessions, handshakes, flows, frames, or_dash(c.version)]
    };
    table(&["CORE", "SESSIONS", "HANDSHAKES", "FLOWS", "FREE FRAMES", "SNAPSHOT"], dataplane.cores.iter().map(row))
}

/// `500ms`, `30s`, `2m`, or seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "use a number with ms, s, m or h, such as 30s".to_owned())?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        other => Err(format!("unit {other:?}: use ms, s, m or h")),
    }
}
