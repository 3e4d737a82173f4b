//! What the admin socket says, as JSON: shared by the server that makes it and the CLI that shows it.
//!
//! Secrets cannot get in here: nothing in this file has a field for one.

mod changes;
mod names;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use changes::{Applied, Apply, InForce, Reload, Replayed, Trial};
pub use names::Names;
use serde::{Deserialize, Serialize};
use snapshot::{SourceAddress, Version, Workload};

use crate::attest::Attestation;
use crate::config::policy::{Named, Whom};
use crate::config::{AllowList, Egress, Loaded, Policy, Selector, Service, SpiffeId, Target, WorkloadIdentity};
use crate::rotate::Identities;

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    pub node: String,
    pub trust_domain: String,
    pub build: String,
    pub pid: u32,
    /// Seconds since the epoch.
    pub started_at: u64,
    /// A dataplane has the current version in force.
    pub ready: bool,
    /// What readiness waits for.
    pub waiting_for: Option<String>,
    /// The version that was assembled last.
    pub version: Option<Version>,
    pub config: Config,
    /// Mended by somebody else than the configuration: names that do not resolve, identities that
    /// cannot be had.
    pub problems: Vec<String>,
    /// What will be there once somebody else has done his part.
    #[serde(default)]
    pub waiting: Vec<String>,
    pub last_nack: Option<String>,
    /// What is followed of a Kubernetes API.
    #[serde(default)]
    pub kubernetes: Vec<Watched>,
    pub network_revision: u64,
    pub identities: Vec<Identity>,
    /// None while none is connected or it does not answer; then `dataplane_error` says which.
    pub dataplane: Option<snapshot::Status>,
    pub dataplane_error: Option<String>,
}

/// One list of the Kubernetes API. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watched {
    /// `https://10.96.0.1`; empty where even that is not known yet.
    pub server: String,
    /// `pods of node node-a`.
    pub what: String,
    /// How many there are; None: nothing has been listed yet.
    pub known: Option<usize>,
    /// The `resourceVersion` up to which the list is known.
    pub version: Option<String>,
    /// The watch stands since then.
    pub since: Option<u64>,
    /// When the API last said something, be it only that nothing is new.
    pub heard_at: Option<u64>,
    /// Why it is not watched, and since when. What is known stays in force.
    pub problem: Option<String>,
    pub failing_since: Option<u64>,
    /// How often the whole was read, and how often something went wrong.
    pub lists: u64,
    pub failures: u64,
    /// How many objects are left as they were last, since they are not understood now, and why the first is.
    #[serde(default)]
    pub odd: usize,
    #[serde(default)]
    pub first_odd: Option<String>,
}

/// The configuration that is in force, and what is wrong with a newer one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Config {
    pub directory: String,
    /// When what is in force was read, in seconds since the epoch.
    pub loaded_at: u64,
    /// Why the files as they are now were refused; empty when they are in force.
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
}

/// One entry of `GET /v1/identities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `namespace/name` of the WorkloadIdentity.
    pub workload: String,
    pub spiffe_id: String,
    pub mode: String,
    /// `198.18.1.2/32 on in0`.
    pub places: Vec<String>,
    /// How that is known, one sentence per selector.
    pub evidence: Vec<String>,
    pub serial: Option<String>,
    /// Seconds since the epoch.
    pub not_before: Option<u64>,
    pub not_after: Option<u64>,
    /// The identity source that it is from, by name. None: no source takes the workload.
    pub source: Option<String>,
    /// Why there is no SVID, or why it was not renewed.
    pub error: Option<String>,
    /// That is no failure, and what is waited for.
    #[serde(default)]
    pub waiting: bool,
}

impl Identity {
    pub fn of(workload: &Workload, attestation: Option<&Attestation>, identities: &Identities) -> Self {
        let svid = workload.svid.as_ref();
        let place = |p: &snapshot::Place| format!("{} on {}", p.prefix, p.interface);
        let id = SpiffeId::parse(&workload.spiffe_id).ok();
        let failed = id.as_ref().and_then(|id| identities.error(id));
        Self {
            workload: workload.name.clone(),
            spiffe_id: workload.spiffe_id.clone(),
            mode: workload.mode.name().into(),
            places: workload.places.iter().map(place).collect(),
            evidence: attestation.map(|a| a.evidence.clone()).unwrap_or_default(),
            serial: svid.map(|s| s.serial.clone()),
            not_before: svid.map(|s| s.not_before),
            not_after: svid.map(|s| s.not_after),
            source: id.as_ref().and_then(|id| identities.source_of(id)).map(str::to_owned),
            waiting: failed.is_some_and(|failed| failed.waiting),
            error: failed.map(|failed| failed.reason.clone()),
        }
    }
}

/// `GET /v1/config`: the resources in force, as people name them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resources {
    pub gateways: Vec<GatewayRow>,
    pub identities: Vec<IdentityRow>,
    pub services: Vec<ServiceRow>,
    pub policies: Vec<PolicyRow>,
    #[serde(default)]
    pub bypasses: Vec<BypassRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GatewayRow {
    pub name: String,
    pub trust_domain: String,
    /// `in0 (inside)`.
    pub ports: Vec<String>,
    pub cores: Vec<u32>,
    pub socket: String,
    pub metrics: Option<String>,
    pub place: String,
    #[serde(default)]
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdentityRow {
    pub name: String,
    pub spiffe_id: String,
    pub mode: String,
    /// Service ports whose modes differ.
    #[serde(default)]
    pub ports: BTreeMap<u16, String>,
    pub selectors: Vec<String>,
    /// None: no list.
    pub inbound: Option<Vec<String>>,
    pub outbound: Option<Vec<String>>,
    pub egress: Vec<String>,
    pub place: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    pub name: String,
    pub addresses: Vec<String>,
    pub labels: Vec<String>,
    pub place: String,
    #[serde(default)]
    pub virtual_addresses: Vec<String>,
}

/// One rule of a Policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// `namespace/name` of the Policy.
    pub name: String,
    /// `shop/partners spec.rules[0] (policy.yaml:12)`, as every view names the rule.
    pub rule: String,
    /// Shared by the rules of one Policy, which may be thousands.
    pub workloads: Arc<[String]>,
    /// `deny inbound spiffe://example.com/batch from 203.0.113.0/24`.
    pub says: String,
    pub enforcement: String,
    /// Calls that it decided, in shadow would have. None: no dataplane was asked.
    pub hits: Option<u64>,
}

impl PolicyRow {
    fn all(policy: &Policy) -> impl Iterator<Item = Self> {
        let named = |named: &Named| match &named.whom {
            Whom::Name(name) => name.clone(),
            Whom::Id(pattern) => pattern.to_string(),
        };
        let workloads: Arc<[String]> = policy.workloads.iter().map(named).collect();
        policy.rules.iter().enumerate().map(move |(nth, rule)| Self {
            name: policy.name.clone(),
            rule: format!("{} spec.rules[{nth}] ({})", policy.name, rule.place),
            workloads: workloads.clone(),
            says: rule.rule.to_string(),
            enforcement: rule.rule.enforcement.name().into(),
            hits: None,
        })
    }
}

/// One entry of a workload's `connection.bypass`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BypassRow {
    /// `namespace/name`.
    pub workload: String,
    /// `shop/backend spec.connection.bypass[0] (policy.yaml:12)`, as every view names it.
    pub rule: String,
    pub sources: Vec<IpAddr>,
    pub ports: Vec<u16>,
    /// That the gateway relayed, and SYNs of the node itself. None: no dataplane was asked.
    pub connections: Option<u64>,
    pub from_node: Option<u64>,
}

impl BypassRow {
    fn all(identity: &WorkloadIdentity) -> impl Iterator<Item = Self> {
        identity.bypass.iter().enumerate().map(|(nth, entry)| Self {
            workload: identity.name.clone(),
            rule: format!("{} spec.connection.bypass[{nth}] ({})", identity.name, entry.place),
            sources: entry.sources.clone(),
            ports: entry.ports.clone(),
            connections: None,
            from_node: None,
        })
    }
}

impl Resources {
    pub fn of(loaded: &Loaded) -> Self {
        let gateway = &loaded.gateway;
        Self {
            gateways: vec![GatewayRow {
                name: gateway.name.clone(),
                trust_domain: gateway.trust_domain.to_string(),
                ports: gateway.ports.iter().map(|p| format!("{} ({})", p.interface, side(p.side))).collect(),
                cores: gateway.cores.clone(),
                socket: gateway.admin.socket.display().to_string(),
                metrics: gateway.admin.metrics.map(|m| m.to_string()),
                place: gateway.place.to_string(),
                hosts: gateway.hosts.clone(),
            }],
            identities: loaded.identities.iter().map(|i| IdentityRow::of(i, loaded)).collect(),
            services: loaded.services.iter().map(ServiceRow::of).collect(),
            policies: loaded.policies.iter().flat_map(PolicyRow::all).collect(),
            bypasses: loaded.identities.iter().flat_map(BypassRow::all).collect(),
        }
    }
}

impl IdentityRow {
    fn of(identity: &WorkloadIdentity, loaded: &Loaded) -> Self {
        Self {
            name: identity.name.clone(),
            spiffe_id: identity.spiffe_id(&loaded.gateway.trust_domain).as_str().to_owned(),
            mode: identity.mode.name().into(),
            ports: identity.ports.iter().map(|(port, mode)| (*port, mode.name().into())).collect(),
            selectors: identity.selectors.iter().map(selector).collect(),
            inbound: identity.inbound.as_ref().map(list),
            outbound: identity.outbound.as_ref().map(list),
            egress: identity.egress.iter().map(egress).collect(),
            place: identity.place.to_string(),
        }
    }
}

impl ServiceRow {
    fn of(service: &Service) -> Self {
        let address = |a: &crate::config::Address| match &a.target {
            Target::Ip(ip) => std::net::SocketAddr::new(*ip, a.port).to_string(),
            Target::Name(name) => format!("{name}:{}", a.port),
        };
        Self {
            name: service.name.clone(),
            addresses: match &service.kubernetes {
                // As it is configured; where that leads now, `sluice services` says.
                Some(named) => vec![format!("{} in the cluster", named.name)],
                None => service.addresses.iter().map(address).collect(),
            },
            labels: service.labels.iter().map(|(k, v)| format!("{k}={v}")).collect(),
            place: service.place.to_string(),
            virtual_addresses: service
                .virtual_addresses
                .iter()
                .filter(|v| v.endpoints.is_none())
                .map(|v| std::net::SocketAddr::new(v.ip, v.port).to_string())
                .collect(),
        }
    }
}

pub fn side(side: snapshot::Side) -> &'static str {
    match side {
        snapshot::Side::Inside => "inside",
        snapshot::Side::Outside => "outside",
    }
}

fn list(list: &AllowList) -> Vec<String> {
    list.patterns.iter().map(ToString::to_string).collect()
}

fn selector(selector: &Selector) -> String {
    let known = [
        ("net:interface", selector.interface.clone()),
        ("net:ip", selector.ip.map(|ip| ip.to_string())),
        ("net:cidr", selector.cidr.map(|cidr| cidr.to_string())),
        ("process", selector.process.as_ref().map(ToString::to_string)),
    ];
    let known = known.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?)));
    let pods = selector.pods.iter().map(ToString::to_string).filter(|keys| !keys.is_empty());
    let rest = selector.unattested.iter().map(|(key, value)| format!("{key}={value}"));
    known.chain(pods).chain(rest).collect::<Vec<_>>().join(" ")
}

fn egress(entry: &Egress) -> String {
    let labels = |s: &std::collections::BTreeMap<String, String>| {
        s.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
    };
    let to = entry.selectors.iter().map(labels).collect::<Vec<_>>().join(" or ");
    let mode = entry.mode.map(|m| format!(" {}", m.name())).unwrap_or_default();
    let allowed = entry.allowed.as_ref().map(|a| format!(" as {}", list(a).join(" or "))).unwrap_or_default();
    let source = match entry.source {
        SourceAddress::Preserve => "",
        SourceAddress::Node => " from the node's address",
    };
    format!("{to}{mode}{allowed}{source}")
}

/// The body of every answer that is not 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub error: String,
    /// One per fault, as `sluice validate` prints it.
    pub details: Vec<String>,
}
