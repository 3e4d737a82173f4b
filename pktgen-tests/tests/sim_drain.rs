//! How a gateway stops: what it carries may end, nothing new begins, and nothing outlives the limit.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use dataplane::worker::Command;
use pktgen_tests::sim::topology::{PORT, address};
use pktgen_tests::sim::{Begin, Call, CallId, Expect, Finish, Script, Setup, Side, World};
use snapshot::{CloseReason, RefuseReason};

const A: usize = 0;
const TIMES: i64 = 400_000_000;
const DRAIN: Duration = Duration::from_secs(30);

fn world(seed: u64) -> World {
    let mut setup = Setup::new(seed);
    setup.timeouts.drain = DRAIN;
    World::new(&setup)
}

/// A request that takes five seconds to say, then `answer`.
fn call(world: &mut World, at: i64, expect: Expect, answer: Finish) -> CallId {
    let client = SocketAddr::new(address("frontend", false), world.port());
    let server = SocketAddr::new(address("backend", false), PORT);
    let scripts = [
        Script::new(50_000, Begin::AtOnce, Finish::Last).paced(1_000, 100_000),
        Script::new(30_000, Begin::AfterReceived(50_000), answer),
    ];
    world.call(at, Call { client, server, from: "frontend", scripts, expect, plain: false })
}

fn order(world: &mut World, command: Command) {
    world.gateways[A].mailbox().commands.push(command).expect("there is room for a command");
    world.wake(A);
}

fn is_done(world: &mut World) -> bool {
    world.gateways[A].worker().is_done() || world.gateways[A].mailbox().drained.load(Relaxed)
}

#[test]
fn what_is_under_way_ends_in_order_and_what_comes_is_refused() {
    let mut world = world(41);
    let under_way = call(&mut world, 0, Expect::Delivered, Finish::WhenSent);
    world.run(1_000_000, |_| false).expect("it stands");
    order(&mut world, Command::Drain);
    let late = call(&mut world, 1_100_000, Expect::Refused, Finish::WhenSent);
    let over = world.run(TIMES, is_done).expect("every promise is kept");
    assert!(over, "it ends");
    let at = world.clock.micros();
    assert!((5_000_000..DRAIN.as_micros() as i64).contains(&at), "it ends with its last connection, not at {at}");
    world.run_until_over(TIMES).expect("both are over");
    world.judge().expect("one is delivered and one refused");
    let client = world.calls[late.0].client;
    let refused = world.gateways[A].ended.iter().find(|report| report.client == client).expect("it is reported");
    assert_eq!(refused.refused, Some(RefuseReason::Draining));
    let client = world.calls[under_way.0].client;
    let closed = world.gateways[A].ended.iter().find(|report| report.client == client).expect("it is reported");
    assert_eq!(closed.closed, Some(CloseReason::Finished));
}

#[test]
fn what_does_not_end_is_reset_when_the_limit_is_over_or_a_second_order_comes() {
    for (second, until) in [(None, 31_000_000), (Some(Command::Stop), 8_000_000)] {
        let mut world = world(42);
        let id = call(&mut world, 0, Expect::GivenUp, Finish::Never);
        world.run(1_000_000, |_| false).expect("it stands");
        order(&mut world, Command::Drain);
        let done = world.run(8_000_000, is_done).expect("every promise is kept");
        assert!(!done, "its connection may end by itself");
        second.into_iter().for_each(|command| order(&mut world, command));
        assert_eq!(world.run(TIMES, is_done), Ok(true));
        let at = world.clock.micros();
        assert!((until..until + 100_000).contains(&at), "at {at}, not {until}");
        let over = world.run(TIMES, |world| world.end(id, Side::Client).is_some_and(|end| end.progress.over));
        assert_eq!(over, Ok(true), "the client hears of it");
        let client = world.calls[id.0].client;
        let report = world.gateways[A].ended.iter().find(|report| report.client == client).expect("it is reported");
        assert_eq!(report.closed, Some(CloseReason::Drained));
    }
}

#[test]
fn a_gateway_with_nothing_to_carry_stops_at_once() {
    let mut world = world(43);
    world.run(1_000_000, |_| false).expect("nothing happens");
    order(&mut world, Command::Drain);
    assert_eq!(world.run(TIMES, is_done), Ok(true));
    assert!(world.clock.micros() < 1_100_000);
}
