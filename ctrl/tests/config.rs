//! What loads, and for each thing that does not: the exact words.

use std::path::PathBuf;

use ctrl::config::{Diagnostic, IdentitySource, Loaded, Severity, load_dir, load_files, parse_files};
use snapshot::{IdPattern, TlsMode};

const EXAMPLE: &str = include_str!("data/frontend-backend.yaml");
const GATEWAY: &str = include_str!("data/gateway.yaml");

fn load(files: &[(&str, &str)]) -> Result<Loaded, Vec<Diagnostic>> {
    let files: Vec<_> = files.iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect();
    load_files(&files)
}

/// A WorkloadIdentity with these lines in its spec.
fn identity(spec: &str) -> String {
    let lines: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: core.riptides.io/v1alpha1\nkind: WorkloadIdentity\nmetadata: {{ name: a }}\nspec:\n{lines}")
}

/// A Gateway with a line replaced.
fn gateway(from: &str, to: &str) -> String {
    assert!(GATEWAY.contains(from), "{from}");
    GATEWAY.replacen(from, to, 1)
}

/// Headlines with their help, as a terminal shows them without the excerpt.
fn words(faults: &[Diagnostic]) -> Vec<String> {
    let help = |fault: &Diagnostic| fault.help.as_ref().map(|help| format!(" [{help}]")).unwrap_or_default();
    faults.iter().map(|fault| fault.headline() + &help(fault)).collect()
}

/// Every case that differs is shown, not the first alone.
fn differs(name: &str, got: &[String], want: &[&str]) -> Option<String> {
    (got != want).then(|| format!("{name}\n  got  {got:#?}\n  want {want:#?}\n"))
}

#[test]
fn the_example_loads_as_it_stands_beside_a_gateway() {
    let loaded = load(&[("policy.yaml", EXAMPLE), ("node/gateway.yaml", GATEWAY)]).unwrap();
    assert_eq!(loaded.gateway.name, "node-a");
    assert_eq!(
        loaded.gateway.identity,
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
            "policy.yaml:22:7: warning: spec.selectors[0]: k8s:label:app is not attested here, matches nothing \
             [until it is, select by net:ip, net:interface or net:cidr in an entry of its own]",
            "policy.yaml:43:7: warning: spec.selectors[0]: k8s:label:app is not attested here, matches nothing \
             [until it is, select by net:ip, net:interface or net:cidr in an entry of its own]",
        ]
    );
}

#[test]
fn the_example_that_is_delivered_is_the_one_that_is_tested() {
    let delivered = include_str!("../../deploy/examples/frontend-backend.yaml");
    assert_eq!(delivered, EXAMPLE);
}

const HERE: &str = "workloadID: myapp/a\nselectors: [{ net:ip: 198.18.1.2 }]\nallowedSPIFFEIDs: { inbound: [] }\n";

#[test]
fn each_fault_of_an_identity_is_named_with_its_place_and_what_is_allowed() {
    let cases: &[(&str, String, &[&str])] = &[
        (
            "a misspelt field",
            format!("{HERE}egres: []"),
            &[
                "p.yaml:8:3: error: spec.egres: there is no such field [did you mean egress? fields here: allowedSPIFFEIDs, connection, egress, scope, selectors, unmatchedEgress, workloadID]",
            ],
        ),
        (
            "an unknown field",
            format!("{HERE}connection: {{ tls: {{ mode: MUTUAL, minVersion: x }} }}"),
            &["p.yaml:8:38: error: spec.connection.tls.minVersion: there is no such field [fields here: mode, ports]"],
        ),
        (
            "a key twice",
            format!("{HERE}workloadID: b"),
            &["p.yaml:8:3: error: spec.workloadID: given twice, first in line 5 [keep one of the two]"],
        ),
        (
            "a bad mode",
            format!("{HERE}connection: {{ tls: {{ mode: MUTAUL }} }}"),
            &[
                "p.yaml:8:30: error: spec.connection.tls.mode: \"MUTAUL\" is not allowed here [did you mean MUTUAL? allowed: MUTUAL, PERMISSIVE, SIMPLE, DISABLE]",
            ],
        ),
        (
            "a mode in lower case",
            format!("{HERE}egress: [{{ selectors: [{{ app: x }}], connection: {{ tls: {{ mode: mutual }} }} }}]"),
            &[
                "p.yaml:8:66: error: spec.egress[0].connection.tls.mode: \"mutual\" is not allowed here [did you mean MUTUAL? allowed: MUTUAL, PERMISSIVE, SIMPLE, DISABLE]",
            ],
        ),
        (
            "ports of TLS on an egress entry",
            format!("{HERE}egress: [{{ selectors: [{{ app: x }}], connection: {{ tls: {{ ports: {{}} }} }} }}]"),
            &["p.yaml:8:60: error: spec.egress[0].connection.tls.ports: there is no such field [fields here: mode]"],
        ),
        (
            "a port that is none",
            format!("{HERE}connection: {{ tls: {{ ports: {{ \"0\": DISABLE, 65536: SIMPLE, 8443: OFF }} }} }}"),
            &[
                "p.yaml:8:33: error: spec.connection.tls.ports.0: \"0\" is not a port [use 1 to 65535]",
                "p.yaml:8:47: error: spec.connection.tls.ports.65536: \"65536\" is not a port [use 1 to 65535]",
                "p.yaml:8:68: error: spec.connection.tls.ports.8443: \"OFF\" is not allowed here [allowed: MUTUAL, PERMISSIVE, SIMPLE, DISABLE]",
            ],
        ),
        (
            "an ID without its scheme",
            identity_list("spiffe//example.com/a"),
            &[
                "p.yaml:7:33: error: spec.allowedSPIFFEIDs.inbound[0]: \"spiffe//example.com/a\": does not begin with spiffe:// [an ID such as spiffe://example.com/myapp/app/frontend, or all under a path: spiffe://example.com/myapp/*]",
            ],
        ),
        (
            "an ID without a path",
            identity_list("spiffe://example.com"),
            &[
                "p.yaml:7:33: error: spec.allowedSPIFFEIDs.inbound[0]: \"spiffe://example.com\": there is no path after the trust domain [an ID such as spiffe://example.com/myapp/app/frontend, or all under a path: spiffe://example.com/myapp/*]",
            ],
        ),
        (
            "a trust domain in upper case",
            identity_list("spiffe://Example.com/a"),
            &[
                "p.yaml:7:33: error: spec.allowedSPIFFEIDs.inbound[0]: \"spiffe://Example.com/a\": the trust domain holds 'E'; only a-z, 0-9, '.', '-' and '_' are allowed [an ID such as spiffe://example.com/myapp/app/frontend, or all under a path: spiffe://example.com/myapp/*]",
            ],
        ),
        (
            "a star in the middle",
            identity_list("spiffe://example.com/*/a"),
            &[
                "p.yaml:7:33: error: spec.allowedSPIFFEIDs.inbound[0]: \"spiffe://example.com/*/a\": '*' is allowed as the whole last segment only, as in spiffe://example.com/myapp/* [an ID such as spiffe://example.com/myapp/app/frontend, or all under a path: spiffe://example.com/myapp/*]",
            ],
        ),
        (
            "a list without a value",
            "workloadID: a\nselectors: []\nallowedSPIFFEIDs:\n  inbound: []\n  outbound:\n".into(),
            &[
                "p.yaml:9:13: error: spec.allowedSPIFFEIDs.outbound: nothing is not a list [give it a value, or leave the field out; [] is an empty list]",
            ],
        ),
        (
            "a list that is text",
            "workloadID: a\nselectors: []\nallowedSPIFFEIDs: { inbound: spiffe://example.com/a }\n".into(),
            &["p.yaml:7:32: error: spec.allowedSPIFFEIDs.inbound: \"spiffe://example.com/a\" is not a list"],
        ),
        (
            "a workloadID that is a path from the root",
            HERE.replace("myapp/a", "/myapp/a"),
            &[
                "p.yaml:5:15: error: spec.workloadID: \"/myapp/a\": the path has an empty segment (// or a / at its end) [a path such as myapp/app/frontend; the Gateway's trust domain is put before it]",
            ],
        ),
        (
            "a workloadID that is missing",
            HERE.replace("workloadID: myapp/a", "unmatchedEgress: drop"),
            &[
                "p.yaml:5:3: error: spec.workloadID: is missing",
                "p.yaml:5:20: error: spec.unmatchedEgress: \"drop\" is not allowed here [allowed: pass, refuse]",
            ],
        ),
        (
            "a bad address",
            HERE.replace("198.18.1.2", "198.18.1.300"),
            &[
                "p.yaml:6:25: error: spec.selectors[0][\"net:ip\"]: \"198.18.1.300\": not an IP address [such as 198.18.1.2 or 2001:db8::2]",
            ],
        ),
        (
            "a bad CIDR",
            HERE.replace("net:ip: 198.18.1.2", "net:cidr: 198.18.1.2/24"),
            &[
                "p.yaml:6:27: error: spec.selectors[0][\"net:cidr\"]: \"198.18.1.2/24\": has bits set past its length; the network is 198.18.1.0/24 [such as 198.18.1.0/24 or 2001:db8::/64]",
            ],
        ),
        (
            "a CIDR that is too long",
            HERE.replace("net:ip: 198.18.1.2", "net:cidr: 198.18.1.0/33"),
            &[
                "p.yaml:6:27: error: spec.selectors[0][\"net:cidr\"]: \"198.18.1.0/33\": the length must be 0 to 32 [such as 198.18.1.0/24 or 2001:db8::/64]",
            ],
        ),
        (
            "an unknown selector key",
            HERE.replace("net:ip", "net:iface"),
            &[
                "p.yaml:6:17: error: spec.selectors[0][\"net:iface\"]: there is no such selector key [selector keys: net:interface, net:ip, net:cidr, k8s:*, process:*]",
            ],
        ),
        (
            "an empty selector",
            HERE.replace("net:ip: 198.18.1.2", ""),
            &["p.yaml:6:15: error: spec.selectors[0]: an empty selector [give at least one key, such as net:ip]"],
        ),
        (
            "an empty egress selector",
            format!("{HERE}egress: [{{ selectors: [{{}}] }}]"),
            &["p.yaml:8:26: error: spec.egress[0].selectors[0]: selects nothing [give at least one label]"],
        ),
        (
            "SIMPLE with an inbound list",
            format!("{HERE}connection: {{ tls: {{ mode: SIMPLE }} }}"),
            &[
                "p.yaml:7:32: error: spec.allowedSPIFFEIDs.inbound: default/a is SIMPLE: callers show no identity that this list could be compared with [use MUTUAL, or remove the list]",
            ],
        ),
    ];
    let mut wrong = String::new();
    for (name, spec, want) in cases {
        let faults = load(&[("p.yaml", &identity(spec)), ("g.yaml", GATEWAY)]).expect_err(name);
        wrong.extend(differs(name, &words(&faults), want));
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn identity_list(id: &str) -> String {
    format!("workloadID: a\nselectors: []\nallowedSPIFFEIDs: {{ inbound: [\"{id}\"] }}\n")
}

#[test]
fn what_is_allowed_and_surprising_is_a_warning() {
    let cases: &[(&str, String, &[&str])] = &[
        ("nothing odd", HERE.into(), &[]),
        (
            "MUTUAL without a list",
            HERE.replace("{ inbound: [] }", "{}"),
            &[
                "p.yaml:1:1: warning: spec.allowedSPIFFEIDs.inbound: default/a has no inbound list: under MUTUAL nobody may call it [list who may, or write [] to say that nobody shall]",
            ],
        ),
        (
            "PERMISSIVE with a list",
            format!("{HERE}connection: {{ tls: {{ mode: PERMISSIVE }} }}"),
            &[
                "p.yaml:7:32: warning: spec.allowedSPIFFEIDs.inbound: default/a is PERMISSIVE: callers in plain TCP are served whatever this list says [use MUTUAL once all callers have identities]",
            ],
        ),
        (
            "modes of single ports",
            format!("{HERE}connection: {{ tls: {{ ports: {{ 80: PERMISSIVE, 443: DISABLE, 8443: SIMPLE }} }} }}"),
            &[
                "p.yaml:7:32: warning: spec.allowedSPIFFEIDs.inbound: default/a is PERMISSIVE on port 80: callers in plain TCP are served whatever this list says [use MUTUAL once all callers have identities]",
                "p.yaml:7:32: warning: spec.allowedSPIFFEIDs.inbound: default/a is SIMPLE on port 8443: callers show no identity that this list could be compared with [use MUTUAL, or remove the list]",
            ],
        ),
        (
            "no selector",
            HERE.replace("[{ net:ip: 198.18.1.2 }]", "[]"),
            &["p.yaml:1:1: warning: spec.selectors: default/a has no selector: it is attested nowhere"],
        ),
        (
            "address and process",
            HERE.replace("198.18.1.2 }", "198.18.1.2, process:name: node }"),
            &[
                "p.yaml:6:15: warning: spec.selectors[0]: process:name is not attested here, matches nothing [until it is, select by net:ip, net:interface or net:cidr in an entry of its own]",
            ],
        ),
        (
            "labels of no service",
            format!("{HERE}egress: [{{ selectors: [{{ app: x }}] }}]"),
            &[
                "p.yaml:8:12: warning: spec.egress[0].selectors[0]: no Service has these labels: the entry matches nothing",
            ],
        ),
    ];
    for (name, spec, want) in cases {
        let loaded = load(&[("p.yaml", &identity(spec)), ("g.yaml", GATEWAY)]).expect(name);
        assert_eq!(words(&loaded.warnings), *want, "{name}");
        assert!(loaded.warnings.iter().all(|warning| warning.severity == Severity::Warning));
    }
}

#[test]
fn each_fault_of_a_gateway_is_named() {
    let cases: &[(&str, String, &[&str])] = &[
        (
            "a misspelt side",
            gateway("side: inside", "side: insid"),
            &[
                "g.yaml:7:31: error: spec.ports[0].side: \"insid\" is not allowed here [did you mean inside? allowed: inside, outside]",
            ],
        ),
        (
            "an interface twice",
            gateway("out0", "in0"),
            &["g.yaml:8:20: error: spec.ports[1].interface: \"in0\": is a port already [give each interface one side]"],
        ),
        (
            "no inside port",
            gateway("side: inside", "side: outside"),
            &[
                "g.yaml:7:5: error: spec.ports: no port is inside [give the interface towards the workloads side: inside]",
            ],
        ),
        (
            "a core twice",
            gateway("[0] ", "[0, 0]"),
            &["g.yaml:9:14: error: spec.cores[1]: 0: is in the list already [one worker a core]"],
        ),
        (
            "a life without a unit",
            gateway("ttl: 1h", "ttl: 3600"),
            &[
                "g.yaml:13:72: error: spec.identity.embedded.ttl: 3600: has no unit [such as 500ms, 30s, 10m, 1h or 1h30m]",
            ],
        ),
        (
            "a life that is too short",
            gateway("ttl: 1h", "ttl: 1s"),
            &["g.yaml:13:72: error: spec.identity.embedded.ttl: \"1s\": out of range [use 2s to 2592000s]"],
        ),
        (
            "a source that is not built in",
            gateway("source: embedded", "source: spire"),
            &["g.yaml:13:23: error: spec.identity.source: \"spire\" is not allowed here [allowed: embedded]"],
        ),
        (
            "a key exchange that is unknown, and one twice",
            format!("{GATEWAY}  tls: {{ groups: [x25519, X25519, X25519] }}\n"),
            &[
                "g.yaml:15:19: error: spec.tls.groups[0]: \"x25519\" is not allowed here [did you mean X25519? allowed: X25519MLKEM768, X25519, secp256r1]",
                "g.yaml:15:35: error: spec.tls.groups[2]: \"X25519\": is in the list already [each group once]",
            ],
        ),
        (
            "no key exchange at all",
            format!("{GATEWAY}  tls: {{ groups: [] }}\n"),
            &["g.yaml:15:18: error: spec.tls.groups: an empty list [name at least one group, such as [X25519]]"],
        ),
        (
            "a limit of zero",
            format!("{GATEWAY}  limits: {{ sessions: 0, flow: 5 }}\n"),
            &[
                "g.yaml:15:23: error: spec.limits.sessions: 0 is out of range [use 1 to 16777216]",
                "g.yaml:15:26: error: spec.limits.flow: there is no such field [did you mean flows? fields here: buffer, flows, frames, handshakes, history, preExistingGrace, sessions]",
            ],
        ),
        (
            "a timeout that is none",
            format!("{GATEWAY}  timeouts: {{ handshake: soon }}\n"),
            &[
                "g.yaml:15:26: error: spec.timeouts.handshake: \"soon\": not a duration [such as 500ms, 30s, 10m, 1h or 1h30m]",
            ],
        ),
        (
            "a host that is no address",
            gateway("[198.18.2.2]", "[backend]"),
            &[
                "g.yaml:12:50: error: spec.hosts[\"backend-api.myapp.svc.cluster.local\"][0]: \"backend\": not an IP address [such as 198.18.1.2 or 2001:db8::2]",
            ],
        ),
        (
            "a socket that is relative",
            gateway("/run/sluice/node-a.sock", "node-a.sock"),
            &[
                "g.yaml:14:20: error: spec.admin.socket: \"node-a.sock\": not an absolute path [an absolute path, such as /run/sluice/node-a.sock]",
            ],
        ),
        (
            "the wrong apiVersion",
            gateway("sluice.dev/v1alpha1", "v1"),
            &["g.yaml:1:13: error: apiVersion: \"v1\" has no Gateway [Gateway is in sluice.dev/v1alpha1]"],
        ),
        (
            "a misspelt kind",
            gateway("kind: Gateway", "kind: Gatway"),
            &[
                "g.yaml:2:7: error: kind: \"Gatway\" is not a kind that is known [did you mean Gateway? kinds: Gateway, Service, TrustBundle, WorkloadIdentity]",
                "g.yaml: error: there is no Gateway [add a resource of kind Gateway (apiVersion: sluice.dev/v1alpha1)]",
            ],
        ),
        (
            "a kind of a later build",
            gateway("kind: Gateway", "kind: TrustBundle"),
            &[
                "g.yaml:2:7: error: kind: TrustBundle is not supported in this build [peers of this node's own trust domain only]",
                "g.yaml: error: there is no Gateway [add a resource of kind Gateway (apiVersion: sluice.dev/v1alpha1)]",
            ],
        ),
    ];
    let mut wrong = String::new();
    for (name, text, want) in cases {
        let faults = load(&[("g.yaml", text)]).expect_err(name);
        wrong.extend(differs(name, &words(&faults), want));
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_file_that_is_no_configuration_is_refused_where_it_goes_wrong() {
    let nested: String = (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let flow = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    let huge = format!("# {}\n", "x".repeat(8 << 20));
    let cases: &[(&str, &str, &str)] = &[
        (
            "a tab",
            "a: b\nc:\n\td: e\n",
            "bad.yaml:3:2: error: not YAML that is taken here: tabs disallowed within this context (block indentation) [indent with spaces]",
        ),
        ("a bracket left open", "a: [1, 2\n", "bad.yaml:1:4: error: not YAML that is taken here: unclosed bracket '['"),
        ("deep nesting", &nested, "bad.yaml:33:33: error: not YAML that is taken here: nested deeper than 32 levels"),
        (
            "brackets in brackets",
            &flow,
            "bad.yaml:1:35: error: not YAML that is taken here: nested deeper than 32 levels",
        ),
        (
            "an alias bomb",
            bomb,
            "bad.yaml:5:11: error: not YAML that is taken here: aliases (*name) stand for more than a configuration ever needs",
        ),
        (
            "a merge key",
            "a: &x { b: 1 }\nc: { <<: *x }\n",
            "bad.yaml:2:6: error: not YAML that is taken here: YAML merge keys are not allowed",
        ),
        ("a huge file", &huge, "bad.yaml: error: is larger than 8 MiB, the most that is read of one file"),
        ("a list", "- a\n", "bad.yaml:1:1: error: a list is not a mapping"),
        ("a word", "hello\n", "bad.yaml:1:1: error: \"hello\" is not a mapping"),
        ("a list as a key", "kind: Service\n? [x]\n: y\n", "bad.yaml:1:1: error: apiVersion: is missing"),
    ];
    let mut wrong = String::new();
    for (name, text, want) in cases {
        let faults = load(&[("bad.yaml", text), ("g.yaml", GATEWAY)]).expect_err(name);
        wrong.extend(differs(name, &words(&faults)[..1], &[want]));
    }
    assert!(wrong.is_empty(), "{wrong}");
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
    assert_eq!(loaded.gateway.identity, IdentitySource::Embedded { directory: dir.path().join("ca/node-a"), ttl });
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
fn errors_are_not_lost_behind_a_flood_of_warnings() {
    let selectors: String = (0..500).map(|n| format!("- process:name: p{n}\n")).collect();
    let text = identity(&format!("workloadID: a\nselectors:\n{selectors}modes: x"));
    let faults = load(&[("p.yaml", &text), ("g.yaml", GATEWAY)]).unwrap_err();
    assert!(faults.len() < 150 && faults.iter().filter(|fault| fault.is_error()).count() == 1);
}

#[test]
fn a_fault_is_shown_under_its_line_and_as_json() {
    let text = identity(&format!("{HERE}connection: {{ tls: {{ mode: MUTAUL }} }}"));
    let faults = load(&[("p.yaml", &text)]).unwrap_err();
    let lines = [
        "p.yaml:8:30: error: spec.connection.tls.mode: \"MUTAUL\" is not allowed here",
        "   |",
        " 8 |   connection: { tls: { mode: MUTAUL } }",
        "   |                              ^^^^^^",
        "   help: did you mean MUTUAL? allowed: MUTUAL, PERMISSIVE, SIMPLE, DISABLE",
    ];
    assert_eq!(faults[0].to_string(), lines.join("\n"));
    assert_eq!(
        serde_json::to_value(&faults[0]).unwrap(),
        serde_json::json!({
            "severity": "error", "file": "p.yaml", "line": 8, "column": 30, "path": "spec.connection.tls.mode",
            "message": "\"MUTAUL\" is not allowed here",
            "help": "did you mean MUTUAL? allowed: MUTUAL, PERMISSIVE, SIMPLE, DISABLE",
        })
    );
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
    let modes = loaded.identities.iter().find(|identity| identity.name == "examples/every-field").unwrap();
    assert_eq!(modes.ports, [(8443, TlsMode::Disable), (9090, TlsMode::Permissive)].into());
    assert_eq!(modes.inbound.as_ref().unwrap().patterns[1], IdPattern::Under("spiffe://example.com/myapp/".into()));
    assert_eq!((modes.selectors.len(), modes.egress.len()), (3, 2));
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
fn key_exchanges_are_taken_in_the_order_that_they_are_named() {
    let gateway = format!("{GATEWAY}  tls: {{ groups: [secp256r1, X25519] }}\n");
    let groups = load(&[("g.yaml", &gateway)]).unwrap().gateway.groups;
    assert_eq!(groups, [snapshot::Group::Secp256r1, snapshot::Group::X25519]);
}
