//! Objects that claim what is a file's, or another namespace's.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use ctrl::config::Loaded;
use ctrl::config::objects::Object;
use ctrl::resolve::Resolved;
use ctrl::services::cluster::{Led, fill};
use ctrl::services::leaving::Leaving;
use ctrl::services::{assemble, shown};
use serde_json::{Value, json};

use crate::{Node, WID, at, workload};

fn service(spec: Value) -> Object {
    Object { uid: "u".into(), generation: 1, value: json!({ "spec": spec }) }
}

/// Each virtual address with those that take its calls, `shop/backend` being 10.96.0.1:80 in the cluster.
fn virtuals(loaded: &mut Loaded) -> Vec<String> {
    let at = |text: &str| text.parse().unwrap();
    let backend = Led {
        virtual_addresses: vec![(at("10.96.0.1:80"), vec![at("198.18.2.2:8080")])],
        endpoints: BTreeMap::from([(at("198.18.2.2:8080"), true)]),
        ..Led::default()
    };
    fill(loaded, &Arc::new(BTreeMap::from([("shop/backend".to_owned(), backend)])), &Leaving::default());
    let (services, _) = assemble(loaded, &Resolved::default(), &HashSet::new());
    let rows = shown(loaded, &services).into_iter();
    let all = rows.flat_map(|row| row.virtual_addresses.into_iter().map(move |v| (row.name.clone(), v)));
    all.map(|(name, v)| format!("{name} {} > {:?}", v.address, v.endpoints)).collect()
}

/// Whoever may write to one namespace must not send in plain, or to himself, what is called in another.
#[test]
fn a_service_object_takes_nobody_elses_address_away() {
    let file = "apiVersion: core.riptides.io/v1alpha1\nkind: Service\nmetadata: { name: file, namespace: node }\nspec:\n  \
                addresses: [{ address: 198.18.7.7, port: 80 }]\n  \
                virtualAddresses: [{ address: 203.0.113.7, port: 80 }]\n";
    let own = json!([{ "address": "198.18.9.9", "port": 80 }]);
    let endpoint = |ip: &str, port: u16| json!({ "addresses": [{ "address": ip, "port": port }] });
    let virt = |ip: &str, port: u16| {
        let it = json!([{ "address": ip, "port": port, "targetPorts": [80] }]);
        json!({ "addresses": own, "virtualAddresses": it })
    };
    let (of_file, of_shop) =
        ("node/file 203.0.113.7:80 > [198.18.7.7:80]", "shop/backend 10.96.0.1:80 > [198.18.2.2:8080]");
    let vip = "shop/vip 203.0.113.9:80 > [198.18.9.9:80]";
    let nowhere = "shop/vip 203.0.113.9:80 > []";
    let mut wrong = String::new();
    for (name, evil, want) in [
        ("nothing", endpoint("198.18.9.9", 80), vec![of_file, of_shop, vip]),
        ("a cluster IP as an endpoint", endpoint("10.96.0.1", 80), vec![of_file, of_shop, vip]),
        ("a cluster IP as a virtual address", virt("10.96.0.1", 80), vec![of_file, of_shop, vip]),
        ("a file's virtual address as an endpoint", endpoint("203.0.113.7", 80), vec![of_file, of_shop, vip]),
        ("a file's virtual address", virt("203.0.113.7", 80), vec![of_file, of_shop, vip]),
        ("a file's endpoint as a virtual address", virt("198.18.7.7", 80), vec![of_file, of_shop, vip]),
        (
            "another's endpoint as a virtual address",
            virt("198.18.2.2", 8080),
            vec!["evil/a 198.18.2.2:8080 > []", of_file, "shop/backend 10.96.0.1:80 > []", vip],
        ),
        ("an object's virtual address", virt("203.0.113.9", 80), vec!["evil/a 203.0.113.9:80 > []", of_file, of_shop]),
        ("an object's virtual address as an endpoint", endpoint("203.0.113.9", 80), vec![of_file, of_shop, nowhere]),
    ] {
        // The one that was there first, or all of them at once: as after a restart, and on a new node.
        for at_once in [false, true] {
            let mut node = Node::new();
            node.write("file.yaml", file);
            node.put("Service", "shop/backend", service(json!({ "kubernetes": { "name": "backend" } })));
            node.put("Service", "shop/vip", service(virt("203.0.113.9", 80)));
            if !at_once {
                node.settle().unwrap();
            }
            node.put("Service", "evil/a", service(evil.clone()));
            node.put("Service", "shop/new", service(endpoint("198.18.3.3", 80)));
            let found = virtuals(&mut node.settle().unwrap());
            if found != want || node.generations().get("shop/new") != Some(&1) {
                wrong += &format!("{name}, at once: {at_once}: {found:#?}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// An address that is given away by a file is not one that anybody who may write objects can be.
#[test]
fn a_workload_object_that_claims_a_files_virtual_address_stands_aside_and_no_other_does() {
    let file = "apiVersion: core.riptides.io/v1alpha1\nkind: Service\nmetadata: { name: file, namespace: node }\nspec:\n  \
                addresses: [{ address: 198.18.7.7, port: 80 }]\n  \
                virtualAddresses: [{ address: 203.0.113.7, port: 80 }]\n";
    let claims = |generation: u64, ip: &str| {
        let mut object = workload(generation, "evil/a");
        object.value["spec"]["selectors"] = json!([{ "net:ip": ip }]);
        object
    };
    for (name, before, stays) in [("new", None, None), ("changed", Some("198.18.9.9"), Some(1))] {
        let mut node = Node::new();
        node.write("file.yaml", file);
        if let Some(ip) = before {
            node.put(WID, "evil/a", claims(1, ip));
            node.settle().unwrap();
        }
        node.put(WID, "evil/a", claims(2, "203.0.113.7"));
        // Its name begins like the other's.
        node.put(WID, "evil/a-2", workload(1, "evil/a-2"));
        node.put(WID, "shop/b", workload(1, "shop/b"));
        node.put("Service", "shop/new", service(json!({ "addresses": [{ "address": "198.18.3.3", "port": 80 }] })));
        let loaded = node.settle().unwrap();
        assert!(loaded.services.iter().any(|service| service.virtual_addresses.len() == 1), "{name}");
        let mut want = at([("evil/a-2", 1), ("shop/b", 1), ("shop/new", 1)]);
        want.extend(stays.map(|generation| ("evil/a".to_owned(), generation)));
        assert_eq!(node.generations(), want, "{name}");
        let fault = node.fault(WID, "evil/a");
        assert!(fault.contains("203.0.113.7:80 is an address of workload evil/a (WorkloadIdentity evil/a)"), "{fault}");
        assert_eq!(node.ledger.faults.len(), 1, "{name}: {:?}", node.ledger.faults);
    }
}

#[test]
fn a_service_object_names_services_of_its_own_namespace() {
    let mut node = Node::new();
    node.put("Service", "evil/a", service(json!({ "kubernetes": { "namespace": "shop", "name": "backend" } })));
    node.put("Service", "shop/backend", service(json!({ "kubernetes": { "namespace": "shop", "name": "backend" } })));
    let mut loaded = node.settle().unwrap();
    assert_eq!(virtuals(&mut loaded), ["shop/backend 10.96.0.1:80 > [198.18.2.2:8080]"]);
    let want = "Service evil/a: error: spec.kubernetes.namespace: shop/backend is another namespace's; help: an object \
                names Services of its own namespace, evil";
    assert!(node.fault("Service", "evil/a").starts_with(want), "{}", node.fault("Service", "evil/a"));
}

#[test]
fn of_objects_that_contradict_each_other_and_come_at_once_one_stays() {
    let mut node = Node::new();
    for name in ["shop/a", "shop/b"] {
        node.put("Service", name, service(json!({ "kubernetes": { "name": "backend" } })));
    }
    let mut loaded = node.settle().unwrap();
    assert_eq!(virtuals(&mut loaded), ["shop/a 10.96.0.1:80 > [198.18.2.2:8080]"]);
    assert_eq!((node.fault("Service", "shop/a"), node.fault("Service", "shop/b").is_empty()), ("", false));
}
