//! `sluice describe workload`: how it is attested, and what its calls were attested by.

use std::net::IpAddr;

use clap::Args;
use serde::Serialize;
use snapshot::{ConnectionReport, Direction, Prefix, RefuseReason};

use super::{fact, section};
use crate::cli::output::{Output, Rows, clock_time, or_dash, red, until};
use crate::cli::place::Place;
use crate::cli::{Done, complete, connections};
use crate::describe::{Kind, find};
use crate::view::{BypassRow, Identity};

/// How a workload is attested, and which selector its calls matched, by what was found of the process.
///
/// Calls that matched nobody's selectors are listed at each workload whose address they came from.
///
/// Exit code 0: it is a workload of this node. 1: there is none of that name here.
///
/// Examples:
///   sluice describe workload shop/web
///   sluice describe workload shop/web -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Workload {
    /// Of the WorkloadIdentity; the name alone where that is clear.
    #[arg(value_name = "NAMESPACE/NAME", add = complete::workloads())]
    name: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    identity: Identity,
    /// Calls that were attested by their process: those that live, and those that ended lately.
    attested: Vec<ConnectionReport>,
    /// Calls from its addresses, or to them, that were nobody's.
    not_attested: Vec<ConnectionReport>,
    /// Who may call its MUTUAL ports plain, and did.
    bypass: Vec<BypassRow>,
}

/// Most calls that are listed of each kind; the newest are.
const SHOWN: usize = 10;

impl Workload {
    pub async fn run(self) -> Done {
        let client = self.place.client()?;
        let identities: Vec<Identity> = client.get("/v1/identities").await?;
        let names = identities.iter().map(|identity| identity.workload.as_str());
        let name = find(Kind::Workload, &self.name, names).map_err(anyhow::Error::from)?.to_owned();
        let identity = identities.into_iter().find(|one| one.workload == name).expect("it was found there");
        let mut attested = Vec::new();
        for which in ["closed", "refused", "live"] {
            attested.extend(client.get::<Vec<ConnectionReport>>(&format!("/v1/connections?which={which}")).await?);
        }
        let of_nobody = |call: &ConnectionReport| call.refused == Some(RefuseReason::NotAttested);
        let not_attested = attested.iter().filter(|call| of_nobody(call) && touches(&identity, call));
        let not_attested = newest(not_attested.cloned().collect());
        let is_its = |call: &ConnectionReport| {
            let called = call.direction == Direction::Local && call.peer_id.as_ref() == Some(&identity.spiffe_id);
            called || call.workload.as_ref() == Some(&identity.workload)
        };
        attested.retain(|call| call.attested.is_some() && is_its(call));
        let mut bypass: Vec<BypassRow> = client.get("/v1/bypasses").await?;
        bypass.retain(|entry| entry.workload == identity.workload);
        let report = Report { identity, attested: newest(attested), not_attested, bypass };
        self.output.show(&report, |_| show(&report))?;
        Ok(true)
    }
}

fn newest(mut calls: Vec<ConnectionReport>) -> Vec<ConnectionReport> {
    calls.sort_by_key(|call| (call.opened_at, call.id));
    calls.split_off(calls.len().saturating_sub(SHOWN))
}

/// A call from its addresses, or to them.
fn touches(identity: &Identity, call: &ConnectionReport) -> bool {
    is_at(identity, call.client.ip()) || is_at(identity, call.endpoint.unwrap_or(call.server).ip())
}

/// `places` are `198.18.1.0/24 on in0`.
fn is_at(identity: &Identity, address: IpAddr) -> bool {
    let prefix = |place: &String| -> Option<Prefix> {
        let (address, length) = place.split_once(' ')?.0.split_once('/')?;
        Some(Prefix::new(address.parse().ok()?, length.parse().ok()?))
    };
    identity.places.iter().filter_map(prefix).any(|prefix| prefix.contains(address.to_canonical()))
}

fn show(report: &Report) -> String {
    let identity = &report.identity;
    let svid = match (&identity.serial, identity.not_after) {
        (Some(serial), Some(at)) => format!("{serial}, expires in {}", until(at)),
        _ => red("none"),
    };
    let mut lines = vec![
        fact("workload", &identity.workload),
        fact("SPIFFE ID", &identity.spiffe_id),
        fact("mode", &identity.mode),
        fact("SVID", svid),
    ];
    lines.extend(identity.error.iter().map(|error| fact("error", error)));
    lines.extend(identity.places.iter().map(|place| fact("place", place)));
    lines.extend(identity.evidence.iter().map(|sentence| fact("evidence", sentence)));
    lines.extend(report.bypass.iter().map(bypass));
    for (title, calls, why) in [
        ("attested by process", &report.attested, "ATTESTED BY"),
        ("not attested, from or to the same addresses", &report.not_attested, "WHY"),
    ] {
        lines.extend(section(title, rows(calls, why)));
    }
    lines.join("\n")
}

/// `bypass     198.18.9.9 -> 8080 plain: 12 connections, 3 SYNs of this node; shop/backend spec...`
fn bypass(entry: &BypassRow) -> String {
    let list = |items: Vec<String>| items.join(", ");
    let sources = list(entry.sources.iter().map(ToString::to_string).collect());
    let ports = list(entry.ports.iter().map(ToString::to_string).collect());
    let (connections, syns) = (or_dash(entry.connections), or_dash(entry.from_node));
    format!(
        "bypass     {sources} -> {ports} plain: {connections} connections, {syns} SYNs of this node; by {}",
        entry.rule
    )
}

fn rows(calls: &[ConnectionReport], why: &str) -> Rows {
    let row = |call: &ConnectionReport| {
        let evidence = if why == "WHY" { &call.detail } else { &call.attested };
        let ended = call.refused.map(|reason| reason.name()).or(call.closed.map(|reason| reason.name()));
        let state = ended.map_or_else(|| call.state.clone(), str::to_owned);
        let direction = connections::direction(call.direction).to_owned();
        let ends = [call.client.to_string(), call.server.to_string()];
        [vec![clock_time(call.opened_at), direction], ends.to_vec(), vec![state, or_dash(evidence.as_ref())]].concat()
    };
    let header: &'static [&'static str] = match why {
        "WHY" => &["TIME", "DIRECTION", "CLIENT", "SERVER", "STATE", "WHY"],
        _ => &["TIME", "DIRECTION", "CLIENT", "SERVER", "STATE", "ATTESTED BY"],
    };
    (header, calls.iter().map(row).collect())
}
