//! `connection.bypass` in route, verdict, explanation and captures, and the words that say why somebody was let
//! in.

use std::net::IpAddr;

use ::snapshot::report::Caller;
use ::snapshot::{Admitted, Bypass, RefuseReason::*, RuleId, RuleSource, Side, TlsMode};

use super::views::PORTS;
use super::{FROM_FRONTEND, FROM_NOBODY, OUTSIDE, Way, peer, route};
use crate::policy::captures::{Bypassed, captures};
use crate::policy::{Route, Standing, Verdict, admitted, decide, explain};
use crate::tls::tests::certs::NOW;
use crate::tls::tests::world::{DB_AT, FRONTEND, World, at};

const OTHER: Way = (Side::Outside, "out0", "198.18.9.8:40000");
const FROM_V6_CLOTHES: Way = (Side::Outside, "out0", "[::ffff:198.18.9.9]:40000");
const ENTRY: RuleId = RuleId(6);
const MODE: RuleId = RuleId(7);
/// Of the database.
const LIST: RuleId = RuleId(2);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The database lets in 198.18.9.9 at the port of [`DB_AT`], and the frontend's address too, as nobody should
/// write; port 81 is PERMISSIVE, port 82 SIMPLE.
fn world() -> World {
    let mut world = World::new();
    for name in ["database bypass", "database mode"] {
        world.snapshot.rules.push(RuleSource { name: name.into(), place: "p.yaml:9".into() });
    }
    let sources = vec![ip("198.18.9.9"), ip("198.18.1.2"), ip("198.18.1.99")];
    let database = world.database();
    database.bypass = vec![Bypass { rule: ENTRY, sources, ports: vec![at(DB_AT).port(), 81], node: vec![] }];
    database.ports = vec![(81, TlsMode::Permissive), (82, TlsMode::Simple)];
    database.mode_rules = vec![(81, MODE), (82, MODE)];
    world
}

fn port(port: u16) -> String {
    format!("{}:{port}", at(DB_AT).ip())
}

#[test]
fn a_plain_caller_is_let_in_from_exactly_there_to_exactly_there() {
    let compiled = world().compile();
    let (here, other) = (DB_AT.to_owned(), port(at(DB_AT).port() + 1));
    for (name, way, to, want) in [
        ("listed", OUTSIDE, &here, Verdict::Allow(Some(ENTRY))),
        ("the same address in IPv6 clothes", FROM_V6_CLOTHES, &here, Verdict::Allow(Some(ENTRY))),
        ("another port", OUTSIDE, &other, Verdict::Refuse(PlaintextRefused, Some(LIST))),
        ("another source", OTHER, &here, Verdict::Refuse(PlaintextRefused, Some(LIST))),
        ("nobody, behind an inside port", FROM_NOBODY, &here, Verdict::Refuse(NoIdentity, Some(LIST))),
    ] {
        let route = route(&compiled, way, to);
        assert_eq!(decide(&compiled, &route, None), want, "{name}: {route:?}");
    }
    // A workload of this node is a caller by its identity.
    let local = route(&compiled, FROM_FRONTEND, DB_AT);
    assert!(matches!(local, Route::Local { .. }), "{local:?}");
    // Who shows a certificate is held to the list.
    let inbound = route(&compiled, OUTSIDE, DB_AT);
    let stranger = peer("spiffe://example.com/stranger");
    assert_eq!(decide(&compiled, &inbound, Some(&stranger)), Verdict::Refuse(NotAllowedInbound, Some(LIST)));
    assert_eq!(decide(&compiled, &inbound, Some(&peer(FRONTEND))), Verdict::Allow(Some(LIST)));
}

#[test]
fn who_is_let_in_is_told_by_what_lets_them_in() {
    let compiled = world().compile();
    let plain = |to: &str| route(&compiled, OUTSIDE, to);
    for (name, to, is_plain, want, rule) in [
        ("a probe", DB_AT.to_owned(), true, Admitted::Bypass, ENTRY),
        ("plain under PERMISSIVE", port(81), true, Admitted::Mode, MODE),
        ("anonymous under SIMPLE", port(82), false, Admitted::Mode, MODE),
    ] {
        let route = plain(&to);
        assert_eq!(admitted(&route, is_plain), Some(want), "{name}");
        assert_eq!(decide(&compiled, &route, None), Verdict::Allow(Some(rule)), "{name}");
    }
    for (name, to) in [("mTLS under MUTUAL", DB_AT.to_owned()), ("mTLS under PERMISSIVE", port(81))] {
        assert_eq!(admitted(&plain(&to), false), Some(Admitted::Identity), "{name}");
        assert_eq!(decide(&compiled, &plain(&to), Some(&peer(FRONTEND))), Verdict::Allow(Some(LIST)), "{name}");
    }
    let local = route(&compiled, FROM_FRONTEND, DB_AT);
    assert_eq!(admitted(&local, true), Some(Admitted::Identity));
}

#[test]
fn a_living_probe_is_decided_again_by_the_entries_that_stand() {
    let mut world = world();
    let compiled = world.compile();
    let standing = Standing::new(&compiled, &route(&compiled, OUTSIDE, DB_AT), false, None);
    let again = |world: &World| {
        let newer = world.compile();
        let (side, interface, client) = OUTSIDE;
        let decided = standing.decide_again(&newer, crate::policy::Proof::NONE, side, interface, at(client), at(DB_AT));
        decided.map(|(_, rule)| rule).map_err(|lost| lost.refusal.reason)
    };
    assert_eq!(again(&world), Ok(Some(ENTRY)));
    world.database().ports.push((at(DB_AT).port(), TlsMode::Permissive));
    world.database().mode_rules.push((at(DB_AT).port(), MODE));
    assert_eq!(again(&world), Ok(Some(MODE)), "now everybody may");
    world.database().ports.pop();
    world.database().mode_rules.pop();
    world.database().bypass[0].sources.remove(0);
    assert_eq!(again(&world), Err(PolicyChanged));
}

#[test]
fn explain_and_steering_say_the_same() {
    let compiled = world().compile();
    let told = explain(&compiled, &Caller::Address(ip("198.18.9.9")), at(DB_AT), NOW);
    assert!(told.allowed && told.only_with.is_none(), "{told:?}");
    assert_eq!(told.rule.as_deref(), Some("database bypass (p.yaml:9)"));
    assert!(told.steps.iter().any(|step| step.contains("connection.bypass")), "{told:?}");
    let told = explain(&compiled, &Caller::Address(ip("198.18.9.8")), at(DB_AT), NOW);
    assert!(told.only_with.is_some(), "another needs a certificate: {told:?}");

    let made = captures(&compiled, &PORTS);
    let server = at(DB_AT);
    let mut want: Vec<_> =
        ["198.18.1.2", "198.18.1.99", "198.18.9.9"].map(|source| Bypassed { source: ip(source), server }).to_vec();
    want.sort_unstable();
    assert_eq!(made.bypassed, want, "at the port under MUTUAL, and not at the one that everybody may call");
}
