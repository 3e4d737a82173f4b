//! A pod as the API writes it, as far as it matters here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::listed::{Object, Odd};
use crate::attest::pods::Pod;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Json {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    resource_version: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    service_account_name: Option<String>,
    #[serde(default)]
    host_network: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    phase: Option<String>,
    #[serde(rename = "podIPs", default)]
    pod_ips: Option<Vec<Address>>,
}

#[derive(Debug, Deserialize)]
struct Address {
    ip: String,
}

/// Pods of one node.
#[derive(Debug)]
pub enum Listed {}

impl Object for Listed {
    type Json = Json;
    type Kept = Pod;
    /// Nodes run some hundred at the most.
    const MOST: usize = 5_000;

    fn of(Json { metadata, spec, status }: Json) -> Result<(String, Option<Pod>), Odd> {
        let key = format!("{}/{}", metadata.namespace, metadata.name);
        // One that has ended keeps its address in the API, and may not any more.
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return Ok((key, None));
        }
        let parse = |address: &Address| {
            let parsed = address.ip.parse::<IpAddr>();
            parsed.map_err(|_| format!("pod {key} has the address {:?}, which is none", address.ip))
        };
        let addresses = status.pod_ips.iter().flatten().map(parse).collect::<Result<Vec<_>, String>>()?;
        let pod = Pod {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            service_account: spec.service_account_name.unwrap_or_else(|| "default".into()),
            labels: metadata.labels.unwrap_or_default(),
            addresses,
            host_network: spec.host_network.unwrap_or(false),
        };
        Ok((key, Some(pod)))
    }
}
