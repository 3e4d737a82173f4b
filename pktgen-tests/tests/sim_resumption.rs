//! `connection.resumption: tickets` between both gateways: a second handshake goes without certificates, and is
//! worth nothing once the snapshot in force would not admit who stands behind the ticket.

mod trust_calls;

use dataplane::planted::{Bug, plant};
use dataplane::stats::Total;
use pktgen_tests::sim::pki::{Authority, Identity, TRUST_DOMAIN};
use pktgen_tests::sim::topology::{self, PORT, id};
use pktgen_tests::sim::trust::{revoke_id, revoke_serial, trust};
use pktgen_tests::sim::{Broken, CallId, Expect, Setup, World, clock::EPOCH};
use snapshot::RefuseReason::{self, *};
use snapshot::{IdPattern, Resumption, Snapshot};
use trust_calls::{A, B, finish, plain, quick, report};

fn tickets(snapshot: &mut Snapshot) {
    snapshot.workloads.iter_mut().for_each(|workload| workload.resumption = Resumption::Tickets);
}

/// Both gateways hand out tickets and use them.
fn world(seed: u64) -> World {
    let mut world = World::new(&Setup::new(seed));
    [A, B].into_iter().for_each(|node| world.push(node, &[], tickets));
    world
}

/// A call of the frontend's to the backend, until it is over.
fn call(world: &mut World) -> Result<CallId, Broken> {
    let call = plain(world, "frontend", ("backend", PORT), quick());
    world.run_until_over(trust_calls::LIMIT)?;
    // The hosts are done before the gateways are.
    let client = world.calls[call.0].client;
    let told = |world: &mut World| {
        [A, B].iter().all(|node| world.gateways[*node].ended.iter().any(|report| report.client == client))
    };
    let until = world.clock.micros() + trust_calls::LIMIT;
    if !world.run(until, told)? {
        return Err(world.broken(format!("{call:?} was never reported")));
    }
    Ok(call)
}

fn resumed(world: &World, call: CallId) -> [bool; 2] {
    [A, B].map(|node| report(world, node, call).tls.as_ref().is_some_and(|tls| tls.resumed))
}

fn total(world: &World, node: usize, total: Total) -> u64 {
    world.gateways[node].mailbox().counters.total(total)
}

/// The SVID that a node's workload has.
fn serial(world: &World, node: usize) -> String {
    world.gateways[node].snapshot().workloads[0].svid.as_ref().expect("it has one").serial.clone()
}

#[test]
fn a_second_call_is_resumed_and_told_as_who_it_is() {
    let mut world = world(81);
    let calls: Vec<_> = (0..4).map(|_| call(&mut world).unwrap()).collect();
    finish(&mut world).unwrap();
    assert_eq!(resumed(&world, calls[0]), [false, false]);
    for call in &calls[1..] {
        assert_eq!(resumed(&world, *call), [true, true]);
        for (node, peer) in [(A, "backend"), (B, "frontend")] {
            let said = report(&world, node, *call);
            assert_eq!(said.peer_id.as_deref(), Some(id(peer).as_str()));
            assert_eq!(said.rule, report(&world, node, calls[0]).rule, "by the same rule");
            let serial = said.tls.as_ref().and_then(|tls| tls.peer_serial.clone());
            assert_eq!(serial, report(&world, node, calls[0]).tls.as_ref().and_then(|tls| tls.peer_serial.clone()));
        }
    }
    assert_eq!([A, B].map(|node| total(&world, node, Total::Resumed)), [3, 3]);
}

#[test]
fn nobody_resumes_where_one_side_is_not_asked_to() {
    for asked in [None, Some(A), Some(B)] {
        let mut world = World::new(&Setup::new(82));
        asked.into_iter().for_each(|node| world.push(node, &[], tickets));
        let calls: Vec<_> = (0..3).map(|_| call(&mut world).unwrap()).collect();
        finish(&mut world).unwrap();
        for call in calls {
            assert_eq!(resumed(&world, call), [false, false], "{asked:?}");
        }
    }
}

/// What is taken away, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    List,
    Rule,
    Id,
    Serial,
    Bundle,
}

const WAYS: [Way; 5] = [Way::List, Way::Rule, Way::Id, Way::Serial, Way::Bundle];

fn take_away(world: &mut World, node: usize, way: Way) -> Vec<RefuseReason> {
    let (peer, of) = if node == A { ("backend", B) } else { ("frontend", A) };
    let (exact, serial) = (IdPattern::Exact(id(peer)), serial(world, of));
    let other = Authority::new(world.chance.fork(), TRUST_DOMAIN).bundle();
    world.push(node, &[], |snapshot| match way {
        Way::List if node == A => snapshot.workloads[0].outbound = Some(vec![]),
        Way::List => snapshot.workloads[0].inbound = Some(vec![]),
        Way::Rule if node == A => deny_outbound(snapshot, exact),
        Way::Rule => topology::deny(snapshot, exact),
        Way::Id => revoke_id(snapshot, exact),
        Way::Serial => revoke_serial(snapshot, &serial),
        Way::Bundle => trust(snapshot, &[other]),
    });
    match way {
        Way::List if node == A => vec![NotAllowedOutbound],
        Way::List => vec![NotAllowedInbound],
        Way::Rule => vec![DeniedByRule],
        Way::Id | Way::Serial => vec![PeerRevoked],
        Way::Bundle => vec![PeerUntrusted],
    }
}

fn deny_outbound(snapshot: &mut Snapshot, peer: IdPattern) {
    topology::deny(snapshot, peer);
    let policy = snapshot.policies.last_mut().expect("it was just added");
    policy.rules[0].direction = snapshot::RuleDirection::Outbound;
}

/// Two calls, of which the second resumes; then `node` takes away what both stood on, and a third is made.
fn worthless(node: usize, way: Way) -> Result<World, Broken> {
    let mut world = world(83);
    let first = call(&mut world)?;
    let second = call(&mut world)?;
    assert_eq!((resumed(&world, first), resumed(&world, second)), ([false; 2], [true; 2]), "{way:?}");
    let reasons = take_away(&mut world, node, way);
    let third = plain(&mut world, "frontend", ("backend", PORT), quick());
    world.calls[third.0].expect = Expect::Refused;
    world.oracle.forbid(third);
    finish(&mut world)?;
    let said = report(&world, node, third);
    if !said.refused.is_some_and(|reason| reasons.contains(&reason)) {
        return Err(world.broken(format!("{way:?} at {node}: {:?} {:?}, not {reasons:?}", said.refused, said.closed)));
    }
    assert_eq!(resumed(&world, third), [false; 2], "{way:?} at {node}");
    assert_eq!(total(&world, node, Total::ResumptionNotAllowed), 1, "{way:?} at {node}");
    Ok(world)
}

#[test]
fn a_ticket_is_worthless_after_a_change_of_policy_a_revocation_and_a_change_of_bundle_in_both_roles() {
    for node in [A, B] {
        for way in WAYS {
            worthless(node, way).unwrap_or_else(|broken| panic!("{way:?} at {node}: {broken}"));
        }
    }
}

#[test]
fn a_ticket_that_is_believed_unasked_is_noticed_in_both_roles() {
    for node in [A, B] {
        for way in WAYS {
            plant(Some(Bug::ResumedUnjudged));
            let run = worthless(node, way);
            plant(None);
            let broken = run.map(drop).expect_err("it was not caught");
            assert!(broken.what.contains("payload without an Allow in force"), "{way:?} at {node}: {broken}");
        }
    }
}

fn renew(world: &mut World, node: usize, name: &str) {
    let new: Identity = world.authority.issue(&id(name), EPOCH - 60, EPOCH + 86_400);
    let svid = new.svid.clone();
    world.push(node, &[new], |snapshot| snapshot.workloads[0].svid = Some(svid));
}

#[test]
fn a_renewed_svid_begins_without_tickets_on_either_side() {
    for (node, name) in [(A, "frontend"), (B, "backend")] {
        let mut world = world(84);
        call(&mut world).unwrap();
        let second = call(&mut world).unwrap();
        renew(&mut world, node, name);
        let third = call(&mut world).unwrap();
        let fourth = call(&mut world).unwrap();
        finish(&mut world).unwrap();
        let all = [second, third, fourth].map(|call| resumed(&world, call));
        assert_eq!(all, [[true; 2], [false; 2], [true; 2]], "{name}");
        // The caller's ticket is gone with its SVID; the server has none of that name any more.
        assert_eq!(total(&world, B, Total::ResumptionUnknown), u64::from(node == B), "{name}");
    }
}

#[test]
fn another_change_costs_no_ticket() {
    let mut world = world(85);
    call(&mut world).unwrap();
    for node in [A, B] {
        world.push(node, &[], |snapshot| topology::deny(snapshot, IdPattern::Exact(id("batch"))));
    }
    let second = call(&mut world).unwrap();
    finish(&mut world).unwrap();
    assert_eq!(resumed(&world, second), [true; 2]);
}

#[test]
fn a_ticket_lives_for_an_hour_at_the_most() {
    for (minutes, want) in [(59, true), (61, false)] {
        let mut world = world(86);
        call(&mut world).unwrap();
        world.run(world.clock.micros() + minutes * 60_000_000, |_| false).unwrap();
        let second = call(&mut world).unwrap();
        finish(&mut world).unwrap();
        assert_eq!(resumed(&world, second), [want; 2], "{minutes} min");
    }
}

#[test]
fn calls_that_begin_at_once_have_a_ticket_each_and_nobody_anothers() {
    let mut world = world(87);
    // Each full handshake brings one ticket.
    for _ in 0..3 {
        plain(&mut world, "frontend", ("backend", PORT), quick());
    }
    world.run_until_over(trust_calls::LIMIT).unwrap();
    let calls: Vec<_> = (0..5).map(|_| plain(&mut world, "frontend", ("backend", PORT), quick())).collect();
    world.run_until_over(trust_calls::LIMIT).unwrap();
    finish(&mut world).unwrap();
    let count = calls.iter().filter(|call| resumed(&world, **call) == [true; 2]).count();
    assert_eq!(count, 3, "single use");
    assert_eq!(total(&world, B, Total::ResumptionUnknown), 0);
}
