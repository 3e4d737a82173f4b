//! The CustomResourceDefinitions of the kinds that a cluster holds, with the schemas that the decoders have
//! ([`crate::config::schema`]).
//!
//! `status` is written back by each node: one entry a node, so that no two write the same.

use serde_json::{Value, json};

use crate::config::decode::{Faults, Field};
use crate::config::resource::{Meta, RIPTIDES, SLUICE};
use crate::config::{Place, Policy, Service, TrustBundle, WorkloadIdentity, schema};

/// A kind as a cluster names it.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub kind: &'static str,
    pub plural: &'static str,
    short: &'static str,
    /// `group/version`.
    pub api_version: &'static str,
    /// Name, type, JSON path.
    columns: &'static [(&'static str, &'static str, &'static str)],
    schema: fn() -> Value,
}

pub const KINDS: [Kind; 4] = [
    Kind {
        kind: "WorkloadIdentity",
        plural: "workloadidentities",
        short: "wid",
        api_version: RIPTIDES,
        columns: &[("Workload ID", "string", ".spec.workloadID"), ("Mode", "string", ".spec.connection.tls.mode")],
        schema: || spec(WorkloadIdentity::decode),
    },
    Kind {
        kind: "Service",
        plural: "services",
        short: "rsvc",
        api_version: RIPTIDES,
        columns: &[("Addresses", "string", ".spec.addresses[*].address")],
        schema: || spec(Service::decode),
    },
    Kind {
        kind: "Policy",
        plural: "policies",
        short: "spol",
        api_version: SLUICE,
        columns: &[("Workloads", "string", ".spec.workloads")],
        schema: || spec(Policy::decode),
    },
    Kind {
        kind: "TrustBundle",
        plural: "trustbundles",
        short: "tb",
        api_version: SLUICE,
        columns: &[("Trust Domain", "string", ".spec.trustDomain")],
        schema: || spec(TrustBundle::decode),
    },
];

impl Kind {
    pub fn group(&self) -> &'static str {
        self.api_version.split('/').next().unwrap_or_default()
    }

    /// `workloadidentities.core.riptides.io`, which is also the name of the file that holds it.
    pub fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group())
    }
}

pub fn all() -> Vec<Value> {
    KINDS.iter().map(crd).collect()
}

/// As the files in deploy/kubernetes/crds have it.
pub fn yaml(crd: &Value) -> String {
    serde_saphyr::to_string(crd).expect("a definition is plain data")
}

fn spec<T>(decode: impl FnOnce(Meta, &Field<'_>, &mut Faults<'_>) -> T) -> Value {
    let place = Place { file: "".into(), line: 0, column: 0 };
    schema::of(|field, faults| decode(Meta { name: "any".into(), namespace: "any".into(), place }, field, faults))
}

fn crd(kind: &Kind) -> Value {
    let column = |(name, of, path): &(&str, &str, &str)| json!({ "name": name, "type": of, "jsonPath": path });
    let shared = [
        ("In Force", "string", ".status.nodes[*].conditions[?(@.type==\"InForce\")].status"),
        ("Age", "date", ".metadata.creationTimestamp"),
    ];
    let columns: Vec<_> = kind.columns.iter().chain(&shared).map(column).collect();
    let version = json!({
        "name": kind.api_version.rsplit('/').next(),
        "served": true,
        "storage": true,
        "schema": { "openAPIV3Schema": {
            "type": "object",
            "required": ["spec"],
            "properties": {
                "apiVersion": { "type": "string" },
                "kind": { "type": "string" },
                "metadata": { "type": "object" },
                "spec": (kind.schema)(),
                "status": status(),
            },
        } },
        "subresources": { "status": {} },
        "additionalPrinterColumns": columns,
    });
    let names = json!({
        "kind": kind.kind,
        "listKind": format!("{}List", kind.kind),
        "plural": kind.plural,
        "singular": kind.kind.to_lowercase(),
        "shortNames": [kind.short],
        "categories": ["sluice"],
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": kind.name() },
        "spec": { "group": kind.group(), "names": names, "scope": "Namespaced", "versions": [version] },
    })
}

/// What each node says about it. A condition is as `metav1.Condition` has it.
fn status() -> Value {
    let text = || json!({ "type": "string" });
    let condition = json!({
        "type": "object",
        "required": ["type", "status", "lastTransitionTime", "reason", "message"],
        "properties": {
            "type": text(),
            "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
            "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
            "lastTransitionTime": { "type": "string", "format": "date-time" },
            "reason": text(),
            "message": text(),
        },
    });
    let node = json!({
        "type": "object",
        "required": ["node"],
        "properties": {
            "node": text(),
            "snapshot": { "type": "integer", "format": "int64", "minimum": 0 },
            "conditions": {
                "type": "array",
                "items": condition,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        },
    });
    let nodes = json!({
        "type": "array",
        "items": node,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["node"],
    });
    json!({ "type": "object", "properties": { "nodes": nodes } })
}
