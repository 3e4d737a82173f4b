//! What steering and people see of policy is what policy does.

use std::net::SocketAddr;

use ::snapshot::report::Caller;
use ::snapshot::{Crl, Direction, Prefix, RefuseReason::*, Revoked, RuleId, Side, SourceAddress, TlsMode, Unmatched};

use super::{FROM_FRONTEND, FROM_NOBODY, route};
use crate::io::PortId;
use crate::policy::captures::{Captures, Guarded, Inbound, captures};
use crate::policy::{Route, explain};
use crate::tls::tests::certs::NOW;
use crate::tls::tests::world::{API, API_AT, DATABASE, DB_AT, FRONTEND, World, at, exact, rule};

pub const PORTS: [(PortId, &str, Side); 3] =
    [(PortId(0), "in0", Side::Inside), (PortId(1), "in1", Side::Inside), (PortId(2), "out0", Side::Outside)];

/// Whether steering hands over a SYN of `set` to `to`, and then whether nothing may pass in clear: as
/// `ask_server` of the steering program looks it up.
pub fn caught(captures: &Captures, set: u32, to: SocketAddr) -> Option<bool> {
    let inbound = [to.port(), 0]
        .iter()
        .find_map(|&port| captures.inbound.iter().find(|i| (i.address, i.port) == (to.ip(), port)))
        .and_then(|inbound| inbound.take.then_some(inbound.protected));
    let keys = [(Some(to.ip()), to.port()), (Some(to.ip()), 0), (None, to.port()), (None, 0)];
    let outbound = keys
        .iter()
        .find_map(|&(ip, port)| captures.outbound.iter().find(|o| (o.set, o.address, o.port) == (set, ip, port)))
        .map(|outbound| outbound.protected);
    inbound.into_iter().chain(outbound).reduce(|one, other| one | other)
}

#[test]
fn steering_captures_what_policy_speaks_about() {
    let mut world = World::new();
    world.database().ports = vec![(22, TlsMode::Disable), (80, TlsMode::Permissive)];
    let compiled = world.compile();
    let made = captures(&compiled, &PORTS);
    let address = "198.18.1.3".parse().unwrap();
    let of = |port| made.inbound.iter().find(|i| i.address == address && i.port == port).copied();
    assert_eq!(of(0), Some(Inbound { address, port: 0, take: true, protected: true }));
    assert_eq!(of(22), Some(Inbound { address, port: 22, take: false, protected: false }));
    assert_eq!(of(80), Some(Inbound { address, port: 80, take: true, protected: false }));
    let guard = |port, guard| Guarded { address, port, guard };
    assert_eq!(made.guarded, [guard(0, true), guard(22, false), guard(80, false)]);
    assert_eq!(made.sources.iter().map(|s| (s.port.0, s.set)).collect::<Vec<_>>(), [(0, 1), (1, 2)]);
    for (set, to, want) in [
        (1, API_AT, Some(true)),
        (2, API_AT, None),
        (0, API_AT, Some(true)),
        (1, DB_AT, Some(true)),
        (0, DB_AT, Some(true)),
        (1, "198.18.1.3:80", Some(false)),
        (1, "203.0.113.1:80", None),
        (0, "203.0.113.1:80", None),
    ] {
        assert_eq!(caught(&made, set, at(to)), want, "{set} {to}");
    }
    world.frontend().unmatched_egress = Unmatched::Refuse;
    world.snapshot.unmatched_egress = Unmatched::Refuse;
    let made = captures(&world.compile(), &PORTS);
    for set in [0, 1] {
        assert!(caught(&made, set, at("203.0.113.1:80")) == Some(true));
    }
    assert_eq!(caught(&made, 2, at("203.0.113.1:80")), None);
}

#[test]
fn captures_grow_with_the_workloads_and_not_with_their_square() {
    let mut world = World::new();
    let pattern = world.database().clone();
    world.snapshot.workloads = (0..500u32)
        .map(|n| {
            let mut workload = ::snapshot::Workload { name: format!("apps/w{n}"), svid: None, ..pattern.clone() };
            workload.places[0].prefix = Prefix::host(std::net::Ipv4Addr::from_bits(0xc612_8000 + n).into());
            workload
        })
        .collect();
    let made = captures(&world.compile(), &PORTS);
    assert_eq!((made.inbound.len(), made.sources.len()), (500, 500));
    assert!(made.outbound.len() < 100, "{} entries of outbound captures", made.outbound.len());
    // A call from one to another of them is captured all the same.
    assert_eq!(caught(&made, 1, "198.18.129.1:7000".parse().unwrap()), Some(true));
}

#[test]
fn egress_modes_decide_what_is_captured_and_what_may_never_pass_in_clear() {
    for (mode, listed, want) in [
        (TlsMode::Mutual, false, Some(true)),
        (TlsMode::Simple, false, Some(true)),
        (TlsMode::Permissive, false, Some(false)),
        (TlsMode::Permissive, true, Some(true)),
        (TlsMode::Disable, false, None),
    ] {
        let mut world = World::new();
        world.frontend().egress = vec![rule(4, 0, Some(mode), listed.then(|| vec![exact(API)]))];
        let made = captures(&world.compile(), &PORTS);
        assert_eq!(caught(&made, 1, at(API_AT)), want, "{mode:?} {listed}");
    }
}

#[test]
fn a_workload_that_disables_tls_is_captured_at_no_port_but_those_it_names() {
    let mut world = World::new();
    world.database().mode = TlsMode::Disable;
    world.database().ports = vec![(22, TlsMode::Disable), (443, TlsMode::Mutual)];
    let made = captures(&world.compile(), &PORTS);
    let address = "198.18.1.3".parse().unwrap();
    let its: Vec<_> = made.inbound.iter().filter(|i| i.address == address).map(|i| (i.port, i.take)).collect();
    assert_eq!(its, [(443, true)]);
    assert_eq!(made.guarded, [Guarded { address, port: 443, guard: true }]);
}

#[test]
fn a_range_is_entered_address_by_address_and_one_too_wide_is_reported() {
    let mut world = World::new();
    world.frontend().mode = TlsMode::Mutual;
    world.frontend().places[0].prefix = Prefix::new("198.18.1.0".parse().unwrap(), 24);
    let made = captures(&world.compile(), &PORTS);
    assert_eq!(made.inbound.len(), 256);
    assert!(made.too_wide.is_empty());
    let wide = Prefix::new("2001:db8::".parse().unwrap(), 64);
    world.frontend().places[0].prefix = wide;
    assert_eq!(captures(&world.compile(), &PORTS).too_wide, [(0, wide)]);
}

#[test]
fn what_is_not_captured_is_what_route_would_pass_untouched() {
    let mut world = World::new();
    world.database().ports = vec![(22, TlsMode::Disable), (80, TlsMode::Permissive)];
    for bend in 0..4 {
        if bend & 1 != 0 {
            world.frontend().unmatched_egress = Unmatched::Refuse;
        }
        if bend & 2 != 0 {
            world.snapshot.unmatched_egress = Unmatched::Refuse;
        }
        let compiled = world.compile();
        let made = captures(&compiled, &PORTS);
        let ways = [(1, FROM_FRONTEND), (2, (Side::Inside, "in1", "198.18.1.3:40000")), (0, FROM_NOBODY)];
        for (set, way) in ways {
            for to in [API_AT, DB_AT, "198.18.1.3:80", "198.18.2.2:3001", "203.0.113.1:80", "198.18.1.2:7"] {
                if caught(&made, set, at(to)).is_none() {
                    let route = route(&compiled, way, to);
                    assert!(matches!(route, Route::Plain { .. }), "{set} {to}: {route:?} is not captured");
                }
            }
        }
    }
}

#[test]
fn an_explanation_agrees_with_route_and_verdict() {
    let mut world = World::new();
    world.database().ports = vec![(22, TlsMode::Disable), (80, TlsMode::Permissive), (443, TlsMode::Simple)];
    world.frontend().outbound = Some(vec![exact(API), exact(DATABASE)]);
    let compiled = world.compile();
    let id = |id: &str| Caller::Id(id.into());
    let address = |a: &str| Caller::Address(a.parse().unwrap());
    use Direction::{Egress, Inbound, Local};
    for (caller, to, direction, want, said) in [
        (id(FRONTEND), API_AT, Some(Egress), Ok(false), "selected by to api (p.yaml:4), mode MUTUAL"),
        (id(FRONTEND), DB_AT, Some(Local), Ok(false), "workload apps/database of this node"),
        (address("198.18.1.2"), DB_AT, Some(Local), Ok(false), "is workload apps/frontend"),
        (id(FRONTEND), "203.0.113.1:80", Some(Egress), Ok(true), "unmatchedEgress is pass"),
        (id(API), DB_AT, Some(Inbound), Err(NotAllowedInbound), "the nearest entry is spiffe://example.com/myapp/"),
        (id("spiffe://partner.org/billing/x"), DB_AT, Some(Inbound), Ok(false), "database inbound (p.yaml:2)"),
        (id("spiffe://nowhere.org/x"), DB_AT, Some(Inbound), Err(PeerTrustDomainUnknown), "no bundle"),
        (id("nonsense"), DB_AT, Some(Inbound), Err(PeerNoSpiffeId), "is no SPIFFE ID"),
        (id(API), "203.0.113.1:80", None, Err(NoIdentity), "no workload of this node"),
        (address("198.18.9.9"), DB_AT, Some(Inbound), Ok(false), "certificate decides, not its address"),
        (address("198.18.9.9"), "198.18.1.3:80", Some(Inbound), Ok(false), "mode PERMISSIVE"),
        (address("198.18.9.9"), "198.18.1.3:443", Some(Inbound), Ok(false), "mode SIMPLE"),
        (address("198.18.9.9"), "198.18.1.3:22", Some(Inbound), Ok(true), "untouched"),
        (address("198.18.1.99"), API_AT, None, Err(NoIdentity), "calls service apps/api without an identity"),
    ] {
        let told = explain(&compiled, &caller, at(to), NOW);
        let name = format!("{caller:?} to {to}: {told:#?}");
        assert_eq!(told.direction, direction, "{name}");
        assert_eq!(told.refused, want.err(), "{name}");
        assert_eq!((told.allowed, told.passed), (want.is_ok(), want == Ok(true)), "{name}");
        assert_eq!(told.only_with.is_some(), said.contains("certificate decides"), "{name}");
        assert!(told.steps.join("\n").contains(said), "{name}");
        assert_eq!(told.version.0, 7);
    }
    // The entry's list and the workload's say the same, and so it is said once.
    world.frontend().egress[0].allowed = Some(vec![exact(API), exact(DATABASE)]);
    let told = explain(&world.compile(), &id(FRONTEND), at(API_AT), NOW);
    let lines: Vec<_> = told.steps.iter().filter(|step| step.contains("must be one of")).collect();
    assert_eq!(lines, [&format!("The server must be one of: {DATABASE}, {API}.")], "{told:#?}");
    world.frontend().egress[0].allowed = Some(vec![exact(API)]);
    let told = explain(&world.compile(), &id(FRONTEND), at(API_AT), NOW);
    assert!(
        told.steps.contains(&format!("The server must be one of: {API}; and one of: {DATABASE}, {API}.")),
        "{told:#?}"
    );
    let told = explain(&world.compile(), &address("198.18.9.9"), at(DB_AT), NOW);
    assert_eq!(told.only_with.as_deref(), Some(format!("{FRONTEND}, spiffe://partner.org/billing/*").as_str()));
    world.frontend().outbound = Some(vec![exact(DATABASE)]);
    let told = explain(&world.compile(), &id(FRONTEND), at(API_AT), NOW);
    assert_eq!(told.refused, Some(NotAllowedOutbound), "{told:#?}");
    let told = explain(&world.compile(), &id(FRONTEND), at(API_AT), NOW + 9999);
    assert_eq!(told.refused, Some(NoSvid), "{told:#?}");
}

#[test]
fn an_explanation_says_that_the_far_side_sees_another_address_where_it_does() {
    let mut world = World::new();
    let seen_as = "The far side sees an address of this node, not the caller's (source: node).".to_owned();
    world.frontend().outbound = None;
    world.frontend().egress[0].allowed = None;
    for (source, mode, want) in [
        (SourceAddress::Preserve, TlsMode::Mutual, false),
        (SourceAddress::Node, TlsMode::Mutual, true),
        (SourceAddress::Node, TlsMode::Permissive, true),
        (SourceAddress::Node, TlsMode::Disable, false),
    ] {
        (world.frontend().egress[0].source, world.frontend().egress[0].mode) = (source, Some(mode));
        let told = explain(&world.compile(), &Caller::Id(FRONTEND.into()), at(API_AT), NOW);
        assert_eq!((told.allowed, told.steps.contains(&seen_as)), (true, want), "{source:?} {mode:?}: {told:#?}");
    }
}

#[test]
fn an_explanation_names_the_entry_that_revokes_an_end() {
    const CALLER: &str = "spiffe://partner.org/billing/x";
    let revoked = |domain: &str, id: &str| Revoked {
        trust_domain: domain.into(),
        ids: vec![(exact(id), RuleId(1))],
        ..Revoked::default()
    };
    let (by_id, by_address) = (Caller::Id(CALLER.into()), Caller::Address("198.18.9.9".parse().unwrap()));
    for (name, list, caller, to) in [
        ("the caller", revoked("partner.org", CALLER), by_id.clone(), DB_AT),
        ("the callee", revoked("example.com", DATABASE), by_id.clone(), DB_AT),
        ("the callee, of whoever calls", revoked("example.com", DATABASE), by_address.clone(), DB_AT),
        ("the only server", revoked("example.com", API), Caller::Id(FRONTEND.into()), API_AT),
        ("the own workload", revoked("example.com", FRONTEND), Caller::Id(FRONTEND.into()), API_AT),
        ("an end of a local call", revoked("example.com", DATABASE), Caller::Id(FRONTEND.into()), DB_AT),
    ] {
        let mut world = World::new();
        assert!(explain(&world.compile(), &caller, at(to), NOW).allowed, "{name}: before");
        world.snapshot.revoked = vec![list];
        let told = explain(&world.compile(), &caller, at(to), NOW);
        assert_eq!((told.allowed, told.refused), (false, Some(PeerRevoked)), "{name}: {told:#?}");
        assert_eq!(told.rule.as_deref(), Some("frontend outbound (p.yaml:1)"), "{name}");
    }
    // Whom a path admits is not all revoked with one of them.
    let mut world = World::new();
    world.snapshot.revoked = vec![revoked("example.com", FRONTEND)];
    let told = explain(&world.compile(), &by_address, at(DB_AT), NOW);
    assert!(told.allowed && told.only_with.is_some(), "{told:#?}");
}

#[test]
fn an_explanation_names_the_crl_that_is_stale() {
    let crl = Crl { issuer: [1; 32], serials: vec![], rule: RuleId(1), fails_after: Some(NOW - 1), is_stale: true };
    let mut world = World::new();
    world.snapshot.revoked =
        vec![Revoked { trust_domain: "partner.org".into(), crls: vec![crl], ..Revoked::default() }];
    let told = |caller: &str| explain(&world.compile(), &Caller::Id(caller.into()), at(DB_AT), NOW);
    let theirs = told("spiffe://partner.org/billing/x");
    assert_eq!((theirs.refused, theirs.rule.as_deref()), (Some(CrlStale), Some("frontend outbound (p.yaml:1)")));
    assert!(theirs.steps.iter().any(|step| step.contains("says onStale: fail")), "{theirs:#?}");
    assert!(told(FRONTEND).allowed, "it is of another trust domain");
}
