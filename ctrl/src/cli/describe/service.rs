//! `sluice describe service`: its endpoints and where each came from, its ports, and who calls it by which rule.

use clap::Args;

use super::{fact, last_facts, section};
use crate::cli::Done;
use crate::cli::complete;
use crate::cli::output::{Output, Rows, age_ms, or_dash, red, span, until, yellow};
use crate::cli::place::Place;
use crate::client::escape;
use crate::describe::service::{self as described, EndpointRow, Given, Origin};

/// Describe a Service: each endpoint with where it came from and how it does, each port with its mode, and the
/// egress entries that select it.
///
/// LIVE counts connections that this gateway carries to the endpoint. ACTIVE, CONNECTED and FAILED are of calls that
/// virtual addresses gave to it, over all cores. MODE of a port is that of the workload of this node that is called
/// there; elsewhere another node says it. -o wide has more.
///
/// Exit code 0: there is such a Service. 1: there is none of that name here, or several.
///
/// Examples:
///   sluice describe service shop/backend
///   sluice describe service backend -o json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Service {
    /// Of the Service; the name alone where that is clear.
    #[arg(value_name = "NAMESPACE/NAME", add = complete::services())]
    name: String,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    output: Output,
}

impl Service {
    pub async fn run(self) -> Done {
        let path = format!("/v1/describe/service?name={}", escape(&self.name));
        let service: described::Service = self.place.client()?.get(&path).await?;
        self.output.show(&service, |wide| show(&service, wide))?;
        Ok(true)
    }
}

fn show(service: &described::Service, wide: bool) -> String {
    let mut lines = vec![fact("service", format!("{} ({})", service.name, service.place))];
    lines.push(fact("labels", or_dash((!service.labels.is_empty()).then(|| service.labels.join(", ")))));
    lines.extend(service.kubernetes.iter().map(|named| fact("in cluster", named)));
    lines.extend(last_facts(&service.revision, &service.problems, service.not_counted.as_ref()));
    lines.extend(section("endpoints", endpoints(service, wide)));
    lines.extend(section("virtual addresses", virtuals(service)));
    lines.extend(section("ports", ports(service)));
    lines.extend(section("selected by", selected_by(service)));
    if service.selected_by.is_empty() {
        lines.push(String::new());
        lines.push("selected by no egress entry: of calls to it, unmatchedEgress of who calls decides".into());
    }
    lines.extend(section("names", names(service)));
    lines.extend(section("slices", slices(service)));
    lines.join("\n")
}

fn endpoints(service: &described::Service, wide: bool) -> Rows {
    let row = |endpoint: &EndpointRow| {
        let count = |of: fn(&Given) -> u64| or_dash(endpoint.given.as_ref().map(of));
        let mut row = vec![endpoint.address.to_string(), from(endpoint), or_dash(endpoint.ttl.map(span))];
        row.extend([state(endpoint), or_dash(endpoint.live), count(|given| given.active)]);
        row.extend([count(|given| given.connected), count(|given| given.failed)]);
        row.push(or_dash((!endpoint.workloads.is_empty()).then(|| endpoint.workloads.join(", "))));
        if wide {
            let on = endpoint.given.iter().flat_map(|given| &given.ejected_on).map(ToString::to_string);
            let on = on.collect::<Vec<_>>().join(",");
            row.extend([
                count(|given| given.ejections),
                or_dash((!on.is_empty()).then_some(on)),
                endpoint.place.clone(),
            ]);
        }
        row
    };
    let header: &'static [&'static str] = &[
        "ENDPOINT",
        "FROM",
        "TTL",
        "STATE",
        "LIVE",
        "ACTIVE",
        "CONNECTED",
        "FAILED",
        "WORKLOAD",
        "EJECTED",
        "ON CORES",
        "PLACE",
    ];
    (if wide { header } else { &header[..9] }, service.endpoints.iter().map(row).collect())
}

fn from(endpoint: &EndpointRow) -> String {
    let host = endpoint.host.as_deref().unwrap_or_default();
    match endpoint.from {
        Origin::Literal => "literal".into(),
        Origin::Hosts => format!("hosts {host}"),
        Origin::Dns => format!("DNS {host}"),
        Origin::Kubernetes => "slice".into(),
    }
}

fn state(endpoint: &EndpointRow) -> String {
    let ejected = endpoint.given.as_ref().and_then(|given| given.ejected_until);
    match (endpoint.replaced_until, ejected) {
        (Some(end), _) => yellow(&format!("replaced, captured for {}", until(end))),
        (None, _) if !endpoint.ready => yellow("not ready"),
        (None, Some(end)) => red(&format!("ejected for {}", until(end))),
        (None, None) => "ready".into(),
    }
}

fn virtuals(service: &described::Service) -> Rows {
    let row = |v: &crate::services::VirtualRow| {
        let leads: Vec<_> = v.endpoints.iter().map(ToString::to_string).collect();
        let leads = if leads.is_empty() { red("nowhere") } else { leads.join(", ") };
        vec![v.address.to_string(), leads]
    };
    (&["VIRTUAL", "LEADS TO"], service.virtual_addresses.iter().map(row).collect())
}

fn ports(service: &described::Service) -> Rows {
    let row = |port: &described::PortRow| {
        let mode = |of: &described::ModeRow| format!("{} ({})", of.mode, of.workload);
        let modes: Vec<_> = port.inbound.iter().map(mode).collect();
        let modes = if modes.is_empty() { "not of this node".into() } else { modes.join(", ") };
        vec![port.port.to_string(), port.endpoints.to_string(), modes]
    };
    (&["PORT", "ENDPOINTS", "MODE"], service.ports.iter().map(row).collect())
}

fn selected_by(service: &described::Service) -> Rows {
    let row = |of: &described::SelectedRow| {
        let allowed = or_dash(of.allowed.as_ref().map(|list| match list.is_empty() {
            true => "nobody".to_owned(),
            false => list.join(" or "),
        }));
        let behind = of.behind.as_ref().map(|first| yellow(&format!("never: {first} comes first")));
        vec![of.rule.clone(), of.mode.clone(), of.source.clone(), behind.unwrap_or("yes".into()), allowed]
    };
    (&["RULE", "MODE", "SOURCE", "DECIDES", "ALLOWED"], service.selected_by.iter().map(row).collect())
}

fn names(service: &described::Service) -> Rows {
    let row = |name: &crate::resolve::Told| {
        let again = match (name.is_fixed, name.next_in) {
            (true, _) => "never: hosts".to_owned(),
            (false, Some(seconds)) => span(seconds),
            (false, None) => "now".into(),
        };
        let failure = name.last_failure.as_ref().map(|failure| {
            let told = format!("{} ago: {}", age_ms(failure.at * 1000), failure.why);
            if name.is_failing { red(&told) } else { told }
        });
        vec![name.name.clone(), name.addresses.len().to_string(), again, or_dash(failure)]
    };
    (&["NAME", "ADDRESSES", "ASKED AGAIN IN", "LAST FAILURE"], service.names.iter().map(row).collect())
}

fn slices(service: &described::Service) -> Rows {
    let row = |slice: &crate::services::cluster::SliceRow| {
        let counts = [slice.ready, slice.ending, slice.not_ready].map(|count| count.to_string());
        [vec![slice.name.clone(), or_dash((!slice.ports.is_empty()).then(|| slice.ports.join(",")))], counts.into()]
            .concat()
    };
    (&["SLICE", "PORTS", "READY", "ENDING", "NOT READY"], service.slices.iter().map(row).collect())
}
