//! One line of the audit log.

use std::net::SocketAddr;

use ::snapshot::{ConnectionReport, Direction};
use serde::Serialize;

use super::Topic;

/// In the order in which people look for it.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    node: &'a str,
    decision: &'static str,
    reason: Option<&'static str>,
    direction: Direction,
    caller_id: Option<&'a str>,
    server_id: Option<&'a str>,
    client: SocketAddr,
    server: SocketAddr,
    /// Where the far side sees the call come from, if not from `client`.
    seen_as: Option<SocketAddr>,
    /// Who got the call, where `server` is a virtual address.
    endpoint: Option<SocketAddr>,
    /// Of this node.
    workload: Option<&'a str>,
    mode: Option<&'static str>,
    tls: Option<&'a str>,
    /// Of the certificate that the peer showed, and of the one that we did.
    serial: Option<&'a str>,
    not_after: Option<String>,
    local_serial: Option<&'a str>,
    /// `bypass`: plain to a MUTUAL port.
    admitted: Option<&'static str>,
    rule: Option<&'a str>,
    shadow: Option<&'a str>,
    detail: Option<&'a str>,
    revision: u64,
    core: u32,
    id: u64,
}

#[derive(Serialize)]
struct Omitted<'a> {
    time: String,
    node: &'a str,
    decision: &'static str,
    of: &'static str,
    reason: Option<&'static str>,
    count: u64,
}

/// With its end of line.
pub fn line(node: &str, topic: Topic, report: &ConnectionReport, at_ms: u64) -> String {
    let (ours, theirs) = (report.local_id.as_deref(), report.peer_id.as_deref());
    let (caller_id, server_id) = match report.direction {
        Direction::Inbound => (theirs, ours),
        // A report is its local workload's, which between two of this node is the caller.
        Direction::Egress | Direction::Local => (ours, theirs),
    };
    let tls = report.tls.as_ref();
    ended(&Line {
        time: rfc3339(at_ms),
        node,
        decision: topic.decision(),
        reason: topic.reason(),
        direction: report.direction,
        caller_id,
        server_id,
        client: report.client,
        server: report.server,
        seen_as: report.source,
        endpoint: report.endpoint,
        workload: report.workload.as_deref(),
        mode: report.mode.map(|mode| mode.name()),
        tls: tls.map(|tls| &*tls.version),
        serial: tls.and_then(|tls| tls.peer_serial.as_deref()),
        not_after: tls.and_then(|tls| tls.peer_not_after).map(|at| rfc3339(at.saturating_mul(1000))),
        local_serial: tls.and_then(|tls| tls.local_serial.as_deref()),
        admitted: report.admitted.map(|admitted| admitted.name()),
        rule: report.rule.as_deref(),
        shadow: report.shadow.as_deref(),
        detail: report.detail.as_deref(),
        revision: report.version.0,
        core: report.core,
        id: report.id,
    })
}

/// Nothing, where nothing was left out.
pub fn omitted_line(node: &str, topic: Topic, count: u64, at_ms: u64) -> String {
    if count == 0 {
        return String::new();
    }
    omitted(node, topic.decision(), topic.reason(), count, at_ms)
}

/// Lines that the file did not take, of whatever kind.
pub fn failed_line(node: &str, count: u64, at_ms: u64) -> String {
    omitted(node, "any", Some("FileError"), count, at_ms)
}

fn omitted(node: &str, of: &'static str, reason: Option<&'static str>, count: u64, at_ms: u64) -> String {
    ended(&Omitted { time: rfc3339(at_ms), node, decision: "omitted", of, reason, count })
}

fn ended(line: &impl Serialize) -> String {
    let mut text = serde_json::to_string(line).expect("texts and numbers are JSON");
    text.push('\n');
    text
}

/// In UTC, to the millisecond; a moment beyond what a calendar has is the last that it has.
fn rfc3339(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", at.unwrap_or(jiff::Timestamp::MAX))
}
