//! Policies over living connections and new ones: denies cut what they match and nothing else, allows admit
//! under their conditions, rules in shadow change nothing and are counted.

use std::net::SocketAddr;

use dataplane::stats::Total;
use pktgen_tests::sim::topology::{PORT, TLS_PORT, add_policy, address, id};
use pktgen_tests::sim::{Begin, Call, CallId, Expect, Finish, Script, Setup, Shown, World};
use snapshot::{
    Action, CloseReason, Enforcement, IdPattern, PolicyRule, Prefix, RefuseReason, RuleDirection, Unmatched, Version,
};

const A: usize = 0;
const B: usize = 1;
const TIMES: i64 = 400_000_000;
/// Of a living connection, from when the change is in force.
const SECOND: i64 = 1_000_000;

fn request() -> [Script; 2] {
    [Script::new(3_000, Begin::AtOnce, Finish::Last), Script::new(3_000, Begin::AfterReceived(3_000), Finish::WhenSent)]
}

/// Talks for some seconds.
fn slow() -> [Script; 2] {
    [
        Script::new(100_000, Begin::AtOnce, Finish::Last).paced(500, 20_000),
        Script::new(100_000, Begin::AtOnce, Finish::WhenReceived(100_000)).paced(500, 20_000),
    ]
}

fn call(world: &mut World, from: &'static str, to: &str, port: u16, scripts: [Script; 2], expect: Expect) -> Call {
    let client = SocketAddr::new(address(from, false), world.port());
    Call { client, server: SocketAddr::new(address(to, false), port), from, scripts, expect, plain: false }
}

fn make(world: &mut World, from: &'static str, to: &str, scripts: [Script; 2], expect: Expect) -> CallId {
    let call = call(world, from, to, PORT, scripts, expect);
    world.call(0, call)
}

fn rule(action: Action, direction: RuleDirection, peer: Option<&str>, cidrs: &[Prefix]) -> PolicyRule {
    PolicyRule {
        action,
        direction,
        enforcement: Enforcement::Enforce,
        peers: peer.map(|peer| IdPattern::Exact(id(peer))).into_iter().collect(),
        cidrs: cidrs.to_vec(),
        ports: vec![],
    }
}

fn host(name: &str) -> Prefix {
    Prefix::host(address(name, false))
}

fn shadowed(rule: PolicyRule) -> PolicyRule {
    PolicyRule { enforcement: Enforcement::Shadow, ..rule }
}

fn total(world: &World, node: usize, total: Total) -> u64 {
    world.gateways[node].mailbox().counters.total(total)
}

/// Until the version is in force and everything that lives was decided under it.
fn in_force(world: &mut World, node: usize, version: Version) {
    let until = world.clock.micros() + SECOND;
    let done = world.run(until, |world| world.gateways[node].in_force() == Some(version)).expect("nothing breaks");
    assert!(done, "not in force within a second");
}

#[test]
fn a_deny_that_is_added_cuts_the_living_connections_that_it_matches_and_no_other() {
    use RuleDirection::{Inbound, Outbound};
    let cases: [(&str, usize, PolicyRule, [bool; 4]); 6] = [
        ("by ID, where it is called", B, rule(Action::Deny, Inbound, Some("batch"), &[]), [true, false, false, false]),
        (
            "by address, where it is called",
            B,
            rule(Action::Deny, Inbound, None, &[host("batch")]),
            [true, false, false, false],
        ),
        ("by ID, where it calls", A, rule(Action::Deny, Outbound, Some("peer"), &[]), [false, false, true, false]),
        (
            "by address, where it calls",
            A,
            rule(Action::Deny, Outbound, None, &[host("backend")]),
            [true, true, false, false],
        ),
        (
            "within a node, by address",
            A,
            rule(Action::Deny, Inbound, None, &[host("frontend")]),
            [false, false, false, true],
        ),
        ("within a node", A, rule(Action::Deny, Inbound, Some("frontend"), &[]), [false, false, false, true]),
    ];
    for (name, node, deny, cut) in cases {
        let mut world = World::new(&Setup::new(31));
        let expect = |cut| if cut { Expect::Cut } else { Expect::Delivered };
        let batch = make(&mut world, "batch", "backend", slow(), expect(cut[0]));
        let frontend = make(&mut world, "frontend", "backend", slow(), expect(cut[1]));
        let out = call(&mut world, "frontend", "peer", TLS_PORT, slow(), expect(cut[2]));
        let out = world.call(0, out);
        let local = make(&mut world, "frontend", "local", slow(), expect(cut[3]));
        world.run(500_000, |_| false).expect("all stand");
        world.push(node, &[], |snapshot| add_policy(snapshot, vec![deny.clone()]));
        let version = world.gateways[node].snapshot().version;
        in_force(&mut world, node, version);
        for (id, cut) in [batch, frontend, out, local].into_iter().zip(cut) {
            if cut {
                world.oracle.forbid(id);
                let said = world.report(node, id);
                assert_eq!((said.closed, said.version), (Some(CloseReason::PolicyChanged), version), "{name}");
                let rule = "default/p0 spec.rules[0] (policies.yaml:1)";
                assert_eq!(said.rule.as_deref(), Some(rule), "{name}: {said:?}");
            }
        }
        world.finish(TIMES, name);
        let kept = [batch, frontend, out, local].into_iter().zip(cut).filter(|(_, cut)| !cut);
        for (id, _) in kept {
            assert_eq!(world.report(A, id).closed, Some(CloseReason::Finished), "{name}");
        }
    }
}

#[test]
fn a_deny_comes_before_every_list_and_names_its_rule() {
    let mut world = World::new(&Setup::new(32));
    let deny = rule(Action::Deny, RuleDirection::Inbound, Some("batch"), &[]);
    world.push(B, &[], |snapshot| add_policy(snapshot, vec![deny]));
    let from_afar = make(&mut world, "batch", "backend", request(), Expect::Refused);
    let other = make(&mut world, "frontend", "backend", request(), Expect::Delivered);
    world.finish(TIMES, "deny");
    let said = world.report(B, from_afar);
    assert_eq!(said.refused, Some(RefuseReason::DeniedByRule));
    assert_eq!(said.peer_id, Some(id("batch")));
    assert_eq!(said.rule.as_deref(), Some("default/p0 spec.rules[0] (policies.yaml:1)"));
    assert!(said.detail.as_deref().is_some_and(|detail| detail.contains("deny inbound")), "{said:?}");
    assert_eq!(world.report(A, from_afar).refused, Some(RefuseReason::RefusedByPeer));
    assert_eq!(world.report(B, other).closed, Some(CloseReason::Finished));
    assert_eq!(world.gateways[B].mailbox().counters.refused(RefuseReason::DeniedByRule), 1);
}

#[test]
fn what_is_denied_by_address_is_refused_before_anything_is_spent_on_it() {
    let mut world = World::new(&Setup::new(33));
    let deny = rule(Action::Deny, RuleDirection::Inbound, None, &[host("peer")]);
    world.push(B, &[], |snapshot| add_policy(snapshot, vec![deny]));
    let refused = call(&mut world, "peer", "backend", PORT, request(), Expect::Refused);
    let refused = world.call_tls(0, refused, Shown::Own);
    world.finish(TIMES, "deny by address");
    let said = world.report(B, refused);
    assert_eq!((said.refused, said.peer_id.clone()), (Some(RefuseReason::DeniedByRule), None), "{said:?}");
    assert_eq!(total(&world, B, Total::Handshakes), 0);
}

#[test]
fn an_allow_admits_whom_it_names_from_where_it_says_and_an_address_alone_admits_nobody() {
    for (name, named, cidr, delivered, nearest) in [
        ("named, from there", "stranger", host("peer"), true, ""),
        ("named, from elsewhere", "stranger", host("legacy"), false, "expected from 198.18.9.11/32, got 198.18.9.10"),
        (
            "another is named",
            "strange",
            host("peer"),
            false,
            "expected spiffe://example.com/strange, got spiffe://example.com/stranger",
        ),
    ] {
        let mut world = World::new(&Setup::new(34));
        let allow = rule(Action::Allow, RuleDirection::Inbound, Some(named), &[cidr]);
        world.push(B, &[], |snapshot| add_policy(snapshot, vec![allow]));
        let expect = if delivered { Expect::Delivered } else { Expect::Refused };
        let tried = call(&mut world, "peer", "backend", PORT, request(), expect);
        let tried = world.call_tls(0, tried, Shown::Stranger);
        world.finish(TIMES, name);
        let said = world.report(B, tried);
        assert_eq!(said.refused.is_none(), delivered, "{name}: {said:?}");
        if delivered {
            assert_eq!(said.rule.as_deref(), Some("default/p0 spec.rules[0] (policies.yaml:1)"), "{name}");
        }
        assert!(said.detail.as_deref().unwrap_or_default().contains(nearest), "{name}: {said:?}");
    }
}

#[test]
fn a_rule_in_shadow_changes_nothing_and_says_what_it_would_have_changed() {
    use RuleDirection::Inbound;
    let mut world = World::new(&Setup::new(35));
    let deny = shadowed(rule(Action::Deny, Inbound, Some("batch"), &[]));
    let allow = shadowed(rule(Action::Allow, Inbound, Some("stranger"), &[]));
    world.push(B, &[], |snapshot| add_policy(snapshot, vec![deny, allow]));
    let batch = make(&mut world, "batch", "backend", request(), Expect::Delivered);
    let other = make(&mut world, "frontend", "backend", request(), Expect::Delivered);
    let stranger = call(&mut world, "peer", "backend", PORT, request(), Expect::Refused);
    let stranger = world.call_tls(0, stranger, Shown::Stranger);
    world.finish(TIMES, "shadow");
    let told = |id| world.report(B, id).shadow;
    let would = |what: &str, nth| Some(format!("{what} by default/p0 spec.rules[{nth}] (policies.yaml:{})", nth + 1));
    assert_eq!(told(batch), would("would be refused", 0));
    assert_eq!(told(stranger), would("would be admitted", 1));
    assert_eq!(told(other), None);
    assert_eq!(world.report(B, stranger).refused, Some(RefuseReason::NotAllowedInbound));
    let said = &world.gateways[B].shadowed;
    assert_eq!(said.iter().map(|said| said.client).collect::<Vec<_>>(), [world.calls[batch.0].client]);
    assert_eq!((total(&world, B, Total::ShadowRefused), total(&world, B, Total::ShadowAdmitted)), (1, 1));
}

#[test]
fn a_living_connection_is_counted_once_by_a_rule_in_shadow_that_comes_while_it_lives() {
    let mut world = World::new(&Setup::new(36));
    let batch = make(&mut world, "batch", "backend", slow(), Expect::Delivered);
    world.run(500_000, |_| false).expect("it stands");
    let deny = shadowed(rule(Action::Deny, RuleDirection::Inbound, Some("batch"), &[]));
    world.push(B, &[], |snapshot| add_policy(snapshot, vec![deny]));
    for _ in 0..3 {
        let version = world.gateways[B].snapshot().version;
        in_force(&mut world, B, version);
        world.push(B, &[], |_| {});
    }
    assert_eq!(total(&world, B, Total::ShadowRefused), 1);
    world.finish(TIMES, "shadow");
    assert_eq!(world.report(B, batch).closed, Some(CloseReason::Finished));
}

#[test]
fn what_policy_lets_pass_in_clear_is_counted_and_shown() {
    let mut world = World::new(&Setup::new(37));
    world.push(A, &[], |snapshot| {
        snapshot.workloads[0].unmatched_egress = Unmatched::Pass;
        snapshot.workloads[0].egress.clear();
    });
    let clear = |world: &mut World, from, to, port| {
        let call = call(world, from, to, port, request(), Expect::Delivered);
        world.call(0, Call { plain: true, ..call })
    };
    let unmatched = clear(&mut world, "frontend", "raw", PORT);
    let legacy = clear(&mut world, "legacy", "open", PORT);
    world.finish(TIMES, "in clear");
    assert_eq!((total(&world, A, Total::RelayedPlain), total(&world, B, Total::RelayedPlain)), (1, 1));
    for (node, id, workload) in [(A, unmatched, "default/frontend"), (B, legacy, "default/open")] {
        let said = world.report(node, id);
        assert_eq!((said.tls, said.closed), (None, Some(CloseReason::Finished)), "{workload}");
        assert_eq!(said.workload.as_deref(), Some(workload));
    }
}
