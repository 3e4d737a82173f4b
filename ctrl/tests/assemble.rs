//! From files, routes and names to the snapshot: the example on two nodes, and what contradicts itself.

mod counting;
mod example;

use std::path::PathBuf;

use counting::{NOW, id, identities};
use ctrl::assemble::{assemble, boot, wanted};
use ctrl::attest::attest;
use ctrl::config::{Loaded, load_files};
use ctrl::resolve::Resolved;
use ctrl::rotate::Refreshed;
use example::{EXAMPLE, GATEWAY, MAC, by_address, network, prefix, resolved};
use snapshot::policy::Endpoint;
use snapshot::{
    Bundle, EgressRule, IdPattern, Living, Place, ProxyHeaders, RuleId, RuleSource, SCHEMA, Service, Snapshot,
    SourceAddress, TlsMode, Unmatched, Version, Workload,
};

fn load(policy: &str) -> Loaded {
    load_files(&[(PathBuf::from("policy.yaml"), policy.into()), (PathBuf::from("gateway.yaml"), GATEWAY.into())])
        .unwrap_or_else(|faults| panic!("{}", faults.iter().map(|f| f.to_string()).collect::<String>()))
}

/// A WorkloadIdentity for each `name: selector entry`.
fn claiming(selectors: &[(&str, &str)]) -> Loaded {
    let one = |(name, selector): &(&str, &str)| {
        format!(
            "---\napiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: {{ name: {name} }}\n\
             spec: {{ workloadID: {name}, selectors: [{selector}], allowedSPIFFEIDs: {{ inbound: [] }} }}\n"
        )
    };
    load(&selectors.iter().map(one).collect::<String>())
}

#[tokio::test]
async fn the_example_by_address_gives_exactly_this_snapshot_on_the_callers_node() {
    let loaded = load(&by_address());
    let resolved = resolved(&loaded).await;
    let mut identities = identities();
    let wanted = wanted(&loaded, &network(), &resolved);
    assert_eq!(wanted.iter().map(|w| &w.id).collect::<Vec<_>>(), [&id("myapp/app/frontend")]);
    assert_ne!(identities.refresh(&wanted, NOW), Refreshed::Nothing);
    let (snapshot, keys, warnings) = assemble(&loaded, &network(), &resolved, &identities, Version(7), NOW).unwrap();
    let exact = |path: &str| IdPattern::Exact(format!("spiffe://example.com/{path}"));
    let rule = |name: &str, line: u32| RuleSource {
        name: format!("riptides-system/{name}"),
        place: format!("policy.yaml:{line}"),
    };
    let backend = Workload {
        name: "riptides-system/backend-api".into(),
        spiffe_id: "spiffe://example.com/myapp/app/backend-api".into(),
        places: vec![],
        svid: None,
        mode: TlsMode::Mutual,
        ports: vec![],
        inbound: Some(vec![exact("myapp/app/frontend")]),
        inbound_rule: RuleId(0),
        outbound: None,
        outbound_rule: RuleId(1),
        egress: vec![],
        policies: vec![],
        unmatched_egress: Unmatched::Pass,
        unmatched_rule: None,
        proxy: ProxyHeaders::default(),
        living: Living::default(),
        bypass: vec![],
        mode_rules: vec![],
        resumption: Default::default(),
    };
    let place = Place { interface: "in0".into(), prefix: prefix("198.18.1.2/32"), mac: Some(MAC), processes: vec![] };
    let frontend = Workload {
        name: "riptides-system/frontend".into(),
        spiffe_id: "spiffe://example.com/myapp/app/frontend".into(),
        places: vec![place],
        svid: identities.svid(&id("myapp/app/frontend")).map(|(svid, _)| svid.clone()),
        mode: TlsMode::Permissive,
        ports: vec![],
        inbound: None,
        inbound_rule: RuleId(2),
        outbound: Some(vec![exact("myapp/app/backend-api")]),
        outbound_rule: RuleId(3),
        egress: vec![EgressRule {
            id: RuleId(4),
            services: vec![0],
            mode: Some(TlsMode::Mutual),
            allowed: Some(vec![exact("myapp/app/backend-api")]),
            source: SourceAddress::Preserve,
        }],
        policies: vec![],
        unmatched_egress: Unmatched::Refuse,
        unmatched_rule: Some(RuleId(3)),
        proxy: ProxyHeaders::default(),
        living: Living::default(),
        bypass: vec![],
        mode_rules: vec![(0, RuleId(5))],
        resumption: Default::default(),
    };
    let host = "backend-api.myapp.svc.cluster.local";
    let endpoint = Endpoint { address: "198.18.2.2:3000".parse().unwrap(), host: Some(host.into()) };
    assert_eq!(
        snapshot,
        Snapshot {
            schema: SCHEMA,
            version: Version(7),
            node: "node-a".into(),
            trust_domain: "example.com".into(),
            workloads: vec![backend, frontend],
            services: vec![Service {
                name: "riptides-system/backend-api-svc".into(),
                endpoints: vec![endpoint],
                virtual_addresses: vec![]
            }],
            policies: vec![],
            bundles: vec![Bundle { trust_domain: "example.com".into(), roots: vec![vec![1]] }],
            revoked: vec![],
            rules: vec![
                rule("backend-api spec.allowedSPIFFEIDs.inbound", 31),
                rule("backend-api spec.allowedSPIFFEIDs.outbound (none)", 14),
                rule("frontend spec.allowedSPIFFEIDs.inbound (none)", 33),
                rule("frontend spec.allowedSPIFFEIDs.outbound", 50),
                rule("frontend spec.egress[0]", 52),
                rule("frontend spec.connection.tls.mode (PERMISSIVE)", 47),
            ],
            unmatched_egress: Unmatched::Pass,
            assembled_at: NOW,
            living: Living::default(),
            audit: None,
        }
    );
    assert_eq!(keys.len(), 1);
    assert_eq!(Some(keys[0].0), snapshot.workloads[1].svid.as_ref().map(|svid| svid.key));
    assert!(warnings.is_empty(), "{warnings:?}");
    let again = assemble(&loaded, &network(), &resolved, &identities, Version(7), NOW).unwrap();
    assert_eq!(again.0, snapshot);
    let from_the_node = by_address().replacen("  egress:\n    - ", "  egress:\n    - source: node\n      ", 1);
    let (changed, ..) = assemble(&load(&from_the_node), &network(), &resolved, &identities, Version(7), NOW).unwrap();
    assert_eq!(changed.workloads[1].egress[0].source, SourceAddress::Node);
    assert!(!format!("{:?}", (&keys, &identities)).contains("165, 165"), "0xa5 is the private key");
}

#[tokio::test]
async fn the_workload_that_serves_a_name_gets_it_as_a_dns_san() {
    let loaded = load(&by_address());
    let mut there = network();
    // Node b: the backend is behind in0.
    there.routes[1].prefix = prefix("198.18.2.0/24");
    let wanted = wanted(&loaded, &there, &resolved(&loaded).await);
    assert_eq!(wanted.len(), 1);
    assert_eq!(wanted[0].id, id("myapp/app/backend-api"));
    assert_eq!(wanted[0].dns_names, ["backend-api.myapp.svc.cluster.local"]);
}

#[tokio::test]
async fn the_example_as_it_stands_assembles_and_attests_nobody() {
    let loaded = load(EXAMPLE);
    let resolved = resolved(&loaded).await;
    assert!(wanted(&loaded, &network(), &resolved).is_empty());
    let (snapshot, keys, _) = assemble(&loaded, &network(), &resolved, &identities(), Version(1), NOW).unwrap();
    assert!(snapshot.workloads.iter().all(|workload| workload.places.is_empty()) && keys.is_empty());
}

#[test]
fn a_selector_binds_the_addresses_that_the_kernel_routes_to_an_inside_port() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("{ net:ip: 198.18.1.2 }", &["198.18.1.2/32"], "198.18.1.2/32 behind in0, by the kernel's route 198.18.1.0/24"),
        ("{ net:ip: 198.18.2.2 }", &[], "198.18.2.2/32 is on another node: its route 0.0.0.0/0 leads over out0"),
        ("{ net:ip: \"2001:db8:2::2\" }", &[], "no route to 2001:db8:2::2/128 leads over a port of this node"),
        (
            "{ net:cidr: 198.18.1.64/26 }",
            &["198.18.1.64/26"],
            "198.18.1.64/26 behind in0, by the kernel's route 198.18.1.0/24",
        ),
        ("{ net:cidr: 198.18.0.0/16 }", &[], "198.18.0.0/16 is on another node: its route 0.0.0.0/0 leads over out0"),
        (
            "{ net:interface: in0 }",
            &["198.18.1.0/24", "198.18.9.0/24", "2001:db8:1::/64"],
            "198.18.1.0/24, 198.18.9.0/24, 2001:db8:1::/64 behind in0, by the kernel's routes",
        ),
        (
            "{ net:interface: in0, net:ip: 198.18.7.7 }",
            &["198.18.7.7/32"],
            "198.18.7.7/32 behind in0, as the selector says",
        ),
        (
            "{ net:interface: in0, net:cidr: 198.18.7.0/24, net:ip: 198.18.8.1 }",
            &[],
            "net:ip 198.18.8.1 is not in net:cidr 198.18.7.0/24, so the entry matches nothing",
        ),
        ("{ net:interface: eth9 }", &[], "eth9 is no port of this node, so the entry matches nothing"),
        ("{ net:ip: 198.18.1.2, k8s:pod:name: x }", &[], "no pod of this node has k8s:pod:name=x"),
        // Entries are ORed.
        (
            "{ k8s:pod:name: x }, { net:ip: 198.18.1.3 }, { net:ip: 198.18.1.3 }",
            &["198.18.1.3/32"],
            "no pod of this node has k8s:pod:name=x",
        ),
        (
            "{ net:ip: 198.18.1.2, process:uid: 7, process:gid: 8 }",
            &["198.18.1.2/32"],
            "198.18.1.2/32 behind in0, by the kernel's route 198.18.1.0/24; of it, processes with process:uid 7 and process:gid 8, asked at each call",
        ),
        // There is one inside port.
        (
            "{ process:uid: 7 }",
            &["198.18.1.0/24", "198.18.9.0/24", "2001:db8:1::/64"],
            "198.18.1.0/24, 198.18.9.0/24, 2001:db8:1::/64 behind in0, by the kernel's routes; of it, processes with process:uid 7, asked at each call",
        ),
    ];
    for (selectors, want, evidence) in cases {
        let loaded = claiming(&[("a", selectors)]);
        let found = attest(&loaded.identities[0], &loaded.gateway, &network()).unwrap();
        let places: Vec<_> = found.places.iter().map(|place| place.prefix.to_string()).collect();
        assert_eq!(places, *want, "{selectors}");
        assert!(found.places.iter().all(|place| place.interface == "in0"));
        assert_eq!(found.evidence[0], *evidence, "{selectors}");
    }
}

#[test]
fn claims_that_contradict_each_other_are_refused_with_both_names() {
    let cases: &[(&[(&str, &str)], &str)] = &[
        (
            &[("a", "{ net:ip: 198.18.1.2 }"), ("b", "{ net:interface: in0, net:cidr: 198.18.1.2/32 }")],
            "policy.yaml:7:1: error: spec.selectors: 198.18.1.2/32 on in0 is claimed by default/a (policy.yaml:2) and by default/b (policy.yaml:7)",
        ),
        (
            &[("a", "{ net:interface: out0 }")],
            "policy.yaml:5:36: error: spec.selectors[0]: default/a: out0 is an outside port; workloads are behind inside ports only",
        ),
        // Whoever sends from there would be both.
        (
            &[("a", "{ net:ip: 198.18.1.2 }"), ("b", "{ net:interface: in0, net:ip: 198.18.1.2, process:uid: 7 }")],
            "policy.yaml:7:1: error: spec.selectors: 198.18.1.2/32 on in0 is claimed by default/a (policy.yaml:2) and by default/b (policy.yaml:7)",
        ),
    ];
    for (claims, want) in cases {
        let loaded = claiming(claims);
        let faults = assemble(&loaded, &network(), &Resolved::default(), &identities(), Version(1), NOW).unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.headline()).collect::<Vec<_>>(), [*want]);
    }
    // One inside another is none: the longer prefix wins.
    let nested = claiming(&[("a", "{ net:ip: 198.18.1.2 }"), ("b", "{ net:cidr: 198.18.1.0/24 }")]);
    assert!(assemble(&nested, &network(), &Resolved::default(), &identities(), Version(1), NOW).is_ok());
}

#[test]
fn processes_tell_workloads_of_one_place_apart_and_an_entry_without_them_is_enough() {
    let of = |claims: &[(&str, &str)]| {
        let loaded = claiming(claims);
        assemble(&loaded, &network(), &Resolved::default(), &identities(), Version(1), NOW).unwrap().0
    };
    let users = |snapshot: &Snapshot, at: usize| {
        let places = &snapshot.workloads[at].places;
        assert_eq!(places.len(), 1);
        places[0].processes.iter().map(|one| (one.uid, one.place.clone())).collect::<Vec<_>>()
    };
    let two = of(&[
        ("a", "{ net:ip: 198.18.1.2, process:uid: 7 }, { net:ip: 198.18.1.2, process:uid: 8 }"),
        ("b", "{ net:ip: 198.18.1.2, process:uid: 9 }"),
    ]);
    let line = |line: u32| format!("policy.yaml:{line}");
    assert_eq!(users(&two, 0), [(Some(7), line(5)), (Some(8), line(5))]);
    assert_eq!(users(&two, 1), [(Some(9), line(10))]);
    let whoever = of(&[("a", "{ net:ip: 198.18.1.2, process:uid: 7 }, { net:ip: 198.18.1.2 }")]);
    assert_eq!(users(&whoever, 0), []);
    // Where there are several inside ports, one has to be named.
    let gateway = GATEWAY.replace("  ports:\n", "  ports:\n    - { interface: in1, side: inside }\n");
    assert_ne!(gateway, GATEWAY);
    let policy = "apiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: { name: a }\n\
                  spec: { workloadID: a, selectors: [{ process:uid: 7 }], allowedSPIFFEIDs: { inbound: [] } }\n";
    let loaded = load_files(&[(PathBuf::from("policy.yaml"), policy.into()), (PathBuf::from("g.yaml"), gateway)]);
    let faults =
        attest(&loaded.as_ref().unwrap().identities[0], &loaded.as_ref().unwrap().gateway, &network()).unwrap_err();
    assert_eq!(
        faults[0].headline(),
        "policy.yaml:4:36: error: spec.selectors[0]: default/a: the entry names no port for its processes: add net:interface, one of in1, in0"
    );
}

#[test]
fn an_unmatched_call_gets_the_nearest_word_about_it_and_the_word_is_named() {
    use Unmatched::{Pass, Refuse};
    let of = |name: &str, field: &str, line: u32| Some(format!("{name} spec.{field} ({line})"));
    let (own, listed) = (of("default/a", "unmatchedEgress", 4), of("default/a", "allowedSPIFFEIDs.outbound", 4));
    let node_says = of("Gateway node-a", "unmatchedEgress", 15);
    for (workload, list, node, want, rule) in [
        ("", "", "", Pass, None),
        ("", ", outbound: []", "", Refuse, listed.clone()),
        ("", ", outbound: []", "  unmatchedEgress: pass\n", Refuse, listed),
        ("", "", "  unmatchedEgress: refuse\n", Refuse, node_says.clone()),
        ("", "", "  unmatchedEgress: pass\n", Pass, node_says),
        ("unmatchedEgress: pass, ", ", outbound: []", "  unmatchedEgress: refuse\n", Pass, own.clone()),
        ("unmatchedEgress: refuse, ", "", "", Refuse, own),
    ] {
        let policy = format!(
            "apiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: {{ name: a }}\n\
             spec: {{ workloadID: a, {workload}selectors: [], allowedSPIFFEIDs: {{ inbound: []{list} }} }}\n"
        );
        let files = [(PathBuf::from("p.yaml"), policy.clone()), (PathBuf::from("g.yaml"), format!("{GATEWAY}{node}"))];
        let loaded = load_files(&files).unwrap();
        let (snapshot, ..) =
            assemble(&loaded, &network(), &Resolved::default(), &identities(), Version(1), NOW).unwrap();
        let said = &snapshot.workloads[0];
        let named = said.unmatched_rule.map(|id| &snapshot.rules[id.0 as usize]).map(|source| {
            let (_, line) = source.place.split_once(':').unwrap();
            format!("{} ({line})", source.name)
        });
        assert_eq!((said.unmatched_egress, named), (want, rule), "{policy}{node}");
    }
}

#[test]
fn policies_name_workloads_by_name_and_by_id_and_their_rules_stand_in_order_with_their_places() {
    let policy = |name: &str, whom: &str| {
        format!(
            "---\napiVersion: sluice.dev/v1alpha1\nkind: Policy\nmetadata: {{ name: {name} }}\nspec:\n  \
             workloads: [{whom}]\n  rules:\n    - {{ action: deny, direction: inbound }}\n    \
             - {{ action: deny, direction: outbound }}\n"
        )
    };
    let by_name = policy("z", "riptides-system/frontend");
    let by_id = policy("b", "spiffe://example.com/myapp/*");
    let exact = policy("a", "spiffe://example.com/myapp/app/backend-api");
    let loaded = load(&format!("{}{by_name}{by_id}{exact}", by_address()));
    let (snapshot, ..) = assemble(&loaded, &network(), &Resolved::default(), &identities(), Version(1), NOW).unwrap();
    let names: Vec<_> = snapshot.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["default/a", "default/b", "default/z"], "in the order of their names");
    let [backend, frontend] = snapshot.workloads.as_slice() else { panic!("two workloads") };
    assert_eq!((backend.policies.as_slice(), frontend.policies.as_slice()), (&[0, 1][..], &[1, 2][..]));
    let named: Vec<_> =
        snapshot.policies.iter().map(|policy| snapshot.rules[policy.first.0 as usize + 1].clone()).collect();
    let lines = [86, 77, 68].map(|line| format!("policy.yaml:{line}"));
    for ((rule, name), place) in named.iter().zip(["a", "b", "z"]).zip(&lines) {
        assert_eq!((rule.name.as_str(), &rule.place), (format!("default/{name} spec.rules[1]").as_str(), place));
    }
}

#[test]
fn a_dataplane_is_started_with_what_the_gateway_says() {
    let boot = boot(&load(EXAMPLE).gateway);
    assert_eq!((boot.node.as_str(), boot.ports.len(), boot.cores.0.as_slice()), ("node-a", 2, &[0][..]));
    assert_eq!(boot.pin_directory, "/sys/fs/bpf/sluice/node-a");
}

#[tokio::test]
async fn hosts_answer_before_the_resolver_and_a_name_nobody_knows_is_a_warning() {
    let policy = format!("{}---\n{}", by_address(), SERVICE);
    let loaded = load(&policy);
    let resolved = resolved(&loaded).await;
    let host = "backend-api.myapp.svc.cluster.local";
    assert_eq!(resolved.addresses(host).collect::<Vec<_>>(), ["198.18.2.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(resolved.addresses("localhost").next(), Some("127.0.0.1".parse().unwrap()));
    let (snapshot, _, warnings) = assemble(&loaded, &network(), &resolved, &identities(), Version(1), NOW).unwrap();
    let names: Vec<_> = snapshot.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["default/other", "riptides-system/backend-api-svc"]);
    assert_eq!(snapshot.workloads[1].egress[0].services, [1], "indices follow the sorted names");
    let literal = snapshot.services[0].endpoints.iter().find(|endpoint| endpoint.host.is_none()).unwrap();
    assert_eq!(literal.address, "[2001:db8::7]:443".parse().unwrap());
    let unknown = warnings.iter().find(|warning| warning.message.contains("nowhere.invalid")).unwrap();
    assert_eq!((unknown.file.as_str(), unknown.path.as_str()), ("policy.yaml", "spec.addresses"));
}

const SERVICE: &str = "apiVersion: core.riptides.io/v1alpha1\nkind: Service\nmetadata: { name: other }\nspec:\n  \
    addresses:\n    - { address: localhost, port: 80 }\n    - { address: \"2001:db8::7\", port: 443 }\n    \
    - { address: nowhere.invalid, port: 1 }\n  labels: { app: myapp, service: other }\n";
