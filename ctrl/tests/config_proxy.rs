//! `connection.proxyProtocol`: what is taken, and the exact words about what is not.

mod words;

use snapshot::ProxyProtocol::{self, None as Nothing, V2};
use words::{GATEWAY, HERE, differs, identity, load, words};

fn spec(connection: &str) -> String {
    identity(&format!("{HERE}connection: {{ {connection} }}"))
}

#[test]
fn a_workload_and_its_ports_say_what_their_services_are_sent() {
    let cases: &[(&str, &str, [ProxyProtocol; 2])] = &[
        ("nothing said", "tls: { mode: MUTUAL }", [Nothing, Nothing]),
        ("all ports", "proxyProtocol: { version: v2 }", [V2, V2]),
        ("none, in words", "proxyProtocol: { version: none }", [Nothing, Nothing]),
        ("one port", "proxyProtocol: { ports: { 443: v2 } }", [Nothing, V2]),
        ("all but one port", "proxyProtocol: { version: v2, ports: { \"443\": none } }", [V2, Nothing]),
        (
            "beside a port that is not touched",
            "tls: { ports: { 443: DISABLE } }, proxyProtocol: { version: v2 }",
            [V2, V2],
        ),
    ];
    for (name, connection, want) in cases {
        let loaded = load(&[("p.yaml", &spec(connection)), ("g.yaml", GATEWAY)]).expect(name);
        assert_eq!([80, 443].map(|port| loaded.identities[0].proxy.of(port)), *want, "{name}");
        assert_eq!(words(&loaded.warnings), [""; 0], "{name}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_is_allowed() {
    let cases: &[(&str, String, &[&str])] = &[
        (
            "a version that is none of ours",
            spec("proxyProtocol: { version: v1 }"),
            &[
                "p.yaml:8:43: error: spec.connection.proxyProtocol.version: \"v1\" is not allowed here [did you mean v2? allowed: none, v2]",
            ],
        ),
        (
            "a switch",
            spec("proxyProtocol: { version: true }"),
            &[
                "p.yaml:8:43: error: spec.connection.proxyProtocol.version: true is not allowed here [allowed: none, v2]",
            ],
        ),
        (
            "a word where a mapping stands",
            spec("proxyProtocol: v2"),
            &[
                "p.yaml:8:32: error: spec.connection.proxyProtocol: \"v2\": is not a mapping [write proxyProtocol: { version: v2 }]",
            ],
        ),
        (
            "a port that is none",
            spec("proxyProtocol: { ports: { 65536: v2 } }"),
            &[
                "p.yaml:8:43: error: spec.connection.proxyProtocol.ports.65536: \"65536\" is not a port [use 1 to 65535]",
            ],
        ),
        (
            "a misspelt field",
            spec("proxyProtocol: { versoin: v2 }"),
            &[
                "p.yaml:8:34: error: spec.connection.proxyProtocol.versoin: there is no such field [did you mean version? fields here: ports, version]",
            ],
        ),
        (
            "of a call instead of a service",
            identity(&format!(
                "{HERE}egress: [{{ selectors: [{{ app: x }}], connection: {{ proxyProtocol: {{}} }} }}]"
            )),
            &["p.yaml:8:53: error: spec.egress[0].connection.proxyProtocol: there is no such field [fields here: tls]"],
        ),
        (
            "a workload that is not touched",
            spec("tls: { mode: DISABLE }, proxyProtocol: { version: v2 }"),
            &[
                "p.yaml:1:1: error: spec.connection.proxyProtocol.version: default/a is DISABLE: its connections are not touched, so no header is sent [use MUTUAL, PERMISSIVE or SIMPLE, or take the header out here and in the service's configuration]",
            ],
        ),
        (
            "a port that is not touched",
            spec("tls: { ports: { 443: DISABLE } }, proxyProtocol: { ports: { 443: v2 } }"),
            &[
                "p.yaml:1:1: error: spec.connection.proxyProtocol.ports.443: default/a on port 443 is DISABLE: its connections are not touched, so no header is sent [use MUTUAL, PERMISSIVE or SIMPLE, or take the header out here and in the service's configuration]",
            ],
        ),
    ];
    let mut wrong = String::new();
    for (name, text, want) in cases {
        let faults = load(&[("p.yaml", text), ("g.yaml", GATEWAY)]).expect_err(name);
        let errors: Vec<_> = faults.into_iter().filter(|fault| fault.is_error()).collect();
        wrong.extend(differs(name, &words(&errors), want));
    }
    assert!(wrong.is_empty(), "{wrong}");
}
