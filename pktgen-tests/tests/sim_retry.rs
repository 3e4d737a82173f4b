//! Endpoints of a virtual address that cannot be connected: another one is tried, once, and what was left is left
//! clean.

mod balance;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use balance::{A, CLOSED, MORE, TIMES, at_peer, call, end, report, request, slow, stand_behind, total, world};
use dataplane::planted::{self, Bug};
use dataplane::stats::Total;
use dataplane::worker::Command;
use pktgen_tests::sim::clock::EPOCH;
use pktgen_tests::sim::host::Service;
use pktgen_tests::sim::topology::{TLS_PORT, address};
use pktgen_tests::sim::{Expect, Setup, Side, World};
use snapshot::{CloseReason, RefuseReason};

/// Forty calls, two a second, to an endpoint that answers and one that refuses. Those that got through.
fn beside_one_that_refuses() -> (World, usize) {
    let mut world = world(&Setup::new(62), &at_peer(&[TLS_PORT, CLOSED]));
    let calls: Vec<_> =
        (0..40).map(|nth| call(&mut world, nth * 500_000, false, request(), Expect::Delivered)).collect();
    end(&mut world);
    let stood = calls.iter().filter(|&&id| report(&world, id).closed == Some(CloseReason::Finished)).count();
    (world, stood)
}

#[test]
fn an_endpoint_that_refuses_is_left_for_another_and_given_no_calls_after_five() {
    let (mut world, stood) = beside_one_that_refuses();
    assert_eq!(stood, 40, "no caller has noticed");
    let counts = [Total::ConnectsRetried, Total::EndpointsFailed, Total::EndpointEjections, Total::EndpointsEjected];
    assert_eq!(counts.map(|each| total(&world, each)), [5, 5, 1, 1]);
    world.gateways[A].mailbox().commands.push(Command::ListEndpoints { query: 7 }).expect("there is room");
    world.wake(A);
    world.run(world.clock.micros() + 1_000, |_| false).expect("it is listed");
    let mut listed = std::mem::take(&mut world.gateways[A].endpoints);
    listed.sort_by_key(|endpoint| endpoint.address);
    let [closed, open] = &listed[..] else { panic!("two endpoints: {listed:?}") };
    assert_eq!((closed.address.port(), closed.active, closed.connected, closed.failed), (CLOSED, 0, 0, 5));
    assert_eq!((open.address.port(), open.active, open.connected, open.failed), (TLS_PORT, 0, 40, 0));
    let until = closed.ejected_until.expect("it is ejected") / 1_000;
    let now = dataplane_seconds(&world);
    assert!((now + 1..=now + 30).contains(&until), "{until}, at {now}");
    // A newer snapshot says nothing about that.
    stand_behind(&mut world, &at_peer(&[TLS_PORT, CLOSED]));
    let now = world.clock.micros();
    for nth in 0..10 {
        call(&mut world, now + nth * 5_000, false, request(), Expect::Delivered);
    }
    world.finish(TIMES, "ejected");
    assert_eq!(total(&world, Total::ConnectsRetried), 5);
    // Its time is over when all is free again: then it is asked anew.
    let now = world.clock.micros();
    for nth in 0..10 {
        call(&mut world, now + nth * 1_000_000, false, request(), Expect::Delivered);
    }
    world.finish(TIMES, "asked anew");
    assert!(total(&world, Total::ConnectsRetried) > 5);
}

/// Seconds since the epoch, as the gateways have them.
fn dataplane_seconds(world: &World) -> u64 {
    EPOCH + (world.clock.micros() / 1_000_000) as u64
}

#[test]
fn an_endpoint_that_says_nothing_is_left_when_a_quarter_of_the_time_is_over() {
    let silent = SocketAddr::new(address("legacy", false), TLS_PORT);
    let mut world = world(&Setup::new(63), &[at_peer(&[TLS_PORT])[0], silent]);
    world.host("legacy").unplugged = true;
    // The peer's backlog takes four at once.
    let calls: Vec<_> = (0..20).map(|nth| call(&mut world, nth * 5_000, false, slow(), Expect::Delivered)).collect();
    world.run(2_400_000, |_| false).expect("some stand");
    let stand = |world: &World| {
        calls.iter().filter(|id| world.end(**id, Side::Client).is_some_and(|end| end.progress.connected)).count()
    };
    let at_once = stand(&world);
    assert!((1..20).contains(&at_once), "{at_once} were given the other one at once");
    world.run(3_000_000, |_| false).expect("all stand");
    assert_eq!(
        stand(&world),
        20,
        "handshakes have ten seconds; {} were retried",
        total(&world, Total::ConnectsRetried)
    );
    world.finish(TIMES, "silent");
    assert!(calls.iter().all(|id| report(&world, *id).endpoint == Some(at_peer(&[TLS_PORT])[0])));
}

#[test]
fn one_other_endpoint_is_tried_and_no_third_and_the_refusal_names_both() {
    let endpoints = at_peer(&[CLOSED, CLOSED + 1, CLOSED + 2]);
    let mut world = world(&Setup::new(64), &endpoints);
    let id = call(&mut world, 0, false, request(), Expect::Refused);
    world.finish(TIMES, "all closed");
    let said = report(&world, id);
    assert_eq!(said.refused, Some(RefuseReason::ConnectRefused));
    let asked: BTreeSet<_> =
        world.oracle.syns.keys().filter(|(_, to)| endpoints.contains(to)).map(|(_, to)| *to).collect();
    assert_eq!(asked.len(), 2);
    let last = said.endpoint.expect("the second one");
    let first = asked.iter().find(|endpoint| **endpoint != last).expect("two");
    let detail = format!("it was the second endpoint: {first} could not be connected before");
    assert_eq!(said.detail, Some(detail));
    // Alone it has as long as any service.
    stand_behind(&mut world, &endpoints[..1]);
    let alone = call(&mut world, 0, false, request(), Expect::Refused);
    world.finish(TIMES, "one alone");
    assert_eq!(
        (report(&world, alone).refused, report(&world, alone).detail),
        (Some(RefuseReason::ConnectRefused), None)
    );
}

#[test]
fn an_endpoint_that_stands_and_is_left_hears_of_it() {
    let mut world = world(&Setup::new(75), &at_peer(&[TLS_PORT, MORE[0]]));
    world.host("peer").listen(MORE[0], Service::Mute);
    let calls: Vec<_> = (0..8).map(|nth| call(&mut world, nth * 5_000, false, request(), Expect::Delivered)).collect();
    // It takes connections, and says nothing to any.
    world.run(2_000_000, |_| false).expect("some stand there");
    let held = world.host("peer").standing(MORE[0]);
    assert!(held > 0, "some are given to it");
    world.finish(TIMES, "mute");
    assert!(calls.iter().all(|id| report(&world, *id).endpoint == Some(at_peer(&[TLS_PORT])[0])));
    assert_eq!(total(&world, Total::ConnectsRetried), held as u64);
    assert_eq!(world.host("peer").standing(MORE[0]), 0, "it is left with connections that nobody has");
}

#[test]
fn the_planted_bug_of_retries_is_caught() {
    planted::plant(Some(Bug::SameEndpointAgain));
    let missed = beside_one_that_refuses().1 == 40;
    planted::plant(None);
    assert!(!missed);
}
