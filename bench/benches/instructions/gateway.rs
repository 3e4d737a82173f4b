//! Both gateways whole, in the simulation: instructions of the workers' turns alone, with so many
//! flows standing and all of them talking.

use std::net::SocketAddr;

use dataplane::stats::Total;
use pktgen_tests::sim::topology::{PORT, address};
use pktgen_tests::sim::{Begin, Call, CallId, Expect, Finish, Script, Setup, Side, World};
use snapshot::Limits;

use super::{Case, Units, counted};

/// Bytes of a client's write, and the microseconds between two of them.
const WRITE: usize = 1_200;
const EVERY: i64 = 50_000;
/// Connections that begin within a millisecond.
const OPENED_PER_MILLISECOND: i64 = 1;

pub fn cases() -> Vec<Case> {
    // A thousand take a minute under valgrind; ten thousand did not end in six.
    let flows: &[usize] = if std::env::var_os("FULL").is_some() { &[1, 100, 1_000] } else { &[1, 100] };
    let case = |flows: usize| -> Case { (format!("gateway, {flows} flows"), Box::new(move || talked(flows))) };
    flows.iter().map(|flows| case(*flows)).collect()
}

fn talked(flows: usize) -> Units {
    let mut world = standing(flows);
    for gateway in &mut world.gateways {
        gateway.watch = Some(|on| if on { counted::on() } else { counted::off() });
    }
    let (packets, records) = (packets(&world), world.oracle.records());
    counted::instrument();
    // At least a hundred writes in all, and one of each flow.
    let rounds = 100usize.div_ceil(flows) as i64;
    world.run(world.clock.micros() + rounds * EVERY, |_| false).expect("nothing breaks");
    vec![("packet", self::packets(&world) - packets), ("record", world.oracle.records() - records)]
}

/// Connections that have all carried their first bytes and will carry more.
fn standing(flows: usize) -> World {
    let room = u32::try_from(flows + 64).expect("not so many");
    let limits = Limits {
        sessions: room,
        handshakes: room,
        flows: 4 * room,
        frames: 16_384.max(4 * room),
        ..Setup::new(1).limits
    };
    let mut world = World::new(&Setup { limits, ..Setup::new(1) });
    let talk = Script::new(usize::MAX / 4, Begin::AtOnce, Finish::WhenSent).paced(WRITE, EVERY);
    let scripts = [talk, Script::new(0, Begin::AtOnce, Finish::Last)];
    let ids: Vec<CallId> = (0..flows)
        .map(|number| {
            let client = SocketAddr::new(address("frontend", false), world.port());
            let server = SocketAddr::new(address("backend", false), PORT);
            let (scripts, expect) = (scripts.clone(), Expect::Delivered);
            let call = Call { client, server, from: "frontend", scripts, expect, plain: false };
            world.call(number as i64 * 1_000 / OPENED_PER_MILLISECOND, call)
        })
        .collect();
    let began = |world: &World, id: &CallId| world.end(*id, Side::Server).is_some_and(|end| end.progress.received > 0);
    let mut waiting = ids;
    let all = world.run(3_600_000_000, |world| {
        waiting.retain(|id| !began(world, id));
        waiting.is_empty()
    });
    assert_eq!(all, Ok(true), "all connections stand");
    world
}

fn packets(world: &World) -> u64 {
    world.gateways.iter().map(|gateway| gateway.mailbox().counters.total(Total::PacketsReceived)).sum()
}
