//! Each thing that does not load, or loads and surprises: the exact words about it.

mod selectors;
mod words;

use ctrl::config::Severity;
use words::{GATEWAY, HERE, differs, identity, load, words};

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
            "a source that is no word for one",
            format!("{HERE}egress: [{{ selectors: [{{ app: x }}], source: gateway }}]"),
            &["p.yaml:8:47: error: spec.egress[0].source: \"gateway\" is not allowed here [allowed: preserve, node]"],
        ),
        (
            "a source of another place",
            format!("{HERE}source: node"),
            &[
                "p.yaml:8:3: error: spec.source: there is no such field [fields here: allowedSPIFFEIDs, connection, egress, scope, selectors, unmatchedEgress, workloadID]",
            ],
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
            "a pod",
            HERE.replace("198.18.1.2 }", "198.18.1.2, k8s:pod:name: node }"),
            &[
                "p.yaml:6:15: warning: spec.selectors[0]: the Gateway has no `kubernetes`, so that no pod is known and this matches nothing [add `kubernetes: {}` to the Gateway's spec, or select by net:* in an entry of its own]",
            ],
        ),
        (
            "a pod by what nobody attests",
            HERE.replace("198.18.1.2 }", "198.18.1.2, k8s:pod:nam: node }"),
            &[
                "p.yaml:6:15: warning: spec.selectors[0]: k8s:pod:nam is not attested here, so that the entry matches nothing [what is attested of pods: k8s:pod:namespace, k8s:pod:name, k8s:pod:uid, k8s:pod:serviceAccount, k8s:label:NAME]",
            ],
        ),
        (
            "a process by its name alone",
            HERE.replace("198.18.1.2 }", "198.18.1.2, process:name: node }"),
            &[
                "p.yaml:6:15: warning: spec.selectors[0]: a process sets its own name, so process:name alone proves nothing [add process:path, process:uid, process:gid or process:cgroup]",
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
