//! The definitions that a cluster is given: what the code generates, what a cluster takes, and no other word
//! about resources than the decoder's.

use std::path::{Path, PathBuf};

use ctrl::config::{Severity, parse_files};
use ctrl::crds::{KINDS, all, yaml};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

fn schema_of(kind: &str) -> Value {
    let crd = all().into_iter().find(|crd| crd["spec"]["names"]["kind"] == kind).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// What is wrong with a value, by the words that our schemas use; any other word is a fault of the schema.
fn violations(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let mut wrong = |why: String| found.push(format!("{path}: {why}"));
    for (word, says) in schema.as_object().unwrap() {
        match word.as_str() {
            "type" => {
                let fits = match says.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    other => panic!("{other} is no type"),
                };
                if !fits {
                    return wrong(format!("{value} is no {says}"));
                }
            }
            "x-kubernetes-int-or-string" if value.is_string() || value.is_i64() || value.is_u64() => {}
            "x-kubernetes-int-or-string" => wrong(format!("{value} is neither")),
            "enum" if says.as_array().unwrap().contains(value) => {}
            "enum" => wrong(format!("{value} is none of {says}")),
            "minimum" if value.as_i64() < says.as_i64() => wrong(format!("{value} is too small")),
            "maximum" if value.as_i64() > says.as_i64() => wrong(format!("{value} is too large")),
            "minLength" if value.as_str().unwrap_or_default().len() < says.as_u64().unwrap() as usize => {
                wrong("is too short".into());
            }
            "required" => {
                let missing =
                    says.as_array().unwrap().iter().filter(|name| value.get(name.as_str().unwrap()).is_none());
                missing.for_each(|name| wrong(format!("{name} is missing")));
            }
            "oneOf" => {
                let fits = |one: &&Value| {
                    one["required"].as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
                };
                if says.as_array().unwrap().iter().filter(fits).count() != 1 {
                    wrong(format!("not exactly one of {says}"));
                }
            }
            "minimum" | "maximum" | "minLength" | "properties" | "additionalProperties" | "items" | "format" => {}
            "x-kubernetes-preserve-unknown-fields" | "x-kubernetes-list-type" | "x-kubernetes-list-map-keys" => {}
            other => panic!("{path}: {other} is no word of ours"),
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let below = schema["properties"].get(name).or(schema.get("additionalProperties"));
        if let Some(below) = below {
            violations(below, value, &format!("{path}.{name}"), found);
        }
    }
    for (nth, value) in value.as_array().into_iter().flatten().enumerate() {
        violations(&schema["items"], value, &format!("{path}[{nth}]"), found);
    }
}

fn refused(resource: &Value) -> Vec<String> {
    let mut found = vec![];
    violations(&schema_of(resource["kind"].as_str().unwrap()), resource, "", &mut found);
    found
}

#[test]
fn the_file_that_is_delivered_is_what_the_code_generates() {
    let delivered = std::fs::read_to_string(root().join("deploy/kubernetes/crds.yaml")).unwrap();
    let generated = all().iter().map(yaml).collect::<Vec<_>>().join("---\n");
    assert!(delivered == generated, "run: target/release/sluice crds > deploy/kubernetes/crds.yaml");
    assert_eq!(documents(&delivered), all(), "YAML says what was meant");
}

/// kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions, "structural schema".
fn structural(schema: &Value, path: &str) {
    let is = |word: &str| schema.get(word).is_some();
    assert!(is("type") || schema["x-kubernetes-int-or-string"] == true, "{path} has no type");
    assert!(!(is("properties") && is("additionalProperties")), "{path} is a mapping of two kinds");
    assert_eq!(is("items"), schema["type"] == "array", "{path}");
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        structural(below, &format!("{path}.{name}"));
    }
    for word in ["items", "additionalProperties"].into_iter().filter(|word| is(word)) {
        structural(&schema[word], &format!("{path}.{word}"));
    }
    // A cluster would drop a misspelt field, and with it what it says.
    let kept = !is("properties") || schema["x-kubernetes-preserve-unknown-fields"] == true;
    assert!(kept || !path.starts_with("spec"), "{path} loses fields");
}

#[test]
fn a_cluster_takes_the_definitions_and_drops_nothing_of_a_spec() {
    for (crd, kind) in all().iter().zip(KINDS) {
        let version = &crd["spec"]["versions"][0];
        assert_eq!(crd["metadata"]["name"], format!("{}.{}", kind.plural, crd["spec"]["group"].as_str().unwrap()));
        assert_eq!(version["subresources"], json!({ "status": {} }));
        let schema = &version["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            structural(&schema["properties"][part], part);
        }
        for column in version["additionalPrinterColumns"].as_array().unwrap() {
            let path = column["jsonPath"].as_str().unwrap();
            let first = path.trim_start_matches('.').split('.').take(2).map(|part| part.split('[').next().unwrap());
            let mut of = schema.clone();
            for name in first.filter(|name| *name != "metadata" && *name != "creationTimestamp") {
                assert!(of["properties"].get(name).is_some(), "{path}: there is no {name}");
                of = of["properties"][name].clone();
            }
        }
    }
}

#[test]
fn every_example_that_the_decoder_takes_fits_its_schema() {
    let mut kinds = std::collections::BTreeSet::new();
    for directory in ["deploy/examples", "deploy/demo"] {
        for entry in std::fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "yaml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for resource in documents(&text).iter().filter(|resource| resource["kind"] != "Gateway") {
                assert_eq!(refused(resource), Vec::<String>::new(), "{} {}", path.display(), resource["metadata"]);
                kinds.insert(resource["kind"].to_string());
            }
        }
    }
    assert_eq!(kinds.len(), KINDS.len(), "{kinds:?}");
    // The reference of every field has no field that a schema does not know.
    let every = std::fs::read_to_string(root().join("deploy/examples/every-field.yaml")).unwrap();
    for resource in documents(&every) {
        known(&schema_of(resource["kind"].as_str().unwrap()), &resource, "");
    }
}

fn known(schema: &Value, value: &Value, path: &str) {
    for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata") {
        let below = schema["properties"].get(name).or(schema.get("additionalProperties"));
        known(below.unwrap_or_else(|| panic!("{path}.{name} is in no schema")), value, &format!("{path}.{name}"));
    }
    value.as_array().into_iter().flatten().for_each(|value| known(&schema["items"], value, path));
}

/// A good resource of each kind, and what is put at which place of it.
#[test]
fn what_has_the_wrong_shape_is_refused_by_both() {
    let resource = |kind: &str, version: &str, spec: Value| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "a", "namespace": "shop" }, "spec": spec });
    let workload = json!({
        "workloadID": "shop/a", "selectors": [{ "net:ip": "198.18.1.2" }], "allowedSPIFFEIDs": { "inbound": [] },
        "connection": { "tls": { "mode": "MUTUAL", "ports": { "80": "DISABLE" } } },
        "egress": [{ "selectors": [{ "app": "b" }] }],
    });
    let workload = resource("WorkloadIdentity", "core.riptides.io/v1alpha1", workload);
    let service = json!({ "addresses": [{ "address": "198.18.2.2", "port": 80 }], "labels": { "app": "b" } });
    let service = resource("Service", "core.riptides.io/v1alpha1", service);
    let in_cluster = json!({ "kubernetes": { "namespace": "shop", "name": "b" }, "labels": { "app": "b" } });
    let in_cluster = resource("Service", "core.riptides.io/v1alpha1", in_cluster);
    let policy =
        json!({ "workloads": ["shop/a"], "rules": [{ "action": "deny", "direction": "inbound", "ports": [80] }] });
    let policy = resource("Policy", "sluice.dev/v1alpha1", policy);
    let bundle = json!({ "trustDomain": "example.com", "revoked": { "serials": ["0a"] } });
    let bundle = resource("TrustBundle", "sluice.dev/v1alpha1", bundle);
    let cases: Vec<(&Value, &str, Value)> = vec![
        (&workload, "/spec/workloadID", json!(7)),
        (&workload, "/spec/workloadID", json!("")),
        (&workload, "/spec/workloadID", Value::Null),
        (&workload, "/spec/selectors", json!({})),
        (&workload, "/spec/selectors/0", json!("net:ip")),
        (&workload, "/spec/selectors/0/net:ip", json!([])),
        (&workload, "/spec/connection/tls/mode", json!("MUTUALLY")),
        (&workload, "/spec/connection/tls/ports/80", json!("mutual")),
        (&workload, "/spec/connection", json!([])),
        (&workload, "/spec/egress/0/selectors/0/app", json!(7)),
        (&workload, "/spec/egress/0/selectors", Value::Null),
        (&service, "/spec/addresses", Value::Null),
        (&service, "/spec/addresses/0/port", json!(0)),
        (&service, "/spec/addresses/0/port", json!(65_536)),
        (&service, "/spec/addresses/0/port", json!("80")),
        (&service, "/spec/labels/app", json!(true)),
        (&in_cluster, "/spec/kubernetes", Value::Null),
        (&in_cluster, "/spec/kubernetes/name", Value::Null),
        (&in_cluster, "/spec/kubernetes", json!({ "name": 7 })),
        (&in_cluster, "/spec", json!({ "addresses": [], "kubernetes": { "name": "b" } })),
        (&policy, "/spec/rules/0/action", json!("refuse")),
        (&policy, "/spec/rules/0/direction", Value::Null),
        (&policy, "/spec/rules/0/ports/0", json!({})),
        (&policy, "/spec/workloads", json!("shop/a")),
        (&bundle, "/spec/trustDomain", Value::Null),
        (&bundle, "/spec/revoked/serials/0", json!(12)),
        (&bundle, "/spec/revoked", json!([])),
    ];
    let decoded = |resource: &Value| -> Vec<String> {
        let file = (PathBuf::from("a.yaml"), serde_saphyr::to_string(resource).unwrap());
        let faults = parse_files(&[file]).err().into_iter().flatten();
        faults.filter(|fault| fault.severity == Severity::Error).map(|fault| fault.to_string()).collect()
    };
    for (good, at, value) in cases {
        assert_eq!((refused(good), decoded(good)), (vec![], vec![]));
        let mut bad = good.clone();
        // Null: it is not there.
        match (at.rsplit_once('/').unwrap(), value) {
            ((holder, name), Value::Null) => {
                bad.pointer_mut(holder).unwrap().as_object_mut().unwrap().remove(name).expect("it was there");
            }
            (_, value) => *bad.pointer_mut(at).expect(at) = value,
        }
        assert!(!decoded(&bad).is_empty(), "the decoder takes {at} {bad}");
        assert!(!refused(&bad).is_empty(), "the schema takes {at} {bad}");
    }
}

#[test]
fn the_role_that_is_delivered_allows_what_is_asked_for_and_no_more() {
    let text = std::fs::read_to_string(root().join("deploy/kubernetes/rbac.yaml")).unwrap();
    let role = documents(&text).into_iter().find(|document| document["kind"] == "ClusterRole").unwrap();
    let list = |value: &Value| value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect();
    let mut allowed = std::collections::BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let [groups, resources, verbs]: [Vec<String>; 3] =
            ["apiGroups", "resources", "verbs"].map(|name| list(&rule[name]));
        for (resource, verb) in resources.iter().flat_map(|resource| verbs.iter().map(move |verb| (resource, verb))) {
            allowed.extend(groups.iter().map(|group| format!("{verb} {resource} of {group:?}")));
        }
    }
    let mut asked = std::collections::BTreeSet::new();
    for (plural, group) in [("pods", ""), ("services", ""), ("endpointslices", "discovery.k8s.io")] {
        asked.extend(["list", "watch"].map(|verb| format!("{verb} {plural} of {group:?}")));
    }
    for kind in KINDS {
        let (group, plural) = (kind.group(), kind.plural);
        asked.extend(["list", "watch"].map(|verb| format!("{verb} {plural} of {group:?}")));
        asked.insert(format!("patch {plural}/status of {group:?}"));
    }
    assert_eq!(allowed, asked);
}
