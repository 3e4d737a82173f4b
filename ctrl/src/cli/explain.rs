//! `sluice explain`: what would happen to a call now, and what happened to such calls lately.

use std::net::SocketAddr;

use clap::Args;
use serde::Serialize;
use snapshot::report::Caller;
use snapshot::{ConnectionReport, Explanation};

use super::output::{Output, green, or_dash, red, table, yellow};
use super::place::Place;
use super::{Done, Failure, connections};
use crate::admin;
use crate::client::escape;

/// Explain what would happen to a call now, step by step, and list its recent refusals.
///
/// An address on the wire is nobody yet: there it says whose certificate would be admitted.
///
/// Exit code 0: it would be allowed, if need be with the certificate that is asked for. 1: it would not.
///
/// Examples:
///   sluice explain --from spiffe://example.com/myapp/app/frontend --to 198.18.2.2:3000
///   sluice explain --from spiffe://example.com/myapp/app/frontend --at 203.0.113.9 --to 198.18.2.2:3000
///   sluice explain --from 198.18.1.2 --to '[2001:db8:2::2]:3000'
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Explain {
    /// Who calls: a SPIFFE ID or an address.
    #[arg(long, value_name = "ID|ADDR")]
    from: String,
    /// Of a SPIFFE ID: the address that it calls from, for rules with CIDRs.
    #[arg(long, value_name = "ADDR")]
    at: Option<std::net::IpAddr>,
    /// What is called.
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    explanation: Explanation,
    recent_refusals: Vec<ConnectionReport>,
}

/// Most refusals that are listed.
const RECENT: usize = 10;

impl Explain {
    pub async fn run(self) -> Done {
        let at = self.at.map(|at| at.to_string());
        let from = admin::caller(&self.from, at.as_deref()).map_err(Failure::Usage)?;
        let client = self.place.client()?;
        let mut path = format!("/v1/explain?from={}&to={}", escape(&self.from), escape(&self.to.to_string()));
        if let Some(at) = at {
            path.push_str(&format!("&at={}", escape(&at)));
        }
        let explanation: Explanation = client.get(&path).await?;
        let mut refusals: Vec<ConnectionReport> = client.get("/v1/connections?which=refused").await?;
        refusals.retain(|c| c.server == self.to && is_caller(c, &from));
        refusals.sort_by_key(|c| std::cmp::Reverse(c.id));
        refusals.truncate(RECENT);
        let report = Report { explanation, recent_refusals: refusals };
        self.output.show(&report, |wide| show(&report, wide))?;
        Ok(report.explanation.allowed || report.explanation.passed)
    }
}

fn is_caller(connection: &ConnectionReport, from: &Caller) -> bool {
    match from {
        Caller::Address(address) => connection.client.ip() == *address,
        Caller::Id(id) | Caller::IdAt(id, _) => {
            [&connection.local_id, &connection.peer_id].into_iter().flatten().any(|known| known == id)
        }
    }
}

fn show(report: &Report, wide: bool) -> String {
    let e = &report.explanation;
    let verdict = match (e.passed, e.allowed, &e.only_with) {
        (true, _, _) => yellow("not captured: the kernel forwards it untouched"),
        (false, true, None) => green("allowed"),
        (false, true, Some(ids)) => yellow(&format!("allowed only with a certificate of {ids}")),
        (false, false, _) => red("refused"),
    };
    let direction = or_dash(e.direction.map(connections::direction));
    let mode = or_dash(e.mode.map(|m| m.name()));
    let mut lines = vec![format!("{verdict} (direction {direction}, mode {mode}, snapshot {})", e.version)];
    if let Some(reason) = e.refused {
        lines.push(format!("reason     {reason}: {}", reason.meaning()));
        lines.push(format!("remedy     {}", reason.remedy()));
    }
    lines.extend(e.rule.iter().map(|rule| format!("rule       {rule}")));
    lines.extend(e.steps.iter().enumerate().map(|(i, step)| format!("  {}. {step}", i + 1)));
    if !report.recent_refusals.is_empty() {
        lines.push(String::new());
        lines.push("refused lately:".into());
        let (header, rows) = connections::refused(&report.recent_refusals, wide);
        lines.push(table(header, rows));
    }
    lines.join("\n")
}
