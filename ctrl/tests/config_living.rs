//! `onChange`, `onPeerExpiry` and `maxConnectionAge`: whose word holds, and what is none.

mod words;

use std::time::Duration;

use ctrl::config::Lifetimes;
use snapshot::{Living, OnChange, OnPeerExpiry};
use words::{GATEWAY, HERE, differs, identity, load, words};

fn node(connection: &str) -> String {
    format!("{GATEWAY}  connection: {{ {connection} }}\n")
}

fn workload(connection: &str) -> String {
    identity(&format!("{HERE}connection: {{ {connection} }}\n"))
}

/// What holds for the workload, and for calls that are no workload's.
fn both(of_node: &str, of_workload: &str) -> [Living; 2] {
    let files = [("g.yaml", &*node(of_node)), ("w.yaml", &*workload(of_workload))];
    let loaded = load(&files).unwrap_or_else(|faults| panic!("{:#?}", words(&faults)));
    assert!(loaded.warnings.is_empty(), "{:#?}", words(&loaded.warnings));
    let gateway = &loaded.gateway;
    [loaded.identities[0].lifetimes, Lifetimes::default()].map(|said| said.on(gateway.lifetimes, &gateway.timeouts))
}

#[test]
fn a_workloads_word_goes_before_its_gateways_and_that_before_the_default() {
    let seconds = Duration::from_secs;
    assert_eq!(both("", "tls: { mode: MUTUAL }"), [Living::default(); 2]);
    let strict = Living {
        on_change: OnChange::Keep,
        on_peer_expiry: OnPeerExpiry::Grace,
        expiry_grace: seconds(60),
        max_age: Some(seconds(86_400)),
        age_grace: Duration::ZERO,
        ..Living::default()
    };
    let all = "onChange: keep, onPeerExpiry: grace, expiryGrace: 1m, maxConnectionAge: 24h, ageGrace: 0s";
    assert_eq!(both(all, ""), [strict; 2]);
    let own = Living {
        on_change: OnChange::Drain,
        drain_for: seconds(90),
        on_peer_expiry: OnPeerExpiry::Close,
        max_age: None,
        ..strict
    };
    // A time of the Gateway's may be for a workload whose word is another.
    assert_eq!(both("onChange: cut, drainFor: 3s", "onChange: drain")[0].drain_for, seconds(3));
    let words = "onChange: drain, drainFor: 1m30s, onPeerExpiry: close, maxConnectionAge: none";
    assert_eq!(both(all, words), [own, strict]);
}

#[test]
fn the_time_to_drain_is_that_of_a_stopping_gateway_where_nothing_else_is_said() {
    let text = format!("{GATEWAY}  timeouts: {{ drain: 7s }}\n");
    let gateway = load(&[("g.yaml", &text)]).unwrap().gateway;
    let living = Lifetimes::default().on(gateway.lifetimes, &gateway.timeouts);
    assert_eq!(living.drain_for, Duration::from_secs(7));
}

#[test]
fn each_fault_is_named_with_what_is_allowed() {
    let here = |text: &str| vec![("g.yaml", node(text))];
    let there = |text: &str| vec![("g.yaml", GATEWAY.to_owned()), ("w.yaml", workload(text))];
    type Case<'c> = (&'c str, Vec<(&'c str, String)>, &'c [&'c str]);
    let cases: &[Case<'_>] = &[
        (
            "words that are none",
            here("onChange: drian, onPeerExpiry: never"),
            &[
                "g.yaml:15:27: error: spec.connection.onChange: \"drian\" is not allowed here [did you mean drain? allowed: cut, drain, keep]",
                "g.yaml:15:48: error: spec.connection.onPeerExpiry: \"never\" is not allowed here [allowed: close, grace, ignore]",
            ],
        ),
        (
            "times without a unit, and out of range",
            here("drainFor: 30, expiryGrace: 30d, maxConnectionAge: 10ms, ageGrace: 2d"),
            &[
                "g.yaml:15:27: error: spec.connection.drainFor: 30: has no unit [such as 500ms, 30s, 10m, 1h or 1h30m]",
                "g.yaml:15:44: error: spec.connection.expiryGrace: \"30d\": out of range [use 1s to 604800s]",
                "g.yaml:15:67: error: spec.connection.maxConnectionAge: \"10ms\": out of range [use 1s to 31536000s]",
                "g.yaml:15:83: error: spec.connection.ageGrace: \"2d\": out of range [use 0ns to 86400s]",
            ],
        ),
        (
            "a Gateway has no mode",
            here("tls: { mode: MUTUAL }"),
            &[
                "g.yaml:15:17: error: spec.connection.tls: there is no such field [fields here: ageGrace, drainFor, expiryGrace, maxConnectionAge, onChange, onPeerExpiry]",
            ],
        ),
        (
            "misspelt at a workload",
            there("onchange: keep"),
            &[
                "w.yaml:8:17: error: spec.connection.onchange: there is no such field [did you mean onChange? fields here: ageGrace, bypass, drainFor, expiryGrace, maxConnectionAge, onChange, onPeerExpiry, proxyProtocol, resumption, tls]",
            ],
        ),
    ];
    let mut wrong = String::new();
    for (name, files, want) in cases {
        let files: Vec<_> = files.iter().map(|(file, text)| (*file, text.as_str())).collect();
        let faults = load(&files).expect_err(name);
        wrong.extend(differs(name, &words(&faults), want));
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_time_that_no_word_asks_for_is_warned_about() {
    let text = workload("onChange: keep, drainFor: 1m, onPeerExpiry: close, expiryGrace: 5m");
    let loaded = load(&[("g.yaml", GATEWAY), ("w.yaml", &text)]).unwrap();
    assert_eq!(
        words(&loaded.warnings),
        [
            "w.yaml:8:43: warning: spec.connection.drainFor: has no effect: the word beside it is keep [it is for onChange: drain]",
            "w.yaml:8:81: warning: spec.connection.expiryGrace: has no effect: the word beside it is close [it is for onPeerExpiry: grace]",
        ]
    );
}

#[test]
fn an_egress_entry_has_no_lifetimes_of_its_own() {
    let text = format!(
        "{HERE}egress: [{{ selectors: [{{ a: b }}], connection: {{ tls: {{ mode: MUTUAL }}, onChange: keep }} }}]\n"
    );
    let faults = load(&[("g.yaml", GATEWAY), ("w.yaml", &identity(&text))]).unwrap_err();
    assert!(words(&faults)[0].contains("onChange: there is no such field"), "{:#?}", words(&faults));
}
