//! `sluice explain`: what would happen to a call now, and what happened to such calls lately.

use std::net::{IpAddr, SocketAddr};

use clap::Args;
use serde::Serialize;
use snapshot::report::Caller;
use snapshot::{ConnectionReport, Explanation};

use super::ends::{self, To};
use super::output::{Output, green, or_dash, red, table, yellow};
use super::place::Place;
use super::{Done, Failure, complete, connections};
use crate::admin;
use crate::client::escape;

/// Explain what would happen to a call now, step by step, and list its recent refusals.
///
/// An address on the wire is nobody yet: there it says whose certificate would be admitted. At an address that
/// several workloads of this node share by their processes, the process decides who calls: ask for one of the
/// SPIFFE IDs that are named then.
///
/// A name that is called is one of `hosts`, of a Service's addresses, or a Service's own. Of several addresses the
/// first of the caller's family is asked about.
///
/// Exit code 0: it would be allowed, if need be with the certificate that is asked for. 1: it would not.
/// 2: neither can be said, since the process of the caller decides; or what was asked is not understood.
///
/// Examples:
///   sluice explain --from spiffe://example.com/myapp/app/frontend --to 198.18.2.2:3000
///   sluice explain --from spiffe://example.com/myapp/app/frontend --at 203.0.113.9 --to 198.18.2.2:3000
///   sluice explain --from 198.18.1.2 --to '[2001:db8:2::2]:3000'
///   sluice explain --from shop/frontend --to backend-api.myapp.svc.cluster.local:3000
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Explain {
    /// Who calls: a SPIFFE ID, an address, or a workload's namespace/name.
    #[arg(long, value_name = "ID|ADDR|NAME", add = complete::workloads())]
    from: String,
    /// Of a SPIFFE ID or a workload: the address that it calls from, for rules with CIDRs.
    #[arg(long, value_name = "ADDR")]
    at: Option<IpAddr>,
    /// What is called.
    #[arg(long, value_name = "ADDR:PORT|NAME:PORT", value_parser = To::parse)]
    to: To,
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
    to: SocketAddr,
    /// All that the name that is called leads to; empty where an address was given.
    resolved: Vec<SocketAddr>,
}

/// Most refusals that are listed.
const RECENT: usize = 10;
/// Most addresses of a name that are.
const SHOWN: usize = 8;

impl Explain {
    pub async fn run(self) -> Done {
        let client = self.place.client()?;
        let named = ends::from(&client, &self.from).await?;
        let at = self.at.map(|at| at.to_string());
        let from = admin::caller(&named, at.as_deref()).map_err(Failure::Usage)?;
        let all = self.to.addresses(&client).await?;
        let to = first_of_family(&all, &from);
        let mut path = format!("/v1/explain?from={}&to={}", escape(&named), escape(&to.to_string()));
        if let Some(at) = at {
            path.push_str(&format!("&at={}", escape(&at)));
        }
        let explanation: Explanation = client.get(&path).await?;
        let mut refusals: Vec<ConnectionReport> = client.get("/v1/connections?which=refused").await?;
        refusals.retain(|c| c.server == to && is_caller(c, &from));
        refusals.sort_by_key(|c| std::cmp::Reverse(c.id));
        refusals.truncate(RECENT);
        let resolved = if matches!(self.to, To::Name(..)) { all } else { vec![] };
        let report = Report { explanation, recent_refusals: refusals, to, resolved };
        self.output.show(&report, |wide| show(&report, wide))?;
        match report.explanation.undecided[..] {
            [] => Ok(report.explanation.allowed || report.explanation.passed),
            [..] => Err(Failure::Usage(format!("--from {} may be several: ask for a SPIFFE ID", self.from))),
        }
    }
}

/// A call has one family at both ends.
fn first_of_family(all: &[SocketAddr], from: &Caller) -> SocketAddr {
    let calls_from = match from {
        Caller::Id(_) => None,
        Caller::IdAt(_, address) | Caller::Address(address) => Some(address.to_canonical()),
    };
    let fits = |to: &&SocketAddr| calls_from.is_none_or(|from| from.is_ipv4() == to.ip().to_canonical().is_ipv4());
    *all.iter().find(fits).unwrap_or(&all[0])
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
        _ if !e.undecided.is_empty() => yellow("undecided: the process that calls decides"),
        (true, _, _) => yellow("not captured: the kernel forwards it untouched"),
        (false, true, None) => green("allowed"),
        (false, true, Some(ids)) => yellow(&format!("allowed only with a certificate of {ids}")),
        (false, false, _) => red("refused"),
    };
    let direction = or_dash(e.direction.map(connections::direction));
    let mode = or_dash(e.mode.map(|m| m.name()));
    let mut lines = vec![format!("{verdict} (direction {direction}, mode {mode}, snapshot {})", e.version)];
    if !report.resolved.is_empty() {
        let all: Vec<_> = report.resolved.iter().take(SHOWN).map(|at| at.ip().to_string()).collect();
        let more = report.resolved.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        lines.push(format!("to         {}, of {}{more}", report.to, all.join(", ")));
    }
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
