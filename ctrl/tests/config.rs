//! What loads: the example, a directory of files, what a cluster adds, and files that are damaged.

mod words;

use std::path::PathBuf;

use ctrl::config::{
    Diagnostic, Gateway, IdentitySource, Known, Lifetimes, load_dir, load_files, load_texts, parse_files, reload_dir,
};
use snapshot::{IdPattern, ProxyProtocol, Resumption, SourceAddress, TlsMode};
use words::{EXAMPLE, GATEWAY, HERE, gateway, identity, load, words};

#[test]
fn the_example_loads_as_it_stands_beside_a_gateway() {
    let loaded = load(&[("policy.yaml", EXAMPLE), ("node/gateway.yaml", GATEWAY)]).unwrap();
    assert_eq!(loaded.gateway.name, "node-a");
    assert_eq!(
        loaded.gateway.identity[0].source,
        IdentitySource::Embedded { directory: "node/ca/node-a".into(), ttl: std::time::Duration::from_secs(3_600) }
    );
    let names: Vec<_> = loaded.identities.iter().map(|identity| identity.name.as_str()).collect();
    assert_eq!(names, ["riptides-system/backend-api", "riptides-system/frontend"]);
    let [backend, frontend] = loaded.identities.as_slice() else { panic!("two identities") };
    assert_eq!(backend.spiffe_id(&loaded.gateway.trust_domain).as_str(), "spiffe://example.com/myapp/app/backend-api");
    assert_eq!((backend.mode, frontend.mode), (TlsMode::Mutual, TlsMode::Permissive));
    assert_eq!(
        backend.inbound.as_ref().unwrap().patterns,
        [IdPattern::Exact("spiffe://example.com/myapp/app/frontend".into())]
    );
    assert_eq!(backend.daemon_group.as_deref(), Some("riptides/daemongroup/dev-eu-west-1/on-demand-workers"));
    assert_eq!(frontend.egress[0].mode, Some(TlsMode::Mutual));
    assert!(frontend.egress[0].selects(&loaded.services[0]));
    assert_eq!(
        words(&loaded.warnings),
        [
            "policy.yaml:22:7: warning: spec.selectors[0]: the Gateway has no `kubernetes`, so that no pod is known and this matches nothing \
             [add `kubernetes: {}` to the Gateway's spec, or select by net:* in an entry of its own]",
            "policy.yaml:43:7: warning: spec.selectors[0]: the Gateway has no `kubernetes`, so that no pod is known and this matches nothing \
             [add `kubernetes: {}` to the Gateway's spec, or select by net:* in an entry of its own]",
        ]
    );
}

#[test]
fn the_example_that_is_delivered_is_the_one_that_is_tested() {
    let delivered = include_str!("../../deploy/examples/frontend-backend.yaml");
    assert_eq!(delivered, EXAMPLE);
}

/// A directory with these files.
fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

#[test]
fn a_directory_is_read_whole_in_the_order_of_its_names() {
    let dir = directory(&[
        ("b.yml", EXAMPLE.as_bytes()),
        ("a.yaml", GATEWAY.as_bytes()),
        (".a.yaml.swp", b"not ours"),
        (".hidden.yaml", b"not ours"),
        ("notes.txt", b"not ours"),
    ]);
    let loaded = load_dir(dir.path()).unwrap();
    assert_eq!((loaded.identities.len(), loaded.services.len()), (2, 1));
    let ttl = std::time::Duration::from_secs(3_600);
    assert_eq!(
        loaded.gateway.identity[0].source,
        IdentitySource::Embedded { directory: dir.path().join("ca/node-a"), ttl }
    );
    assert_eq!(loaded.services[0].place.to_string(), "b.yml:1");
}

#[test]
fn a_directory_reports_the_faults_of_all_its_files() {
    let dir = directory(&[
        ("1.yaml", b"a: \xff\n"),
        ("2.yaml", b""),
        ("3.yaml", b"---\n# nothing\n---\n"),
        ("4.yaml", b"a: [\n"),
        ("5.yaml", identity("workload: x").as_bytes()),
    ]);
    let faults = load_dir(dir.path()).unwrap_err();
    let whole = dir.path().display();
    assert_eq!(
        words(&faults),
        [
            "1.yaml: error: is not UTF-8: the byte at offset 3 is none of a character's",
            "2.yaml: warning: the file holds no resource [remove it if that is meant]",
            "3.yaml: warning: the file holds no resource [remove it if that is meant]",
            "4.yaml:1:4: error: not YAML that is taken here: unclosed bracket '['",
            "5.yaml:5:3: error: spec.selectors: is missing",
            "5.yaml:5:3: error: spec.workload: there is no such field [did you mean workloadID? fields here: \
             allowedSPIFFEIDs, connection, egress, scope, selectors, unmatchedEgress, workloadID]",
            &format!(
                "{whole}: error: there is no Gateway [add a resource of kind Gateway (apiVersion: sluice.dev/v1alpha1)]"
            ),
        ]
    );
    let empty = directory(&[]);
    let faults = load_dir(empty.path()).unwrap_err();
    assert!(words(&faults)[0].ends_with("there is no *.yaml or *.yml file in this directory"));
    assert!(words(&load_dir(&empty.path().join("absent")).unwrap_err())[0].contains("No such file"));
}

#[test]
fn one_node_has_one_gateway_and_each_name_one_resource() {
    let two = load(&[("a.yaml", GATEWAY), ("b.yaml", &gateway("name: node-a", "name: node-b"))]).unwrap_err();
    assert_eq!(
        words(&two),
        [
            "b.yaml:1:1: error: a second Gateway \"node-b\"; the first is \"node-a\" in a.yaml:1 [one directory configures one node]"
        ]
    );
    let twice = load(&[("a.yaml", GATEWAY), ("b.yaml", EXAMPLE), ("c.yaml", EXAMPLE)]).unwrap_err();
    let errors: Vec<_> = twice.into_iter().filter(Diagnostic::is_error).collect();
    assert_eq!(
        words(&errors),
        [
            "c.yaml:14:1: error: metadata.name: WorkloadIdentity riptides-system/backend-api is given twice, first in b.yaml:14 [rename or remove one of the two]",
            "c.yaml:35:1: error: metadata.name: WorkloadIdentity riptides-system/frontend is given twice, first in b.yaml:35 [rename or remove one of the two]",
            "c.yaml:1:1: error: metadata.name: Service riptides-system/backend-api-svc is given twice, first in b.yaml:1 [rename or remove one of the two]",
        ]
    );
    // Policy on its own is looked at without one.
    let policy = parse_files(&[(PathBuf::from("policy.yaml"), EXAMPLE.into())]).unwrap();
    assert!(policy.gateway.is_none() && policy.identities.len() == 2);
}

#[test]
fn what_a_cluster_adds_is_passed_over() {
    let item = identity(HERE).trim_end().replace('\n', "\n  ").replace(
        "metadata: { name: a }",
        "metadata: { name: a, uid: x, creationTimestamp: null, generation: 1, labels: { app: x }, \
         annotations: { a.b/c: \"\" }, managedFields: [{}] }\n  status: { conditions: [] }",
    );
    let exported = format!("apiVersion: v1\nkind: List\nmetadata: {{ resourceVersion: \"\" }}\nitems:\n- {item}\n");
    let loaded = load(&[("list.yaml", &exported), ("g.yaml", GATEWAY)]).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", words(&loaded.warnings));
    assert_eq!(loaded.identities[0].name, "default/a");
}

#[test]
fn the_delivered_examples_load_together_and_say_every_field() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
    let loaded = load_dir(&dir).unwrap_or_else(|faults| panic!("{:#?}", words(&faults)));
    let defaults = load(&[("gateway.yaml", GATEWAY)]).unwrap().gateway;
    // The reference shows the defaults, so that it cannot drift from them.
    assert_eq!(loaded.gateway.limits, defaults.limits);
    assert_eq!(loaded.gateway.groups, defaults.groups);
    assert_eq!(loaded.gateway.timeouts, defaults.timeouts);
    assert_eq!(loaded.gateway.pin_directory, defaults.pin_directory);
    let on = |gateway: &Gateway| Lifetimes::default().on(gateway.lifetimes, &gateway.timeouts);
    assert_eq!(on(&loaded.gateway), on(&defaults));
    let bundles: Vec<_> =
        loaded.bundles.iter().map(|bundle| (bundle.trust_domain.as_str(), bundle.roots.len())).collect();
    assert_eq!(bundles, [("example.com", 0), ("partner.org", 1)]);
    let modes = loaded.identities.iter().find(|identity| identity.name == "examples/every-field").unwrap();
    assert_eq!(modes.ports, [(8443, TlsMode::Disable), (9090, TlsMode::Permissive)].into());
    assert_eq!(modes.inbound.as_ref().unwrap().patterns[1], IdPattern::Under("spiffe://example.com/myapp/".into()));
    assert_eq!((modes.selectors.len(), modes.egress.len()), (4, 2));
    let process = modes.selectors[2].process.as_ref().expect("an entry by process");
    assert_eq!((process.uid, process.gid), (Some(1000), Some(1000)));
    assert_eq!(process.cgroup, Some(snapshot::Cgroup::Below("/system.slice".into())));
    let netns = ctrl::attest::process::Netns::Path("/run/netns/workloads".into());
    assert_eq!(*loaded.gateway.namespaces, [("in0".to_owned(), netns)].into());
    assert_eq!((modes.resumption, modes.bypass.len()), (Resumption::Tickets, 1));
    assert_eq!([8080, 9090].map(|port| modes.proxy.of(port)), [ProxyProtocol::None, ProxyProtocol::V2]);
}

#[test]
fn the_delivered_example_of_an_agent_loads_without_a_word() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/spire");
    let loaded = load_dir(&dir).unwrap_or_else(|faults| panic!("{:#?}", words(&faults)));
    // Its list names a partner: the agent may bring the roots of any trust domain.
    assert_eq!(words(&loaded.warnings), [""; 0]);
    let IdentitySource::Spire(spire) = &loaded.gateway.identity[0].source else {
        panic!("{:?}", loaded.gateway.identity)
    };
    let frontend = &loaded.identities[0];
    let id = frontend.spiffe_id(&loaded.gateway.trust_domain);
    let selectors = spire.selectors_of(&id, &frontend.name).unwrap();
    let shown: Vec<_> = selectors.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["k8s:ns:riptides-system", "k8s:sa:frontend"]);
    assert_eq!(spire.selectors_of(&id, "shop/frontend"), None);
    assert_eq!(spire.socket.as_deref(), Some(std::path::Path::new("/run/spire/agent/public/api.sock")));
}

#[test]
fn the_delivered_example_of_a_vault_loads_without_a_word() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/vault");
    let loaded = load_dir(&dir).unwrap_or_else(|faults| panic!("{:#?}", words(&faults)));
    assert_eq!(words(&loaded.warnings), [""; 0]);
    let IdentitySource::Vault(vault) = &loaded.gateway.identity[0].source else {
        panic!("{:?}", loaded.gateway.identity)
    };
    assert_eq!((vault.path().as_str(), vault.refresh.as_secs(), vault.dns_names), ("pki/sign/node", 60, false));
    assert!(vault.auth.file().ends_with("vault/secret-id"), "{vault:?}");
}

#[test]
fn no_damage_to_a_file_panics() {
    let whole = format!("{GATEWAY}---\n{EXAMPLE}");
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: usize| {
        // xorshift64: the same damage in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..2_000 {
        let mut bytes = whole.clone().into_bytes();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, b" \t:-[]{}&*!|>'\"%#\n,?0"[random(21)]),
                2 => bytes.truncate(at.max(1)),
                _ => bytes[at] = 32 + random(95) as u8,
            }
        }
        match load_files(&[(PathBuf::from("x.yaml"), String::from_utf8(bytes).unwrap())]) {
            Ok(_) => taken += 1,
            Err(faults) => {
                assert!(faults.iter().any(Diagnostic::is_error), "refused without an error");
                faults.iter().for_each(|fault| assert!(!fault.to_string().is_empty()));
                refused += 1;
            }
        }
    }
    assert!(taken > 0 && refused > 0, "{taken} {refused}");
}

#[test]
fn an_egress_entry_says_which_address_the_far_side_sees() {
    let service = "apiVersion: core.riptides.io/v1alpha1\nkind: Service\nmetadata: { name: x }\n\
                   spec: { addresses: [{ address: 198.18.2.2, port: 80 }], labels: { app: x } }\n";
    let entries = "egress:\n- selectors: [{ app: x }]\n- { selectors: [{ app: x }], source: preserve }\n\
                   - { selectors: [{ app: x }], source: node }\n";
    let gateway = format!("{GATEWAY}  limits: {{ sourcePorts: 40000-40003 }}\n");
    let policy = identity(&format!("{HERE}{entries}"));
    let loaded = load(&[("p.yaml", &policy), ("s.yaml", service), ("g.yaml", &gateway)]).unwrap();
    let sources: Vec<_> = loaded.identities[0].egress.iter().map(|entry| entry.source).collect();
    assert_eq!(sources, [SourceAddress::Preserve, SourceAddress::Preserve, SourceAddress::Node]);
    assert_eq!(Some(loaded.gateway.limits.source_ports), snapshot::PortRange::new(40_000, 40_003));
    assert_eq!(words(&loaded.warnings), [""; 0]);

    let disabled = policy.replace("source: node", "source: node, connection: { tls: { mode: DISABLE } }");
    let loaded = load(&[("p.yaml", &disabled), ("s.yaml", service), ("g.yaml", GATEWAY)]).unwrap();
    assert_eq!(
        words(&loaded.warnings),
        [
            "p.yaml:11:5: warning: spec.egress[2].source: the mode is DISABLE: the call is not touched, and keeps the caller's address [use MUTUAL, SIMPLE or PERMISSIVE, or have the kernel masquerade]",
        ]
    );
}

#[test]
fn key_exchanges_are_taken_in_the_order_that_they_are_named() {
    let gateway = format!("{GATEWAY}  tls: {{ groups: [secp256r1, X25519] }}\n");
    let groups = load(&[("g.yaml", &gateway)]).unwrap().gateway.groups;
    assert_eq!(groups, [snapshot::Group::Secp256r1, snapshot::Group::X25519]);
}

#[test]
fn a_directory_that_is_read_again_comes_to_what_reading_it_first_does() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let service = |port: u16| {
        format!(
            "apiVersion: core.riptides.io/v1alpha1\nkind: Service\nmetadata: {{ name: s }}\n\
             spec: {{ addresses: [{{ address: 198.18.2.2, port: {port} }}] }}\n"
        )
    };
    let bundle = |serial: &str| {
        format!(
            "apiVersion: sluice.dev/v1alpha1\nkind: TrustBundle\nmetadata: {{ name: own }}\n\
             spec: {{ trustDomain: example.com, revoked: {{ serials: [\"{serial}\"] }} }}\n"
        )
    };
    let mut known = Known::default();
    let mut same = |step: &str| {
        let (again, first) = (reload_dir(dir.path(), &mut known), load_dir(dir.path()));
        assert_eq!(again, first, "{step}");
        first
    };
    write("gateway.yaml", GATEWAY);
    write("policy.yaml", EXAMPLE);
    write("service.yaml", &service(80));
    write("own.yaml", &bundle("01"));
    let first = same("first").unwrap();
    assert_eq!(same("nothing changed"), Ok(first.clone()));
    write("service.yaml", &service(81));
    assert_ne!(same("a changed one").unwrap().services, first.services);
    write("own.yaml", &bundle("02"));
    same("a bundle").unwrap();
    // The same name in two files, a second Gateway, and a file that is not right: each is said again.
    write("twice.yaml", &service(82));
    assert!(same("twice").is_err());
    assert!(same("still twice").is_err());
    std::fs::remove_file(dir.path().join("twice.yaml")).unwrap();
    write("other.yaml", GATEWAY);
    assert!(same("two Gateways").is_err());
    write("other.yaml", "kind: Service\n");
    assert!(same("a fault").is_err());
    assert!(same("the same fault").is_err());
    std::fs::remove_file(dir.path().join("other.yaml")).unwrap();
    assert!(same("mended").is_ok());
    // What was tried only is not what is there.
    let tried = vec![("gateway.yaml".into(), GATEWAY.into()), ("service.yaml".into(), service(90))];
    assert_eq!(load_texts(dir.path(), &tried, &mut known).unwrap().services[0].addresses[0].port, 90);
    assert_eq!(reload_dir(dir.path(), &mut known), load_dir(dir.path()));
}

#[test]
fn resumption_is_off_unless_it_is_asked_for_in_words_that_no_yaml_makes_a_switch_of() {
    let spec = |connection: &str| identity(&format!("{HERE}connection: {{ {connection} }}"));
    for (connection, want) in [
        ("tls: { mode: MUTUAL }", Resumption::None),
        ("resumption: none", Resumption::None),
        ("resumption: tickets", Resumption::Tickets),
    ] {
        let loaded = load(&[("p.yaml", &spec(connection)), ("g.yaml", GATEWAY)]).unwrap();
        assert_eq!(loaded.identities[0].resumption, want, "{connection}");
    }
    let faults = load(&[("p.yaml", &spec("resumption: on")), ("g.yaml", GATEWAY)]).unwrap_err();
    let said = words(&faults);
    assert!(said[0].contains("spec.connection.resumption") && said[0].contains("allowed: none, tickets"), "{said:?}");
}
