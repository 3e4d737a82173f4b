//! Every sentence of decision D11, and that route, verdict, explanation and captures agree.

use std::net::SocketAddr;
use std::sync::Arc;

use ::snapshot::report::Caller;
use ::snapshot::{Direction, Prefix, RefuseReason::*, RuleId, Side, TlsMode, Unmatched};

use super::captures::{Captures, Guarded, Inbound, Outbound, captures};
use super::{Route, Standing, Verdict, Why, decide, explain};
use crate::io::PortId;
use crate::snapshot::{Compiled, Error};
use crate::tls::Peer;
use crate::tls::tests::certs::NOW;
use crate::tls::tests::world::{API, API_AT, DATABASE, DB_AT, FRONTEND, World, at, exact, rule};

const OUTSIDE: (Side, &str, &str) = (Side::Outside, "out0", "198.18.9.9:40000");
const FROM_FRONTEND: (Side, &str, &str) = (Side::Inside, "in0", "198.18.1.2:40000");
const FROM_NOBODY: (Side, &str, &str) = (Side::Inside, "in0", "198.18.1.99:40000");

type Way = (Side, &'static str, &'static str);

fn route(compiled: &Compiled, (side, interface, client): Way, to: &str) -> Route {
    compiled.route(side, interface, at(client), at(to), NOW)
}

fn peer(id: &str) -> Peer {
    Peer { spiffe_id: id.into(), serial: "1".into(), not_after: NOW + 60 }
}

/// Route and verdict in a word: what a call comes to, for a peer that shows `id`.
fn outcome(world: &World, way: Way, to: &str, id: Option<&str>) -> String {
    let compiled = world.compile();
    let route = route(&compiled, way, to);
    let name = match &route {
        Route::Inbound { .. } => "Inbound".to_owned(),
        Route::Egress { mode, .. } => format!("Egress {}", mode.name()),
        Route::Local { .. } => "Local".to_owned(),
        Route::Plain { why, .. } => format!("Plain {}", why.name()),
        Route::Refuse { .. } => "Refuse".to_owned(),
    };
    match decide(&compiled, &route, id.map(peer).as_ref()) {
        Verdict::Allow(_) => name,
        Verdict::Refuse(reason, _) => format!("{name} {reason}"),
    }
}

#[test]
fn inbound_each_mode_asks_of_a_caller_what_it_says() {
    let lists: [(&str, Option<Vec<_>>); 3] =
        [("no list", None), ("empty list", Some(vec![])), ("a list", Some(vec![exact(FRONTEND)]))];
    for (mode, list, listed, unlisted, anonymous) in [
        (TlsMode::Mutual, 0, "Inbound NoInboundList", "Inbound NoInboundList", "Inbound PlaintextRefused"),
        (TlsMode::Mutual, 1, "Inbound NotAllowedInbound", "Inbound NotAllowedInbound", "Inbound PlaintextRefused"),
        (TlsMode::Mutual, 2, "Inbound", "Inbound NotAllowedInbound", "Inbound PlaintextRefused"),
        (TlsMode::Permissive, 0, "Inbound", "Inbound", "Inbound"),
        (TlsMode::Permissive, 1, "Inbound NotAllowedInbound", "Inbound NotAllowedInbound", "Inbound"),
        (TlsMode::Permissive, 2, "Inbound", "Inbound NotAllowedInbound", "Inbound"),
        (TlsMode::Simple, 0, "Inbound", "Inbound", "Inbound"),
        (TlsMode::Disable, 0, "Plain Disabled", "Plain Disabled", "Plain Disabled"),
    ] {
        let mut world = World::new();
        world.database().mode = mode;
        world.database().inbound = lists[list].1.clone();
        for (id, want) in [(Some(FRONTEND), listed), (Some(API), unlisted), (None, anonymous)] {
            assert_eq!(outcome(&world, OUTSIDE, DB_AT, id), want, "{mode:?}, {}, {id:?}", lists[list].0);
        }
    }
}

#[test]
fn inbound_a_ports_own_mode_overrides_the_workloads() {
    let mut world = World::new();
    world.database().ports =
        vec![(9000, TlsMode::Disable), (80, TlsMode::Permissive), (443, TlsMode::Simple), (22, TlsMode::Disable)];
    for (to, want) in [
        ("198.18.1.3:80", "Inbound"),
        ("198.18.1.3:443", "Inbound"),
        ("198.18.1.3:9000", "Plain Disabled"),
        ("198.18.1.3:22", "Plain Disabled"),
        ("198.18.1.3:81", "Inbound PlaintextRefused"),
        ("[::ffff:198.18.1.3]:81", "Inbound PlaintextRefused"),
        ("198.18.1.77:81", "Plain NotOurs"),
    ] {
        assert_eq!(outcome(&world, OUTSIDE, to, None), want, "{to}");
    }
}

#[test]
fn egress_is_the_entrys_list_and_the_workloads_outbound_list() {
    let mut world = World::new();
    let ok = |world: &World, id| outcome(world, FROM_FRONTEND, API_AT, Some(id));
    let refused = "Egress MUTUAL NotAllowedOutbound";
    assert_eq!(ok(&world, API), "Egress MUTUAL");
    assert_eq!(ok(&world, DATABASE), refused);
    world.frontend().outbound = Some(vec![exact(DATABASE)]);
    assert_eq!((ok(&world, API).as_str(), ok(&world, DATABASE).as_str()), (refused, refused));
    world.frontend().outbound = Some(vec![exact(API), exact(DATABASE)]);
    assert_eq!((ok(&world, API).as_str(), ok(&world, DATABASE).as_str()), ("Egress MUTUAL", refused));
    world.frontend().egress[0].allowed = None;
    assert_eq!((ok(&world, API).as_str(), ok(&world, DATABASE).as_str()), ("Egress MUTUAL", "Egress MUTUAL"));
    world.frontend().outbound = None;
    assert_eq!(ok(&world, "spiffe://partner.org/any"), "Egress MUTUAL", "no list does not restrict");
    world.frontend().outbound = Some(vec![]);
    assert_eq!(ok(&world, API), refused, "an empty list admits nobody");
    assert_eq!(outcome(&world, FROM_FRONTEND, API_AT, None), refused, "who shows nothing is in no list");
}

#[test]
fn egress_each_mode_does_what_it_says() {
    for (own, entry, listed, want) in [
        (TlsMode::Permissive, Some(TlsMode::Mutual), true, "Egress MUTUAL"),
        (TlsMode::Mutual, None, true, "Egress MUTUAL"),
        (TlsMode::Mutual, Some(TlsMode::Simple), true, "Egress SIMPLE"),
        (TlsMode::Simple, None, true, "Egress SIMPLE"),
        // A plain server has no SPIFFE ID, so it is in no list.
        (TlsMode::Mutual, Some(TlsMode::Permissive), true, "Refuse NotAllowedOutbound"),
        (TlsMode::Permissive, None, false, "Plain PermissiveEgress"),
        (TlsMode::Mutual, Some(TlsMode::Permissive), false, "Plain PermissiveEgress"),
        (TlsMode::Mutual, Some(TlsMode::Disable), true, "Plain Disabled"),
        (TlsMode::Disable, None, false, "Plain Disabled"),
    ] {
        let mut world = World::new();
        world.frontend().mode = own;
        world.frontend().egress = vec![rule(4, 0, entry, listed.then(|| vec![exact(API)]))];
        assert_eq!(outcome(&world, FROM_FRONTEND, API_AT, Some(API)), want, "{own:?} {entry:?} {listed}");
        world.frontend().egress = vec![rule(4, 0, entry, None)];
        world.frontend().outbound = listed.then(|| vec![exact(API)]);
        assert_eq!(outcome(&world, FROM_FRONTEND, API_AT, Some(API)), want, "{own:?} {entry:?} {listed} (outbound)");
    }
}

#[test]
fn egress_that_no_entry_matches_passes_or_is_refused_as_configured() {
    let mut world = World::new();
    for (to, why) in [("203.0.113.1:80", "no endpoint of any Service"), ("198.18.2.2:3001", "no endpoint")] {
        world.frontend().unmatched_egress = Unmatched::Pass;
        assert_eq!(outcome(&world, FROM_FRONTEND, to, None), "Plain UnmatchedEgress");
        world.frontend().unmatched_egress = Unmatched::Refuse;
        assert_eq!(outcome(&world, FROM_FRONTEND, to, None), "Refuse UnmatchedEgress");
        let Route::Refuse { detail: Some(detail), .. } = route(&world.compile(), FROM_FRONTEND, to) else { panic!() };
        assert!(detail.contains(why), "{detail}");
    }
    world.frontend().egress.remove(0);
    let Route::Refuse { detail: Some(detail), .. } = route(&world.compile(), FROM_FRONTEND, API_AT) else { panic!() };
    assert!(detail.contains("service apps/api, which no egress entry of apps/frontend selects"), "{detail}");
}

#[test]
fn the_first_entry_that_selects_a_destination_decides() {
    let mut world = World::new();
    let again = world.snapshot.services[0].clone();
    world.snapshot.services.push(again);
    world.frontend().egress =
        vec![rule(5, 2, Some(TlsMode::Simple), None), rule(4, 0, Some(TlsMode::Mutual), Some(vec![]))];
    assert_eq!(outcome(&world, FROM_FRONTEND, API_AT, Some(API)), "Egress SIMPLE");
    world.frontend().egress.reverse();
    assert_eq!(outcome(&world, FROM_FRONTEND, API_AT, Some(API)), "Egress MUTUAL NotAllowedOutbound");
}

#[test]
fn who_has_no_identity_is_refused_at_services_of_ours_and_passes_elsewhere_if_that_passes() {
    let mut world = World::new();
    assert_eq!(outcome(&world, FROM_NOBODY, API_AT, None), "Refuse NoIdentity");
    assert_eq!(outcome(&world, FROM_NOBODY, DB_AT, None), "Refuse NoIdentity");
    assert_eq!(outcome(&world, FROM_NOBODY, "203.0.113.1:80", None), "Plain NoIdentity");
    // The frontend's address on another interface than its own is nobody's.
    assert_eq!(outcome(&world, (Side::Inside, "in1", "198.18.1.2:40000"), API_AT, None), "Refuse NoIdentity");
    world.snapshot.unmatched_egress = Unmatched::Refuse;
    assert_eq!(outcome(&world, FROM_NOBODY, "203.0.113.1:80", None), "Refuse NoIdentity");
    for (mode, want) in
        [(TlsMode::Permissive, "Inbound"), (TlsMode::Simple, "Inbound"), (TlsMode::Disable, "Plain Disabled")]
    {
        world.database().mode = mode;
        assert_eq!(outcome(&world, FROM_NOBODY, DB_AT, None), want, "{mode:?}");
    }
}

#[test]
fn local_calls_are_decided_by_both_policies() {
    let ok = |world: &World| outcome(world, FROM_FRONTEND, DB_AT, None);
    let mut world = World::new();
    assert_eq!(ok(&world), "Local");
    world.database().inbound = Some(vec![exact(API)]);
    assert_eq!(ok(&world), "Local NotAllowedInbound");
    world.database().inbound = None;
    assert_eq!(ok(&world), "Local NoInboundList");
    let mut world = World::new();
    world.frontend().outbound = Some(vec![exact(API)]);
    assert_eq!(ok(&world), "Local NotAllowedOutbound");
    world.frontend().outbound = Some(vec![exact(DATABASE)]);
    assert_eq!(ok(&world), "Local");
    world.frontend().egress[1].allowed = Some(vec![exact(API)]);
    assert_eq!(ok(&world), "Local NotAllowedOutbound");
    let mut world = World::new();
    world.frontend().egress.clear();
    assert_eq!(ok(&world), "Local", "unmatched calls pass, and the callee knows the caller");
    world.frontend().unmatched_egress = Unmatched::Refuse;
    assert_eq!(ok(&world), "Refuse UnmatchedEgress");
}

#[test]
fn local_calls_follow_the_modes_of_both_ends() {
    for (mode_in, entry, listed, want) in [
        (TlsMode::Permissive, TlsMode::Mutual, false, "Local NotAllowedInbound"),
        (TlsMode::Permissive, TlsMode::Permissive, false, "Local"),
        (TlsMode::Permissive, TlsMode::Mutual, true, "Local"),
        (TlsMode::Mutual, TlsMode::Permissive, true, "Local"),
        (TlsMode::Mutual, TlsMode::Permissive, false, "Local NotAllowedInbound"),
        (TlsMode::Simple, TlsMode::Simple, false, "Local"),
        // The caller does its own TLS: to the callee's port it is like any stranger.
        (TlsMode::Mutual, TlsMode::Disable, true, "Inbound PlaintextRefused"),
        // The callee does its own TLS: the caller's entry goes out as to any service.
        (TlsMode::Disable, TlsMode::Mutual, true, "Egress MUTUAL"),
        (TlsMode::Disable, TlsMode::Disable, true, "Plain Disabled"),
    ] {
        let mut world = World::new();
        world.database().mode = mode_in;
        world.database().inbound = Some(vec![exact(if listed { FRONTEND } else { API })]);
        world.frontend().egress = vec![rule(5, 1, Some(entry), None)];
        assert_eq!(outcome(&world, FROM_FRONTEND, DB_AT, None), want, "{mode_in:?} {entry:?} {listed}");
    }
}

#[test]
fn without_a_valid_svid_what_needs_one_is_refused_and_the_rest_goes_on() {
    let world = World::new();
    let compiled = world.compile();
    let reason = |way: Way, to: &str, now| match compiled.route(way.0, way.1, at(way.2), at(to), now) {
        Route::Refuse { reason, .. } => Some(reason),
        Route::Inbound { .. } | Route::Egress { .. } | Route::Local { .. } | Route::Plain { .. } => None,
    };
    for (way, to) in [(OUTSIDE, DB_AT), (FROM_FRONTEND, API_AT), (FROM_FRONTEND, DB_AT)] {
        assert_eq!(reason(way, to, NOW + 3600), None);
        assert_eq!(reason(way, to, NOW + 3601), Some(NoSvid), "{to}");
        assert_eq!(reason(way, to, NOW - 61), Some(NoSvid), "{to}");
    }
    assert_eq!(reason(FROM_FRONTEND, "203.0.113.1:80", NOW + 9999), None);
    let mut world = World::new();
    world.database().svid = None;
    world.frontend().svid = None;
    assert_eq!(outcome(&world, FROM_FRONTEND, API_AT, Some(API)), "Refuse NoSvid");
    assert_eq!(outcome(&world, OUTSIDE, DB_AT, Some(FRONTEND)), "Refuse NoSvid");
    world.database().mode = TlsMode::Permissive;
    assert_eq!(outcome(&world, OUTSIDE, DB_AT, None), "Inbound", "a plain caller needs no SVID of ours");
    world.frontend().egress[0].mode = Some(TlsMode::Simple);
    assert_eq!(outcome(&world, FROM_FRONTEND, API_AT, Some(API)), "Egress SIMPLE");
}

#[test]
fn a_verdict_names_the_rule_that_made_it() {
    let mut world = World::new();
    world.frontend().outbound = Some(vec![exact(API)]);
    world.frontend().egress[0].allowed = Some(vec![exact(API), exact(DATABASE)]);
    let compiled = world.compile();
    let of = |way, to, id| decide(&compiled, &route(&compiled, way, to), Some(&peer(id)));
    assert_eq!(of(FROM_FRONTEND, API_AT, API), Verdict::Allow(Some(RuleId(4))));
    assert_eq!(of(FROM_FRONTEND, API_AT, DATABASE), Verdict::Refuse(NotAllowedOutbound, Some(RuleId(1))));
    assert_eq!(of(FROM_FRONTEND, API_AT, FRONTEND), Verdict::Refuse(NotAllowedOutbound, Some(RuleId(4))));
    assert_eq!(of(OUTSIDE, DB_AT, FRONTEND), Verdict::Allow(Some(RuleId(2))));
    assert_eq!(of(OUTSIDE, DB_AT, API), Verdict::Refuse(NotAllowedInbound, Some(RuleId(2))));
}

#[test]
fn one_address_leads_to_one_workload_also_over_two_interfaces() {
    let mut world = World::new();
    world.frontend().places[0].prefix = Prefix::new("198.18.1.0".parse().unwrap(), 24);
    assert_eq!(outcome(&world, OUTSIDE, DB_AT, Some(FRONTEND)), "Inbound", "the longer prefix is the database's");
    let mut place = world.database().places[0].clone();
    place.interface = "in0".into();
    world.frontend().places[0] = place;
    assert!(matches!(world.try_compile(None), Err(Error::Destination { .. })));
    // "Everything behind in0" says who sends and claims no address.
    world.frontend().places[0].prefix = Prefix::new("0.0.0.0".parse().unwrap(), 0);
    assert_eq!(outcome(&world, OUTSIDE, "203.0.113.1:80", None), "Plain NotOurs");
    assert_eq!(outcome(&world, FROM_NOBODY, API_AT, Some(API)), "Egress MUTUAL");
}

/// Compiles the world, lets a call stand, changes the world, and asks again.
fn again(way: Way, to: &str, tls: bool, id: Option<&str>, change: impl Fn(&mut World)) -> Option<String> {
    let mut world = World::new();
    world.database().ports = vec![(80, TlsMode::Permissive), (443, TlsMode::Simple)];
    let before = world.compile();
    let first = route(&before, way, to);
    let standing = Standing::new(&before, &first, tls, id.map(peer).as_ref());
    change(&mut world);
    let after = world.compile();
    match standing.decide_again(&after, way.0, way.1, at(way.2), at(to)) {
        Ok(_) => None,
        Err(refusal) => {
            assert_eq!(refusal.reason, PolicyChanged);
            Some(refusal.detail.unwrap())
        }
    }
}

#[test]
fn a_living_connection_outlasts_what_leaves_it_allowed() {
    let reorder = |world: &mut World| {
        world.snapshot.workloads.reverse();
        world.snapshot.workloads[0].svid = None;
        world.snapshot.workloads[1].svid = None;
    };
    for (way, to, tls, id) in [
        (OUTSIDE, DB_AT, true, Some(FRONTEND)),
        (OUTSIDE, "198.18.1.3:80", false, None),
        (OUTSIDE, "198.18.1.3:80", true, Some(FRONTEND)),
        (OUTSIDE, "198.18.1.3:443", true, None),
        (FROM_FRONTEND, API_AT, true, Some(API)),
        (FROM_FRONTEND, DB_AT, false, None),
        (FROM_FRONTEND, "203.0.113.1:80", false, None),
    ] {
        assert_eq!(again(way, to, tls, id, |_| ()), None, "{to}: nothing changed");
        assert_eq!(again(way, to, tls, id, reorder), None, "{to}: SVIDs gone, indices other");
    }
}

#[test]
fn a_living_connection_ends_when_its_permission_does() {
    type Change = fn(&mut World);
    let inbound: Change = |w| w.database().inbound = Some(vec![exact(API)]);
    let cases: [(&str, Way, &str, bool, Option<&str>, Change); 11] = [
        ("taken off the list", OUTSIDE, DB_AT, true, Some(FRONTEND), inbound),
        ("taken off, local", FROM_FRONTEND, DB_AT, false, None, inbound),
        ("taken off, outbound", FROM_FRONTEND, API_AT, true, Some(API), |w| w.frontend().outbound = Some(vec![])),
        ("plain, now MUTUAL", OUTSIDE, "198.18.1.3:80", false, None, |w| w.database().ports.clear()),
        ("anonymous, now MUTUAL", OUTSIDE, "198.18.1.3:443", true, None, |w| w.database().ports.clear()),
        ("MUTUAL, now DISABLE", OUTSIDE, DB_AT, true, Some(FRONTEND), |w| w.database().mode = TlsMode::Disable),
        ("the entry is gone", FROM_FRONTEND, API_AT, true, Some(API), |w| drop(w.frontend().egress.remove(0))),
        ("unmatched, now refused", FROM_FRONTEND, "203.0.113.1:80", false, None, |w| {
            w.frontend().unmatched_egress = Unmatched::Refuse;
        }),
        ("unmatched, now a MUTUAL service", FROM_FRONTEND, "203.0.113.1:80", false, None, |w| {
            w.snapshot.services[0].endpoints[0].address = at("203.0.113.1:80");
        }),
        ("no bundle any more", OUTSIDE, DB_AT, true, Some("spiffe://partner.org/billing/x"), |w| {
            w.snapshot.bundles.pop();
        }),
        ("the address is another's", OUTSIDE, DB_AT, true, Some(FRONTEND), |w| {
            let places = std::mem::take(&mut w.database().places);
            w.frontend().places.extend(places);
            w.frontend().inbound = Some(vec![exact(FRONTEND)]);
            w.frontend().mode = TlsMode::Mutual;
        }),
    ];
    for (name, way, to, tls, id, change) in cases {
        assert_eq!(again(way, to, tls, id, |_| ()), None, "{name}: stands before");
        assert!(again(way, to, tls, id, change).is_some(), "{name}");
    }
}

const PORTS: [(PortId, &str, Side); 3] =
    [(PortId(0), "in0", Side::Inside), (PortId(1), "in1", Side::Inside), (PortId(2), "out0", Side::Outside)];

fn caught<'a>(captures: &'a Captures, set: u32, to: SocketAddr) -> Option<&'a Outbound> {
    let keys = [(Some(to.ip()), to.port()), (Some(to.ip()), 0), (None, 0)];
    keys.iter().find_map(|&(ip, port)| captures.outbound.iter().find(|o| (o.set, o.address, o.port) == (set, ip, port)))
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
        assert_eq!(caught(&made, set, at(to)).map(|o| o.protected), want, "{set} {to}");
    }
    world.frontend().unmatched_egress = Unmatched::Refuse;
    world.snapshot.unmatched_egress = Unmatched::Refuse;
    let made = captures(&world.compile(), &PORTS);
    for set in [0, 1] {
        assert!(caught(&made, set, at("203.0.113.1:80")).is_some_and(|o| o.protected));
    }
    assert_eq!(caught(&made, 2, at("203.0.113.1:80")), None);
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
        assert_eq!(caught(&made, 1, at(API_AT)).map(|o| o.protected), want, "{mode:?} {listed}");
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
        assert!(told.steps.join("\n").contains(said), "{name}");
        assert_eq!(told.version.0, 7);
    }
    world.frontend().outbound = Some(vec![exact(DATABASE)]);
    let told = explain(&world.compile(), &id(FRONTEND), at(API_AT), NOW);
    assert_eq!(told.refused, Some(NotAllowedOutbound), "{told:#?}");
    let told = explain(&world.compile(), &id(FRONTEND), at(API_AT), NOW + 9999);
    assert_eq!(told.refused, Some(NoSvid), "{told:#?}");
}

#[test]
fn why_plain_is_named() {
    let compiled: Arc<Compiled> = World::new().compile();
    let plain = route(&compiled, FROM_FRONTEND, "203.0.113.1:80");
    assert_eq!(plain, Route::Plain { workload: Some(0), why: Why::UnmatchedEgress, rule: None });
}
