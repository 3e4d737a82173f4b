//! Which pods a `k8s:*` selector means, from the example to the snapshot, and what nobody may have.

mod counting;
mod example;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use counting::{NOW, identities};
use ctrl::assemble::{assemble, wanted};
use ctrl::attest::pods::{Filled, Pod, Pods, fill};
use ctrl::attest::{Attestation, attest};
use ctrl::config::kubernetes::PodId;
use ctrl::config::{Loaded, load_files};
use ctrl::resolve::Resolved;
use example::{GATEWAY, network, prefix};
use snapshot::{Cgroup, Link, Network, Route, Snapshot, Version};

/// A WorkloadIdentity for each `name: selector entry`, on a node that asks the API.
fn claiming(selectors: &[(&str, &str)]) -> Loaded {
    let one = |(name, selector): &(&str, &str)| {
        format!(
            "---\napiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: {{ name: {name} }}\n\
             spec: {{ workloadID: {name}, selectors: [{selector}], allowedSPIFFEIDs: {{ inbound: [] }} }}\n"
        )
    };
    let policy = selectors.iter().map(one).collect::<String>();
    let gateway = GATEWAY
        .replacen("spec:\n", "spec:\n  kubernetes: {}\n", 1)
        .replace("    - { interface: out0", "    - { interface: in1, side: inside }\n    - { interface: out0");
    load_files(&[(PathBuf::from("policy.yaml"), policy), (PathBuf::from("gateway.yaml"), gateway)])
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(|f| f.to_string()).collect::<String>()))
}

fn pod(name: &str, addresses: &[&str], labels: &[(&str, &str)]) -> Pod {
    let (namespace, name) = name.split_once('/').unwrap();
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        resource_version: "7".into(),
        service_account: format!("{name}-account"),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        host_network: false,
    }
}

fn pods(all: impl IntoIterator<Item = Pod>) -> Pods {
    let named = all.into_iter().map(|pod| (format!("{}/{}", pod.namespace, pod.name), pod));
    Arc::new(named.collect::<BTreeMap<_, _>>())
}

/// The example's node with a second inside port, behind which is 198.18.5.0/24.
fn two_ports() -> Network {
    let mut network = network();
    network.links.push(Link { name: "in1".into(), index: 7, ..network.links[0].clone() });
    network.routes.push(Route { prefix: prefix("198.18.5.0/24"), interface: 7, ..network.routes[1].clone() });
    network
}

fn found(selectors: &str, pods: &Pods) -> Attestation {
    let mut loaded = claiming(&[("a", selectors)]);
    fill(&mut loaded, pods);
    attest(&loaded.identities[0], &loaded.gateway, &two_ports()).unwrap()
}

fn places(attestation: &Attestation) -> Vec<String> {
    attestation.places.iter().map(|place| format!("{} on {}", place.prefix, place.interface)).collect()
}

#[test]
fn a_selector_means_the_pods_that_have_all_its_keys_and_says_which() {
    let web = [("app", "web"), ("tier", "front"), ("empty", "")];
    let all = pods([
        pod("shop/web-1", &["198.18.1.2", "2001:db8:1::2"], &web),
        pod("shop/web-2", &["198.18.5.2"], &web),
        pod("other/web-1", &["198.18.1.9"], &[("app", "web")]),
        pod("shop/young", &[], &[("app", "young")]),
        pod("shop/far", &["198.18.9.200"], &[("app", "far")]),
        Pod { host_network: true, ..pod("shop/host", &["198.18.1.1"], &[("app", "host")]) },
    ]);
    let one = "pod shop/web-1 (uid uid-web-1, resourceVersion 7): 198.18.1.2/32 behind in0, by the kernel's route 198.18.1.0/24, \
               2001:db8:1::2/128 behind in0, by the kernel's route 2001:db8:1::/64";
    let two = "pod shop/web-2 (uid uid-web-2, resourceVersion 7): 198.18.5.2/32 behind in1, by the kernel's route 198.18.5.0/24";
    let both = format!("{one}; {two}");
    let one_at = ["198.18.1.2/32 on in0", "2001:db8:1::2/128 on in0"];
    let cases: &[(&str, &[&str], &str)] = &[
        ("{ k8s:pod:name: web-1, k8s:pod:namespace: shop }", &one_at, one),
        ("{ k8s:pod:uid: uid-web-2 }", &["198.18.5.2/32 on in1"], two),
        ("{ k8s:pod:serviceAccount: web-2-account }", &["198.18.5.2/32 on in1"], two),
        // Replicas have one identity, whichever ports they are behind.
        (
            "{ k8s:pod:namespace: shop, k8s:label:app: web, k8s:label:empty: \"\" }",
            &["198.18.1.2/32 on in0", "2001:db8:1::2/128 on in0", "198.18.5.2/32 on in1"],
            &both,
        ),
        (
            "{ k8s:label:app: web, k8s:label:tier: back }",
            &[],
            "no pod of this node has k8s:label:app=web k8s:label:tier=back",
        ),
        ("{ k8s:label:missing: \"\" }", &[], "no pod of this node has k8s:label:missing="),
        // With the entry's other keys.
        (
            "{ k8s:label:tier: front, net:interface: in1 }",
            &["198.18.5.2/32 on in1"],
            "pod shop/web-1 (uid uid-web-1, resourceVersion 7): 198.18.1.2/32 behind in0, by the kernel's route 198.18.1.0/24, not in1, \
             2001:db8:1::2/128 behind in0, by the kernel's route 2001:db8:1::/64, not in1; pod shop/web-2 (uid uid-web-2, \
             resourceVersion 7): 198.18.5.2/32 behind in1, by the kernel's route 198.18.5.0/24",
        ),
        (
            "{ k8s:pod:name: web-2, net:cidr: 198.18.1.0/24 }",
            &[],
            "pod shop/web-2 (uid uid-web-2, resourceVersion 7): 198.18.5.2/32 is not in net:cidr 198.18.1.0/24",
        ),
        (
            "{ k8s:pod:name: web-2, net:ip: 198.18.1.2 }",
            &[],
            "pod shop/web-2 (uid uid-web-2, resourceVersion 7): 198.18.5.2/32 is not net:ip 198.18.1.2",
        ),
        (
            "{ k8s:pod:name: web-2, process:uid: 7 }",
            &["198.18.5.2/32 on in1"],
            "pod shop/web-2 (uid uid-web-2, resourceVersion 7): 198.18.5.2/32 behind in1, by the kernel's route 198.18.5.0/24; of it, \
             processes with process:uid 7, asked at each call",
        ),
        // What attests nobody.
        ("{ k8s:label:app: young }", &[], "pod shop/young (uid uid-young, resourceVersion 7): has no address yet"),
        (
            "{ k8s:label:app: host }",
            &[],
            "pod shop/host (uid uid-host, resourceVersion 7): is in the host's network: its address is the node's, and attests nobody",
        ),
        (
            "{ k8s:label:app: far }",
            &[],
            "pod shop/far (uid uid-far, resourceVersion 7): 198.18.9.200/32 is on another node: its route 198.18.9.128/25 leads over out0",
        ),
        (
            "{ k8s:container:name: x, k8s:label:app: web }",
            &[],
            "k8s:container:name: x is not attested here, so the entry matches nothing",
        ),
    ];
    for (selectors, want, evidence) in cases {
        let found = found(selectors, &all);
        assert_eq!(places(&found), *want, "{selectors}");
        assert_eq!(found.evidence, [*evidence], "{selectors}");
    }
    let asked = found("{ k8s:pod:name: web-2, process:uid: 7 }", &all);
    assert_eq!(asked.places[0].processes.len(), 1, "the address alone is not enough");
}

#[test]
fn new_pods_are_told_from_new_evidence_and_from_nothing_new() {
    let mut loaded = claiming(&[("a", "{ k8s:label:app: web }"), ("b", "{ net:ip: 198.18.1.3 }")]);
    let web = |address: &str| pod("shop/web", &[address], &[("app", "web")]);
    let other = pod("shop/other", &["198.18.1.7"], &[]);
    assert_eq!(fill(&mut loaded, &pods([])), Filled::Nothing);
    assert_eq!(fill(&mut loaded, &pods([web("198.18.1.2")])), Filled::Places);
    assert_eq!(fill(&mut loaded, &pods([web("198.18.1.2"), other])), Filled::Nothing);
    let newer = Pod { resource_version: "8".into(), ..web("198.18.1.2") };
    assert_eq!(fill(&mut loaded, &pods([newer.clone()])), Filled::Evidence);
    let successor = Pod { uid: "uid-next".into(), ..newer.clone() };
    assert_eq!(fill(&mut loaded, &pods([successor])), Filled::Places, "another pod by that name");
    assert_eq!(fill(&mut loaded, &pods([newer.clone()])), Filled::Places);
    let wanted = wanted(&loaded, &two_ports(), &Resolved::default());
    let of = |name: &str| wanted.iter().find(|one| one.workload == name).unwrap().pods.clone();
    let id = PodId { namespace: "shop".into(), name: "web".into(), uid: "uid-web".into() };
    assert_eq!((of("default/a"), of("default/b")), (vec![id], vec![]), "what a broker endpoint may be asked about");
    assert_eq!(fill(&mut loaded, &pods([Pod { labels: BTreeMap::new(), ..newer }])), Filled::Places);
}

fn snapshot(loaded: &Loaded) -> (Snapshot, Vec<String>) {
    let (resolved, mut identities) = (Resolved::default(), identities());
    identities.refresh(&wanted(loaded, &two_ports(), &resolved), NOW);
    let assembled = assemble(loaded, &two_ports(), &resolved, &identities, Version(1), NOW);
    let (snapshot, _, warnings) = assembled.unwrap_or_else(|faults| panic!("{faults:#?}"));
    (snapshot, warnings.into_iter().map(|warning| warning.message).collect())
}

#[test]
fn an_address_that_two_may_have_is_nobodys_and_the_rest_of_the_node_goes_on() {
    let web = |address: &str| pod("shop/web", &[address], &[("app", "web")]);
    let at = |snapshot: &Snapshot, name: &str| -> Vec<String> {
        let workload = snapshot.workloads.iter().find(|w| w.name == format!("default/{name}")).unwrap();
        let nobodys = |place: &snapshot::Place| {
            let mut processes = place.processes.iter();
            processes.any(|process| process.cgroup == Some(Cgroup::Exact(String::new())))
        };
        let of = |place: &snapshot::Place| if nobodys(place) { " of nobody" } else { "" };
        workload.places.iter().map(|place| format!("{}{}", place.prefix, of(place))).collect()
    };
    // By two selectors, by a selector and an address.
    for other in ["{ k8s:pod:name: web }", "{ net:ip: 198.18.1.2 }", "{ k8s:pod:name: web, process:uid: 7 }"] {
        let mut loaded = claiming(&[("a", "{ k8s:label:app: web }, { net:ip: 198.18.1.4 }"), ("b", other)]);
        fill(&mut loaded, &pods([web("198.18.1.2")]));
        let (snapshot, warnings) = snapshot(&loaded);
        // It stays captured, since else MUTUAL would not protect it, and nobody calls from it.
        let protected = ["198.18.1.2/32 of nobody", "198.18.1.4/32"].map(str::to_owned).to_vec();
        assert_eq!((at(&snapshot, "a"), at(&snapshot, "b")), (protected.clone(), protected[..1].to_vec()), "{other}");
        let named = "198.18.1.2/32 is claimed by default/a (policy.yaml:2) and by default/b (policy.yaml:7): its calls are refused";
        assert!(warnings.iter().any(|warning| warning == named), "{other}: {warnings:?}");
    }
    // Where processes tell them apart, both have it.
    let mut loaded = claiming(&[
        ("a", "{ k8s:label:app: web, process:uid: 7 }"),
        ("b", "{ k8s:label:app: web, process:uid: 8 }"),
        ("c", "{ k8s:label:app: other }"),
    ]);
    fill(&mut loaded, &pods([web("198.18.1.2")]));
    let (of_both, warnings) = snapshot(&loaded);
    assert_eq!((at(&of_both, "a"), at(&of_both, "b")), (vec!["198.18.1.2/32".into()], vec!["198.18.1.2/32".into()]));
    assert!(!warnings.iter().any(|warning| warning.contains("claimed")), "{warnings:?}");

    // The API gives one address to two pods, of which one is meant.
    let other = pod("shop/other", &["198.18.1.2", "198.18.1.6"], &[("app", "other")]);
    fill(&mut loaded, &pods([web("198.18.1.2"), other]));
    let (of_nobody, _) = snapshot(&loaded);
    assert_eq!(at(&of_nobody, "a"), ["198.18.1.2/32 of nobody"]);
    assert_eq!(at(&of_nobody, "c")[0], "198.18.1.2/32 of nobody");
    let evidence = attest(&loaded.identities[2], &loaded.gateway, &two_ports()).unwrap().evidence;
    let want = "pod shop/other (uid uid-other, resourceVersion 7), attested by nothing at 198.18.1.2, which the API gives to shop/web too";
    assert!(evidence[0].starts_with(want), "{evidence:?}");
    // Gone, the other one has its address.
    fill(&mut loaded, &pods([web("198.18.1.2")]));
    assert_eq!(at(&snapshot(&loaded).0, "a"), ["198.18.1.2/32"]);
}
