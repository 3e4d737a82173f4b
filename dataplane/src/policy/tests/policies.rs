//! What rules of policies do beside the agreement with their words: which one is named, what is captured
//! for them, what people are told, and what a newer snapshot takes over.

use std::net::SocketAddr;

use ::snapshot::report::Caller;
use ::snapshot::{
    Action, Enforcement, Policy, PolicyRule, PortRange, Prefix, RefuseReason::*, Revoked, RuleDirection, RuleId,
    RuleSource, TlsMode, Unmatched,
};

use super::views::{PORTS, caught};
use super::{FROM_FRONTEND, OUTSIDE, Way, peer, route};
use crate::policy::captures::captures;
use crate::policy::{Route, Verdict, Would, decide, explain, shadow};
use crate::snapshot::Compiled;
use crate::tls::tests::certs::NOW;
use crate::tls::tests::world::{API, API_AT, DATABASE, DB_AT, FRONTEND, World, at, exact};

/// The first number that a policy's rules have in [`World`].
const FIRST: u32 = 6;

fn rule(action: Action, direction: RuleDirection) -> PolicyRule {
    let enforcement = Enforcement::Enforce;
    PolicyRule { action, direction, enforcement, peers: vec![], cidrs: vec![], ports: vec![] }
}

pub(super) fn deny_inbound() -> PolicyRule {
    rule(Action::Deny, RuleDirection::Inbound)
}

pub(super) fn deny_outbound() -> PolicyRule {
    rule(Action::Deny, RuleDirection::Outbound)
}

fn of(id: &str, rule: PolicyRule) -> PolicyRule {
    PolicyRule { peers: vec![exact(id)], ..rule }
}

pub(super) fn at_cidr(cidr: &str, rule: PolicyRule) -> PolicyRule {
    let (address, length) = cidr.split_once('/').unwrap();
    PolicyRule { cidrs: vec![Prefix::new(address.parse().unwrap(), length.parse().unwrap())], ..rule }
}

fn on(first: u16, last: u16, rule: PolicyRule) -> PolicyRule {
    PolicyRule { ports: vec![PortRange::new(first, last).unwrap()], ..rule }
}

/// A policy of these rules for both workloads.
pub(super) fn with(world: &mut World, rules: Vec<PolicyRule>) {
    world.snapshot.rules.truncate(FIRST as usize);
    let source = |nth| RuleSource { name: format!("apps/p spec.rules[{nth}]"), place: format!("q.yaml:{nth}") };
    world.snapshot.rules.extend((0..rules.len()).map(source));
    world.snapshot.policies = vec![Policy { name: "apps/p".into(), first: RuleId(FIRST), rules }];
    world.snapshot.workloads.iter_mut().for_each(|workload| workload.policies = vec![0]);
}

fn verdict(compiled: &Compiled, way: Way, to: &str, id: Option<&str>) -> Verdict {
    decide(compiled, &route(compiled, way, to), id.map(peer).as_ref())
}

fn refused(nth: u32) -> Verdict {
    Verdict::Refuse(DeniedByRule, Some(RuleId(FIRST + nth)))
}

#[test]
fn of_several_denies_the_first_is_named_and_one_without_peers_before_who_calls_is_known() {
    let mut world = World::new();
    let spared = of(API, deny_inbound());
    with(&mut world, vec![spared, of(FRONTEND, deny_inbound()), of(FRONTEND, on(5000, 6000, deny_inbound()))]);
    let compiled = world.compile();
    assert_eq!(verdict(&compiled, OUTSIDE, DB_AT, Some(FRONTEND)), refused(1));
    assert!(matches!(route(&compiled, OUTSIDE, DB_AT), Route::Inbound { .. }), "the certificate decides");
    with(&mut world, vec![of(FRONTEND, deny_inbound()), at_cidr("198.18.9.0/24", deny_inbound())]);
    let compiled = world.compile();
    assert_eq!(verdict(&compiled, OUTSIDE, DB_AT, Some(FRONTEND)), refused(1));
    assert!(matches!(route(&compiled, OUTSIDE, DB_AT), Route::Refuse { .. }), "no handshake is spent on it");
    // Nor is the lack of an SVID what it is refused for.
    world.database().svid = None;
    assert_eq!(verdict(&world.compile(), OUTSIDE, DB_AT, None), refused(1));
}

#[test]
fn within_a_node_denies_know_both_ends_whatever_they_show() {
    for (name, deny) in [
        ("the caller, where it is called", of(FRONTEND, deny_inbound())),
        ("the callee, where it calls", of(DATABASE, deny_outbound())),
        ("the called address", at_cidr("198.18.1.3/32", deny_outbound())),
        ("the caller's address", at_cidr("198.18.1.2/32", deny_inbound())),
    ] {
        for (mode_in, mode_out) in [
            (TlsMode::Mutual, TlsMode::Mutual),
            (TlsMode::Permissive, TlsMode::Permissive),
            (TlsMode::Simple, TlsMode::Simple),
            // It is left to speak TLS by itself, and is still known.
            (TlsMode::Permissive, TlsMode::Disable),
        ] {
            let mut world = World::new();
            world.database().mode = mode_in;
            world.frontend().egress[1].mode = Some(mode_out);
            let before = verdict(&world.compile(), FROM_FRONTEND, DB_AT, None);
            assert!(matches!(before, Verdict::Allow(_)), "{name}, {mode_in:?} {mode_out:?}: {before:?}");
            with(&mut world, vec![deny.clone()]);
            assert_eq!(
                verdict(&world.compile(), FROM_FRONTEND, DB_AT, None),
                refused(0),
                "{name}, {mode_in:?} {mode_out:?}"
            );
        }
    }
}

#[test]
fn what_a_workload_may_not_call_is_captured_and_what_is_tried_is_not() {
    let mut world = World::new();
    let elsewhere = ["203.0.113.1:80", "203.0.113.1:443", "203.0.113.200:80", "192.0.2.1:80"].map(at);
    let taken = |world: &World| -> Vec<bool> {
        let made = captures(&world.compile(), &PORTS);
        elsewhere.iter().map(|&to| caught(&made, 1, to) == Some(true)).collect()
    };
    assert_eq!(taken(&world), [false; 4], "unmatched calls pass");
    for (name, deny, want) in [
        ("one address", at_cidr("203.0.113.1/32", deny_outbound()), [true, true, false, false]),
        ("one port of it", on(80, 80, at_cidr("203.0.113.1/32", deny_outbound())), [true, false, false, false]),
        ("a network", on(80, 80, at_cidr("203.0.113.0/24", deny_outbound())), [true, false, true, false]),
        // Too many to be entered: all are looked at, and the others relayed as they would have gone.
        ("a wide network", on(80, 81, at_cidr("203.0.0.0/16", deny_outbound())), [true, false, true, true]),
        ("a wide range of ports", on(80, 8000, deny_outbound()), [true; 4]),
        ("a peer, which no plain server is", of(API, deny_outbound()), [false; 4]),
        ("inbound", at_cidr("203.0.113.1/32", deny_inbound()), [false; 4]),
        ("in shadow", PolicyRule { enforcement: Enforcement::Shadow, ..deny_outbound() }, [false; 4]),
    ] {
        with(&mut world, vec![deny]);
        assert_eq!(taken(&world), want, "{name}");
        let compiled = world.compile();
        for (&to, taken) in elsewhere.iter().zip(want) {
            let refused = matches!(route(&compiled, FROM_FRONTEND, &to.to_string()), Route::Refuse { .. });
            assert!(taken || !refused, "{name}: {to} is refused and not captured");
        }
    }
}

#[test]
fn people_are_told_the_rule_its_place_and_what_came_nearest() {
    let mut world = World::new();
    let allow = |id: &str, cidr: &str| at_cidr(cidr, of(id, rule(Action::Allow, RuleDirection::Inbound)));
    let tried = PolicyRule { enforcement: Enforcement::Shadow, ..of(FRONTEND, deny_inbound()) };
    let rules =
        vec![allow(API, "198.18.7.0/24"), tried, on(5432, 5432, of("spiffe://partner.org/billing/x", deny_inbound()))];
    with(&mut world, rules);
    let compiled = world.compile();
    let told = |caller: Caller, to: &str| {
        let told = explain(&compiled, &caller, at(to), NOW);
        (told.refused, told.rule.clone(), told.steps.join("\n"))
    };
    let from = |id: &str, address: &str| Caller::IdAt(id.into(), address.parse().unwrap());
    let id = |id: &str| Caller::Id(id.into());

    let (refusal, rule, steps) = told(from(API, "198.18.9.9"), DB_AT);
    assert_eq!((refusal, rule.as_deref()), (Some(NotAllowedInbound), Some("database inbound (p.yaml:2)")));
    let near = "the nearest rule is apps/p spec.rules[0] (q.yaml:0): expected from 198.18.7.0/24, got 198.18.9.9";
    assert!(steps.contains(near), "{steps}");

    let (refusal, rule, steps) = told(from(API, "198.18.7.9"), DB_AT);
    assert_eq!((refusal, rule.as_deref()), (None, Some("apps/p spec.rules[0] (q.yaml:0)")), "{steps}");

    let (refusal, _, steps) = told(id("spiffe://example.com/other/ap"), DB_AT);
    assert_eq!(refusal, Some(NotAllowedInbound));
    assert!(steps.contains("expected spiffe://example.com/other/api, got spiffe://example.com/other/ap"), "{steps}");

    // An ID alone says nothing about where it calls from.
    let (refusal, _, steps) = told(id(API), DB_AT);
    assert_eq!(refusal, Some(NotAllowedInbound));
    assert!(
        steps.contains("From where it calls matters (--at): allow inbound spiffe://example.com/other/api from"),
        "{steps}"
    );

    let (refusal, rule, steps) = told(id("spiffe://partner.org/billing/x"), DB_AT);
    assert_eq!((refusal, rule.as_deref()), (Some(DeniedByRule), Some("apps/p spec.rules[2] (q.yaml:2)")));
    assert!(steps.contains("the rule is: deny inbound spiffe://partner.org/billing/x port 5432"), "{steps}");

    let (refusal, _, steps) = told(Caller::Address("198.18.7.9".parse().unwrap()), DB_AT);
    assert_eq!(refusal, None);
    assert!(steps.contains("spiffe://partner.org/billing/*, spiffe://example.com/other/api is admitted"), "{steps}");
    assert!(steps.contains("But not: deny inbound spiffe://partner.org/billing/x port 5432, by apps/p"), "{steps}");

    let (refusal, _, steps) = told(id(FRONTEND), DB_AT);
    assert_eq!(refusal, None);
    assert!(steps.contains("In shadow: it would be refused by apps/p spec.rules[1] (q.yaml:1)"), "{steps}");
}

#[test]
fn people_are_told_what_rules_say_of_servers() {
    let mut world = World::new();
    world.frontend().egress[0].allowed = None;
    world.frontend().outbound = Some(vec![]);
    let allow = of(API, rule(Action::Allow, RuleDirection::Outbound));
    let told = |world: &World| explain(&world.compile(), &Caller::Id(FRONTEND.into()), at(API_AT), NOW);
    with(&mut world, vec![]);
    assert_eq!(told(&world).refused, Some(NotAllowedOutbound));
    with(&mut world, vec![at_cidr("198.18.2.0/24", allow.clone())]);
    let said = told(&world);
    assert!(
        said.allowed && said.steps.iter().any(|step| *step == format!("The server must be one of: {API}.")),
        "{said:#?}"
    );
    with(&mut world, vec![at_cidr("198.18.3.0/24", allow.clone())]);
    assert_eq!(told(&world).refused, Some(NotAllowedOutbound), "there is no such server there");
    with(&mut world, vec![allow, of(API, deny_outbound())]);
    assert_eq!(told(&world).refused, Some(NotAllowedOutbound), "nobody is left");
    with(&mut world, vec![at_cidr("198.18.2.2/32", deny_outbound())]);
    let said = told(&world);
    assert_eq!((said.refused, said.rule.as_deref()), (Some(DeniedByRule), Some("apps/p spec.rules[0] (q.yaml:0)")));
}

#[test]
fn an_allow_outbound_adds_to_the_workloads_list_and_not_to_the_entrys() {
    let allow = || of(DATABASE, rule(Action::Allow, RuleDirection::Outbound));
    let mut world = World::new();
    world.frontend().outbound = Some(vec![exact(API)]);
    with(&mut world, vec![allow()]);
    let entry = Verdict::Refuse(NotAllowedOutbound, Some(RuleId(4)));
    assert_eq!(verdict(&world.compile(), FROM_FRONTEND, API_AT, Some(DATABASE)), entry);
    world.frontend().egress[0].allowed = None;
    let by_rule = Verdict::Allow(Some(RuleId(FIRST)));
    assert_eq!(verdict(&world.compile(), FROM_FRONTEND, API_AT, Some(DATABASE)), by_rule);
    // A plain server is in no list, and in no rule.
    world.frontend().egress[0].mode = Some(TlsMode::Permissive);
    let plain = verdict(&world.compile(), FROM_FRONTEND, API_AT, Some(DATABASE));
    assert_eq!(plain, Verdict::Refuse(NotAllowedOutbound, Some(RuleId(1))));
    // Nor is it one to whom unmatched calls go.
    world.frontend().unmatched_egress = Unmatched::Refuse;
    let unmatched = verdict(&world.compile(), FROM_FRONTEND, "203.0.113.1:80", None);
    assert_eq!(unmatched, Verdict::Refuse(UnmatchedEgress, None));
}

#[test]
fn a_rule_goes_on_counting_while_it_stands_as_it_did_wherever_that_is() {
    let mut world = World::new();
    let hits = |compiled: &Compiled| -> Vec<(u32, u64)> {
        let all = compiled.policies.iter().flat_map(|rules| rules.hits());
        all.map(|(id, hits)| (id.0 - FIRST, hits)).collect()
    };
    let (first, second) = (of(API, deny_inbound()), of(FRONTEND, deny_inbound()));
    with(&mut world, vec![first.clone(), second.clone()]);
    let one = world.compile();
    one.hit(RuleId(FIRST + 1));
    one.hit(RuleId(FIRST + 1));
    one.hit(RuleId(2));
    assert_eq!(hits(&one), [(1, 2)], "a list's rule is not a policy's");
    let same = world.try_compile(Some(&one)).unwrap();
    // What a core counts under the version before is counted, too.
    one.hit(RuleId(FIRST));
    assert_eq!(hits(&same), [(0, 1), (1, 2)]);
    with(&mut world, vec![second.clone(), on(1, 2, first)]);
    let other = world.try_compile(Some(&same)).unwrap();
    assert_eq!(hits(&other), [(0, 2)], "the first stands elsewhere, the second is another one");
}

#[test]
fn rules_of_one_policy_do_not_reach_whom_it_does_not_name() {
    let mut world = World::new();
    with(&mut world, vec![deny_inbound(), deny_outbound()]);
    world.database().policies = vec![];
    let compiled = world.compile();
    assert!(matches!(verdict(&compiled, OUTSIDE, DB_AT, Some(FRONTEND)), Verdict::Allow(_)));
    assert_eq!(verdict(&compiled, FROM_FRONTEND, API_AT, Some(API)), refused(1));
}

#[test]
fn a_call_that_two_rules_in_shadow_would_turn_both_ways_is_told_about_by_none() {
    let in_shadow = |rule| PolicyRule { enforcement: Enforcement::Shadow, ..rule };
    let allow = in_shadow(of(API, rule(Action::Allow, RuleDirection::Inbound)));
    let deny = in_shadow(of(API, deny_inbound()));
    let mut world = World::new();
    let tried = |world: &World| {
        let compiled = world.compile();
        let route = route(&compiled, OUTSIDE, DB_AT);
        let verdict = decide(&compiled, &route, Some(&peer(API)));
        assert!(matches!(verdict, Verdict::Refuse(NotAllowedInbound, _)));
        shadow(&compiled, &route, Some(&peer(API)), verdict).map(|found| (found.would, found.rule.0 - FIRST))
    };
    with(&mut world, vec![deny, allow.clone()]);
    assert_eq!(tried(&world), None, "it is refused now, and would be");
    with(&mut world, vec![allow]);
    assert_eq!(tried(&world), Some((Would::Admit, 0)));
}

/// A policy of 100,000 rules has few shapes: what a verdict asks is a few probes.
#[test]
fn a_long_policy_decides_by_its_last_rule_as_by_its_first() {
    let mut world = World::new();
    let many = |n: u32| {
        let [_, high, middle, low] = n.to_be_bytes();
        let host = Prefix::host([10, high, middle, low].into());
        PolicyRule { cidrs: vec![host], ..of(FRONTEND, deny_inbound()) }
    };
    with(&mut world, (0..100_000).map(many).collect());
    let compiled = world.compile();
    let from = |n: u32| -> SocketAddr {
        let [_, high, middle, low] = n.to_be_bytes();
        ([10, high, middle, low], 40_000).into()
    };
    for n in [0, 1, 77_777, 99_999, 100_000] {
        let route = compiled.route(OUTSIDE.0, OUTSIDE.1, from(n), at(DB_AT), NOW);
        let verdict = decide(&compiled, &route, Some(&peer(FRONTEND)));
        assert_eq!(verdict == refused(n), n < 100_000, "{n}: {verdict:?}");
    }
}

fn revoke(world: &mut World, id: &str) {
    world.snapshot.revoked =
        vec![Revoked { trust_domain: "example.com".into(), ids: vec![(exact(id), RuleId(1))], ..Revoked::default() }];
}

#[test]
fn who_is_revoked_is_refused_before_every_rule_and_no_allow_or_shadow_gets_past_it() {
    let revoked = Verdict::Refuse(PeerRevoked, Some(RuleId(1)));
    let in_shadow = |rule| PolicyRule { enforcement: Enforcement::Shadow, ..rule };
    let allow = || of(API, rule(Action::Allow, RuleDirection::Inbound));
    for (name, rules) in [
        ("an allow", vec![allow()]),
        ("an allow in shadow", vec![in_shadow(allow())]),
        ("a deny", vec![of(API, deny_inbound())]),
        ("a deny in shadow", vec![in_shadow(of(API, deny_inbound()))]),
    ] {
        let mut world = World::new();
        with(&mut world, rules);
        revoke(&mut world, API);
        let compiled = world.compile();
        assert_eq!(verdict(&compiled, OUTSIDE, DB_AT, Some(API)), revoked, "{name}");
        let route = route(&compiled, OUTSIDE, DB_AT);
        assert_eq!(shadow(&compiled, &route, Some(&peer(API)), revoked), None, "{name}");
    }
    for end in [FRONTEND, DATABASE] {
        for (mode_in, mode_out) in [
            (TlsMode::Mutual, TlsMode::Mutual),
            (TlsMode::Simple, TlsMode::Simple),
            // The caller is left to speak TLS by itself, and is still known.
            (TlsMode::Permissive, TlsMode::Disable),
        ] {
            let mut world = World::new();
            world.database().mode = mode_in;
            world.frontend().egress[1].mode = Some(mode_out);
            with(&mut world, vec![of(FRONTEND, rule(Action::Allow, RuleDirection::Inbound))]);
            let before = verdict(&world.compile(), FROM_FRONTEND, DB_AT, None);
            assert!(matches!(before, Verdict::Allow(_)), "{end} {mode_in:?} {mode_out:?}: {before:?}");
            revoke(&mut world, end);
            let after = verdict(&world.compile(), FROM_FRONTEND, DB_AT, None);
            assert_eq!(after, revoked, "{end} {mode_in:?} {mode_out:?}");
        }
    }
}

#[test]
fn an_explanation_counts_whom_allows_name_among_those_who_are_revoked() {
    let caller = Caller::Address("198.18.9.9".parse().unwrap());
    let told = |world: &World| explain(&world.compile(), &caller, at(DB_AT), NOW);
    let mut world = World::new();
    world.database().inbound = None;
    with(&mut world, vec![of(API, rule(Action::Allow, RuleDirection::Inbound))]);
    revoke(&mut world, FRONTEND);
    assert!(told(&world).allowed, "somebody is left");
    revoke(&mut world, API);
    let told = told(&world);
    assert_eq!((told.allowed, told.refused), (false, Some(PeerRevoked)), "{told:#?}");
}
