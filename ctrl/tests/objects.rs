//! Objects of a cluster beside the files of a node: what is right is in force, each by itself.

mod claims;

use std::collections::BTreeMap;
use std::path::Path;

use ctrl::config::fetched::is_object;
use ctrl::config::objects::{Id, Ledger, Object};
use ctrl::config::{Diagnostic, Known, Loaded, reload_dir};
use serde_json::{Value, json};
use snapshot::Version;

const GATEWAY: &str = "apiVersion: sluice.dev/v1alpha1\nkind: Gateway\nmetadata: { name: node-a }\nspec:\n  trustDomain: example.com\n  \
                       ports: [{ interface: in0, side: inside }]\n  \
                       identity: { source: embedded, embedded: { directory: ca } }\n";

struct Node {
    directory: tempfile::TempDir,
    known: Known,
    ledger: Ledger,
}

fn id(kind: &'static str, name: &str) -> Id {
    (kind, name.to_owned())
}

fn workload(generation: u64, workload_id: &str) -> Object {
    let spec = json!({ "workloadID": workload_id, "selectors": [{ "k8s:label:app": "web" }],
        "allowedSPIFFEIDs": { "inbound": ["spiffe://example.com/caller"] } });
    Object { uid: "u".into(), generation, value: json!({ "spec": spec }) }
}

fn bundle(generation: u64, spec: Value) -> Object {
    Object { uid: "u".into(), generation, value: json!({ "spec": spec }) }
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Self { directory, known: Known::default(), ledger: Ledger::default() };
        node.write("gateway.yaml", GATEWAY);
        node
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn put(&mut self, kind: &'static str, name: &str, mut object: Object) {
        let (namespace, short) = name.split_once('/').unwrap();
        let group = if matches!(kind, "WorkloadIdentity" | "Service") { "core.riptides.io" } else { "sluice.dev" };
        object.value["apiVersion"] = json!(format!("{group}/v1alpha1"));
        object.value["kind"] = json!(kind);
        object.value["metadata"] = json!({ "name": short, "namespace": namespace });
        self.ledger.newest.insert(id(kind, name), object);
    }

    /// As the control process settles it.
    fn settle(&mut self) -> Result<Loaded, Vec<Diagnostic>> {
        let directory = self.directory.path().to_owned();
        let mut trial = self.ledger.trial(&directory);
        loop {
            self.known.objects = trial.decoded();
            match reload_dir(&directory, &mut self.known) {
                Ok(loaded) => {
                    self.ledger.adopt(trial);
                    return Ok(loaded);
                }
                Err(faults) if !trial.step_back(&faults) => return Err(faults),
                Err(_) => {}
            }
        }
    }

    fn generations(&self) -> BTreeMap<String, u64> {
        self.ledger.in_force.iter().map(|((_, name), one)| (name.clone(), one.object.generation)).collect()
    }

    fn fault(&self, kind: &'static str, name: &str) -> &str {
        self.ledger.faults.get(&id(kind, name)).map_or("", |fault| fault)
    }
}

fn at<const N: usize>(all: [(&str, u64); N]) -> BTreeMap<String, u64> {
    all.into_iter().map(|(name, generation)| (name.to_owned(), generation)).collect()
}

const WID: &str = "WorkloadIdentity";

#[test]
fn objects_are_read_as_files_are_and_named_where_a_file_would_be() {
    let mut node = Node::new();
    node.write("policy.yaml", "apiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: { name: b, namespace: shop }\n\
                               spec: { workloadID: shop/b, selectors: [{ net:ip: 198.18.1.2 }], allowedSPIFFEIDs: { inbound: [] } }\n");
    node.put(WID, "shop/a", workload(1, "shop/a"));
    node.put(WID, "shop/c", workload(1, "shop/c"));
    let loaded = node.settle().unwrap();
    let places: Vec<_> = loaded.identities.iter().map(|one| (one.name.as_str(), one.place.to_string())).collect();
    let want = [
        ("shop/a", "WorkloadIdentity shop/a".to_owned()),
        ("shop/b", "policy.yaml:1".into()),
        ("shop/c", "WorkloadIdentity shop/c".into()),
    ];
    assert_eq!(places, want);
    assert_eq!(loaded.identities[0].inbound.as_ref().unwrap().place.to_string(), "WorkloadIdentity shop/a");
    assert_eq!(loaded.identities[0].selectors[0].pods.as_ref().unwrap().to_string(), "k8s:label:app=web");
    // Gone there, gone here.
    node.ledger.newest.remove(&id(WID, "shop/a"));
    assert_eq!(node.settle().unwrap().identities.len(), 2);
    assert_eq!(node.generations(), at([("shop/c", 1)]));
}

#[test]
fn a_faulty_object_leaves_its_last_good_version_in_force_and_nobody_else_notices() {
    let mut node = Node::new();
    node.put(WID, "shop/a", workload(1, "shop/a"));
    node.put(WID, "shop/a-2", workload(1, "shop/a-2"));
    node.settle().unwrap();
    node.ledger.published(Version(7));
    let mut misspelt = workload(2, "shop/a");
    misspelt.value["spec"]["allowedSPIFFEIDs"] = json!({ "inbond": [] });
    node.put(WID, "shop/a", misspelt);
    node.put(WID, "shop/a-2", workload(2, "shop/two"));
    let mut wrong = workload(1, "shop/new");
    wrong.value["spec"]["connection"] = json!({ "tls": { "mode": "MUTUALLY" } });
    node.put(WID, "shop/new", wrong);
    let deep = (0..40).fold(json!("x"), |below, _| json!([below]));
    node.put("Policy", "shop/deep", bundle(1, deep));
    let loaded = node.settle().unwrap();
    assert_eq!(node.generations(), at([("shop/a", 1), ("shop/a-2", 2)]));
    assert_eq!(
        loaded.identities.iter().map(|one| one.workload_id.as_str()).collect::<Vec<_>>(),
        ["shop/a", "shop/two"]
    );
    let fault = node.fault(WID, "shop/a");
    let want = "WorkloadIdentity shop/a: error: spec.allowedSPIFFEIDs.inbond: there is no such field; help: did you mean inbound?";
    assert!(fault.starts_with(want), "{fault}");
    let fault = node.fault(WID, "shop/new");
    assert!(fault.contains("spec.connection.tls.mode: \"MUTUALLY\" is not allowed here"), "{fault}");
    assert!(node.fault("Policy", "shop/deep").contains("nested deeper than 32 levels"));
    assert_eq!(node.fault(WID, "shop/a-2"), "");
    let since = |node: &Node, name: &str| node.ledger.in_force[&id(WID, name)].since;
    assert_eq!((since(&node, "shop/a"), since(&node, "shop/a-2")), (Some(Version(7)), None));

    node.put(WID, "shop/a", workload(3, "shop/a"));
    node.settle().unwrap();
    assert_eq!((node.generations()["shop/a"], node.fault(WID, "shop/a")), (3, ""));
    assert_eq!(since(&node, "shop/a"), None, "it is in no snapshot yet");
}

#[test]
fn one_name_in_a_file_and_in_the_cluster_is_refused_where_it_came_last_and_both_are_named() {
    let file = "apiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: { name: a, namespace: shop }\n\
                spec: { workloadID: shop/file, selectors: [{ net:ip: 198.18.1.2 }], allowedSPIFFEIDs: { inbound: [] } }\n";
    let mut node = Node::new();
    node.write("policy.yaml", file);
    node.put(WID, "shop/a", workload(1, "shop/object"));
    node.put(WID, "shop/a-2", workload(1, "shop/a-2"));
    assert_eq!(node.settle().unwrap().identities[0].workload_id, "shop/file");
    assert_eq!(node.generations(), at([("shop/a-2", 1)]));
    let fault = node.fault(WID, "shop/a");
    assert!(fault.contains("WorkloadIdentity shop/a is given twice, first in policy.yaml:1"), "{fault}");

    // The file comes last: it is refused whole, as files are, and the object stays.
    std::fs::remove_file(node.directory.path().join("policy.yaml")).unwrap();
    assert_eq!(node.settle().unwrap().identities[0].workload_id, "shop/object");
    node.write("policy.yaml", file);
    let faults = node.settle().unwrap_err();
    assert!(faults[0].message.contains("given twice, first in policy.yaml:1"), "{faults:?}");
    assert_eq!(faults[0].file, "WorkloadIdentity shop/a");
    assert_eq!(node.generations(), at([("shop/a", 1), ("shop/a-2", 1)]));
}

#[test]
fn of_objects_that_contradict_each_other_the_newer_one_stands_aside() {
    let revoked = |id: &str| json!({ "trustDomain": "example.com", "revoked": { "spiffeIDs": [id] } });
    let mut node = Node::new();
    node.put("TrustBundle", "z/first", bundle(1, revoked("spiffe://example.com/x")));
    node.settle().unwrap();
    // By its name it comes before, and so the fault is found at the one that is in force.
    node.put("TrustBundle", "a/second", bundle(1, revoked("spiffe://example.com/y")));
    node.put(WID, "shop/a", workload(1, "shop/a"));
    node.settle().unwrap();
    assert_eq!(node.generations(), at([("z/first", 1), ("shop/a", 1)]));
    let fault = node.fault("TrustBundle", "a/second");
    assert!(fault.contains("TrustBundle z/first: error: spec.trustDomain: trust domain example.com has a TrustBundle already, a/second in TrustBundle a/second"), "{fault}");
    // It takes the place of the one that goes.
    node.ledger.newest.remove(&id("TrustBundle", "z/first"));
    node.settle().unwrap();
    assert_eq!(node.generations(), at([("a/second", 1), ("shop/a", 1)]));
}

#[test]
fn a_file_that_an_object_names_and_that_goes_leaves_what_it_held_in_force() {
    let pem = include_str!("../../deploy/examples/roots/partner.org.pem");
    let mut node = Node::new();
    node.write("partner.pem", pem);
    let roots = json!({ "trustDomain": "partner.org", "roots": [{ "file": "partner.pem" }] });
    node.put("TrustBundle", "shop/partner", bundle(1, roots));
    assert_eq!(node.settle().unwrap().bundles[0].roots.len(), 1);
    std::fs::remove_file(Path::new(node.directory.path()).join("partner.pem")).unwrap();
    assert_eq!(node.settle().unwrap().bundles[0].roots.len(), 1);
    assert!(node.fault("TrustBundle", "shop/partner").contains("\"partner.pem\": "));
    node.write("partner.pem", pem);
    node.settle().unwrap();
    assert_eq!(node.fault("TrustBundle", "shop/partner"), "");
}

#[test]
fn a_fault_of_one_is_not_taken_for_that_of_another_whose_name_begins_so() {
    let mut node = Node::new();
    let file = "apiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: { name: a-2, namespace: shop }\n\
                spec: { workloadID: shop/file, selectors: [{ net:ip: 198.18.1.2 }], allowedSPIFFEIDs: { inbound: [] } }\n";
    node.write("policy.yaml", file);
    for name in ["shop/a", "shop/a-2", "shop/a-2.b"] {
        node.put(WID, name, workload(1, name));
    }
    node.settle().unwrap();
    assert_eq!(node.generations(), at([("shop/a", 1), ("shop/a-2.b", 1)]));
}

#[test]
fn no_object_has_a_node_ask_itself_or_takes_the_room_of_what_its_files_have_fetched() {
    let mut node = Node::new();
    let url = "http://127.0.0.1/ca.crl";
    let file = format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: TrustBundle\nmetadata: {{ name: z }}\n\
         spec: {{ trustDomain: example.com, crls: [{{ url: \"{url}\" }}] }}\n"
    );
    node.write("own.yaml", &file);
    let spec = |domain: &str, url: &str, crls: Vec<Value>| json!({ "trustDomain": domain, "crls": crls, "endpoint": { "url": url, "profile": "https_web" } });
    node.put(
        "TrustBundle",
        "evil/a",
        bundle(1, spec("a.org", "https://169.254.169.254/latest", vec![json!({ "url": "http://a.org/" })])),
    );
    node.put(
        "TrustBundle",
        "evil/b",
        bundle(1, spec("b.org", "https://b.org/", vec![json!({ "url": "http://[::ffff:127.0.0.1]:6443/" })])),
    );
    let crls = |nth: usize| (0..31).map(|crl| json!({ "url": format!("http://d{nth}.org/{crl}") })).collect();
    for nth in 10..26 {
        let domain = format!("d{nth}.org");
        node.put(
            "TrustBundle",
            &format!("shop/d{nth}"),
            bundle(1, spec(&domain, &format!("https://{domain}/"), crls(nth))),
        );
    }
    let loaded = node.settle().unwrap();
    assert_eq!(loaded.bundles.iter().filter(|bundle| bundle.name == "default/z").count(), 1);
    // What names stand for is looked at when they are asked for: whose word it is has to be known then.
    for bundle in &loaded.bundles {
        let from_object = bundle.name != "default/z";
        let places = bundle.endpoint.iter().map(|one| &one.place).chain(bundle.crl_urls.iter().map(|one| &one.place));
        assert!(places.clone().count() > 0 && places.map(is_object).all(|is| is == from_object), "{}", bundle.name);
    }
    let want: Vec<_> = (10..25).map(|nth| (format!("shop/d{nth}"), 1)).collect();
    assert_eq!(node.generations(), want.into_iter().collect());
    for (name, want) in [
        ("evil/a", "spec.endpoint.url: https://169.254.169.254/latest would be the node itself, or its link"),
        ("evil/b", "spec.crls[0].url: http://[::ffff:127.0.0.1]:6443/ would be the node itself, or its link"),
        ("shop/d25", "with its 32 there are 517 endpoints and URLs of CRLs in all TrustBundles; at most 512 are asked"),
    ] {
        let fault = node.fault("TrustBundle", name);
        assert!(fault.contains(want), "{name}: {fault}");
    }
}
