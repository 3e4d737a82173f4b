//! What each mode and list comes to, inbound, egress and between workloads of one node.

use std::sync::Arc;

use ::snapshot::{Prefix, RefuseReason::*, RuleId, Side, SourceAddress, TlsMode, Unmatched};

use super::{FROM_FRONTEND, FROM_NOBODY, OUTSIDE, Way, peer, route};
use crate::policy::{Ends, Route, Verdict, Why, decide};
use crate::snapshot::{Compiled, Error};
use crate::tls::tests::certs::NOW;
use crate::tls::tests::world::{API, API_AT, DATABASE, DB_AT, FRONTEND, World, at, exact, rule};

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
        world.frontend().unmatched_rule = Some(RuleId(1));
        let refused = route(&world.compile(), FROM_FRONTEND, to);
        let Route::Refuse { detail: Some(detail), rule, .. } = refused else { panic!() };
        assert!(detail.contains(why), "{detail}");
        assert_eq!(rule, Some(RuleId(1)), "the word that decided is named");
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

#[test]
fn why_plain_is_named() {
    let compiled: Arc<Compiled> = World::new().compile();
    let ends = Ends { client: at(FROM_FRONTEND.2).ip(), server: at("203.0.113.1:80") };
    let (why, source) = (Why::UnmatchedEgress, SourceAddress::Preserve);
    assert_eq!(
        route(&compiled, FROM_FRONTEND, "203.0.113.1:80"),
        Route::Plain { workload: Some(0), why, rule: None, source, outbound: Some(ends) }
    );
}
