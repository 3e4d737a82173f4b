//! `sluice services`: what each Service leads to, and how its endpoints do.

use clap::Args;

use super::output::{Output, Rows, or_dash, red, table, until, yellow};
use super::place::Place;
use super::{Done, complete};
use crate::services::{EndpointRow, Row};

/// List Services: their virtual addresses, the endpoints behind them, and what became of calls to those.
///
/// ACTIVE, CONNECTED and FAILED count calls that virtual addresses have given to an endpoint, over all cores;
/// calls to the endpoint's own address are in none of them. An endpoint that failed five times in a row is
/// EJECTED: it is given none for a while, by the cores that are named (-o wide).
///
/// Examples:
///   sluice services
///   sluice services backend -o wide
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Services {
    /// Only these, by namespace/name or the name alone.
    #[arg(value_name = "SERVICE", add = complete::services())]
    names: Vec<String>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

impl Services {
    pub async fn run(self) -> Done {
        let mut services: Vec<Row> = self.place.client()?.get("/v1/services").await?;
        let is = |row: &Row, name: &String| row.name == *name || row.name.rsplit('/').next() == Some(name);
        if let Some(unknown) = self.names.iter().find(|name| !services.iter().any(|row| is(row, name))) {
            eprintln!("error: no Service is called {unknown:?}: see `sluice get services`");
            return Ok(false);
        }
        services.retain(|row| self.names.is_empty() || self.names.iter().any(|name| is(row, name)));
        self.output.show(&services, |wide| {
            let (header, rows) = show(&services, wide);
            table(header, rows)
        })?;
        Ok(true)
    }
}

pub fn show(services: &[Row], wide: bool) -> Rows {
    let header: &'static [&'static str] = &[
        "SERVICE",
        "VIRTUAL",
        "ENDPOINT",
        "NAME",
        "STATE",
        "ACTIVE",
        "CONNECTED",
        "FAILED",
        "EJECTED",
        "ON CORES",
        "KUBERNETES",
    ];
    let mut rows = Vec::new();
    for service in services {
        let mut ends = service.endpoints.iter().peekable();
        if ends.peek().is_none() {
            let row = [service.name.clone(), virtuals(service, None), "-".into(), "-".into(), red("no endpoint")];
            rows.push(padded(row.into(), service, wide));
        }
        rows.extend(ends.map(|endpoint| padded(row(service, endpoint, wide), service, wide)));
    }
    (if wide { header } else { &header[..9] }, rows)
}

fn row(service: &Row, endpoint: &EndpointRow, wide: bool) -> Vec<String> {
    let mut row = vec![service.name.clone(), virtuals(service, Some(endpoint)), endpoint.address.to_string()];
    row.extend([or_dash(endpoint.host.as_ref()), state(endpoint)]);
    row.extend([endpoint.active, endpoint.connected, endpoint.failed].map(|count| count.to_string()));
    row.push(format!("{}", endpoint.ejections));
    if wide {
        let cores: Vec<_> = endpoint.ejected_on.iter().map(ToString::to_string).collect();
        row.push(or_dash((!cores.is_empty()).then(|| cores.join(","))));
    }
    row
}

fn state(endpoint: &EndpointRow) -> String {
    match endpoint.ejected_until {
        _ if !endpoint.ready => yellow("not ready"),
        Some(end) => red(&format!("ejected for {}", until(end))),
        None => "ready".into(),
    }
}

/// Those that lead to the endpoint; where there is none, all.
fn virtuals(service: &Row, to: Option<&EndpointRow>) -> String {
    let leads = |endpoints: &[std::net::SocketAddr]| to.is_none_or(|to| endpoints.contains(&to.address));
    let all: Vec<_> =
        service.virtual_addresses.iter().filter(|v| leads(&v.endpoints)).map(|v| v.address.to_string()).collect();
    or_dash((!all.is_empty()).then(|| all.join(",")))
}

fn padded(mut row: Vec<String>, service: &Row, wide: bool) -> Vec<String> {
    row.resize(if wide { 10 } else { 9 }, "-".into());
    row.extend(wide.then(|| or_dash(service.kubernetes.as_ref())));
    row
}
