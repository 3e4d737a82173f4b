//! A Service and its slices as the API writes them, as far as they matter here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::listed::{Object, Odd};
use crate::services::cluster::{ClusterService, Slice, SliceEndpoint, State};

/// The label by which a slice says whose it is.
pub const OF_SERVICE: &str = "kubernetes.io/service-name";

#[derive(Debug, Deserialize)]
pub struct ServiceJson {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(rename = "clusterIP", default)]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs", default)]
    cluster_ips: Option<Vec<String>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
    #[serde(default)]
    internal_traffic_policy: Option<String>,
    #[serde(default)]
    external_name: Option<String>,
}

/// Of a Service, or of a slice, where each field may be missing.
#[derive(Debug, Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    protocol: Option<String>,
    /// A server does not look at what it is in a slice.
    #[serde(default)]
    port: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceJson {
    metadata: Metadata,
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<EndpointJson>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointJson {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    #[serde(default)]
    node_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Conditions {
    #[serde(default)]
    ready: Option<bool>,
    #[serde(default)]
    serving: Option<bool>,
    #[serde(default)]
    terminating: Option<bool>,
}

/// All Services.
#[derive(Debug)]
pub enum Services {}

/// The slices of those that are named.
#[derive(Debug)]
pub enum Slices {}

impl Object for Services {
    type Json = ServiceJson;
    type Kept = ClusterService;
    /// Twice what a cluster is built for.
    const MOST: usize = 20_000;

    fn of(ServiceJson { metadata, spec }: ServiceJson) -> Result<(String, Option<ClusterService>), Odd> {
        let key = metadata.key();
        let alias = (spec.kind.as_deref() == Some("ExternalName")).then(|| spec.external_name.unwrap_or_default());
        // Of one family, older servers write only the one field.
        let ips = match spec.cluster_ips {
            Some(ips) => ips,
            None => spec.cluster_ip.into_iter().collect(),
        };
        let ips = ips.iter().filter(|ip| !ip.is_empty() && *ip != "None").map(|ip| parse("Service", &key, ip));
        let service = ClusterService {
            ips: ips.collect::<Result<_, _>>().map_err(|why| Odd::One { key: key.clone(), whose: key.clone(), why })?,
            ports: tcp(spec.ports),
            local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            alias,
        };
        Ok((key, Some(service)))
    }
}

impl Object for Slices {
    type Json = SliceJson;
    type Kept = Slice;
    const MOST: usize = 20_000;

    fn of(slice: SliceJson) -> Result<(String, Option<Slice>), Odd> {
        let key = slice.metadata.key();
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(OF_SERVICE));
        // Names for addresses (FQDN) are no endpoints to kube-proxy either.
        let (Some(service), "IPv4" | "IPv6") = (service, slice.address_type.as_str()) else { return Ok((key, None)) };
        let endpoint = |endpoint: &EndpointJson| -> Option<Result<SliceEndpoint, String>> {
            // All of them are one and the same endpoint.
            let ip = match parse("EndpointSlice", &key, endpoint.addresses.first()?) {
                Ok(ip) => ip,
                Err(why) => return Some(Err(why)),
            };
            Some(Ok(SliceEndpoint { ip, state: endpoint.conditions.state(), node: endpoint.node_name.clone() }))
        };
        let service = format!("{}/{service}", slice.metadata.namespace);
        let endpoints = slice.endpoints.iter().flatten().filter_map(endpoint).collect::<Result<_, _>>();
        let endpoints = endpoints.map_err(|why| Odd::One { key: key.clone(), whose: service.clone(), why })?;
        Ok((key.clone(), Some(Slice { name: key, service, endpoints, ports: tcp(slice.ports) })))
    }

    fn whose<'k>(_key: &'k str, kept: &'k Slice) -> &'k str {
        &kept.service
    }
}

impl Metadata {
    fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Conditions {
    /// What is not said is meant well: `discovery.k8s.io/v1`, EndpointConditions.
    fn state(&self) -> State {
        let ready = self.ready.unwrap_or(true);
        match (ready, self.serving.unwrap_or(ready) && self.terminating.unwrap_or(false)) {
            (true, _) => State::Ready,
            (false, true) => State::Ending,
            (false, false) => State::NotReady,
        }
    }
}

/// A port without a number stands for all, which no Service's port is; nor is one that is no number of a port.
fn tcp(ports: Option<Vec<Port>>) -> Vec<(String, u16)> {
    let ports = ports.into_iter().flatten().filter(|port| port.protocol.as_deref().is_none_or(|p| p == "TCP"));
    let numbered = ports.filter_map(|port| {
        let number = port.port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)?;
        Some((port.name.unwrap_or_default(), number))
    });
    numbered.collect()
}

fn parse(kind: &str, key: &str, text: &str) -> Result<IpAddr, String> {
    let parsed = text.parse::<IpAddr>().map(|ip| ip.to_canonical());
    parsed.map_err(|_| format!("{kind} {key} has the address {text:?}, which is none"))
}
