//! Objects as an API server has them, and the lists that they are in.

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub const PODS: &str = "/api/v1/pods";
pub const WORKLOADS: &str = "/apis/core.riptides.io/v1alpha1/workloadidentities";
pub const POLICIES: &str = "/apis/sluice.dev/v1alpha1/policies";
pub const CLUSTER_SERVICES: &str = "/api/v1/services";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// One of our own.
pub fn resource(kind: &str, api_version: &str, name: &str, spec: Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    let metadata = json!({ "name": name, "namespace": namespace, "uid": format!("uid-of-{name}"),
        "managedFields": [{ "manager": "kubectl" }], "annotations": { "a": "b" } });
    json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec })
}

/// A pod that runs on `node`.
pub fn pod(name: &str, node: &str, address: &str, labels: &[(&str, &str)]) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    let labels: BTreeMap<_, _> = labels.iter().copied().collect();
    let ips: Vec<_> = [address].into_iter().filter(|address| !address.is_empty()).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-of-{name}"), "labels": labels },
        "spec": { "nodeName": node, "serviceAccountName": format!("{name}-account"), "containers": [{ "name": "main", "image": "none" }] },
        "status": { "phase": "Running", "podIP": address,
            "podIPs": ips.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>() },
    })
}

/// A Service of the cluster: its cluster IPs (none: headless), and its ports by name, number and protocol.
pub fn cluster_service(name: &str, ips: &[&str], ports: &[(&str, u16, &str)]) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    let ports = ports.iter().map(
        |(port, number, protocol)| json!({ "name": port, "port": number, "protocol": protocol, "targetPort": *port }),
    );
    let ips = if ips.is_empty() { &["None"] } else { ips };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-of-{name}") },
        "spec": { "type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips, "ports": ports.collect::<Vec<_>>(),
            "internalTrafficPolicy": "Cluster", "selector": { "app": name } },
    })
}

/// A slice of the Service's endpoints, each an address with what is in its place in the API beside it.
pub fn slice(name: &str, service: &str, ports: &[(&str, u16)], endpoints: &[(&str, Value)]) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    let ports = ports.iter().map(|(port, number)| json!({ "name": port, "port": number, "protocol": "TCP" }));
    let family = if endpoints.iter().any(|(ip, _)| ip.contains(':')) { "IPv6" } else { "IPv4" };
    let endpoints = endpoints.iter().map(|(ip, conditions)| {
        json!({ "addresses": [ip], "conditions": conditions, "nodeName": "node-b",
            "targetRef": { "kind": "Pod", "name": "some" } })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
        "metadata": { "name": name, "namespace": namespace, "uid": format!("uid-of-{name}"),
            "labels": { "kubernetes.io/service-name": service } },
        "endpoints": endpoints.collect::<Vec<_>>(), "ports": ports.collect::<Vec<_>>(),
    })
}

pub fn ready() -> Value {
    json!({ "ready": true, "serving": true, "terminating": false })
}
