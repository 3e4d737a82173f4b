//! Calls whose trust is taken away while they live, or before they begin.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;

use pktgen_tests::sim::pki::{Authority, Identity};
use pktgen_tests::sim::topology::{PORT, address};
use pktgen_tests::sim::{Begin, Broken, Call, CallId, Expect, Finish, Script, World, clock::EPOCH};
use snapshot::{ConnectionReport, Snapshot};

pub const A: usize = 0;
pub const B: usize = 1;
/// Longest that a test's calls may take, in simulated microseconds.
pub const LIMIT: i64 = 60_000_000;
pub const SECOND: i64 = 1_000_000;

/// Goes on for some seconds, both ways.
pub fn slow() -> [Script; 2] {
    [
        Script::new(20_000, Begin::AtOnce, Finish::Last).paced(100, 25_000),
        Script::new(20_000, Begin::AtOnce, Finish::WhenReceived(20_000)).paced(100, 25_000),
    ]
}

pub fn quick() -> [Script; 2] {
    [Script::new(500, Begin::AtOnce, Finish::Last), Script::new(500, Begin::AfterReceived(500), Finish::WhenSent)]
}

pub fn call(world: &mut World, from: &'static str, to: (&str, u16), scripts: [Script; 2]) -> Call {
    let client = SocketAddr::new(address(from, false), world.port());
    let server = SocketAddr::new(address(to.0, false), to.1);
    Call { client, server, from, scripts, expect: Expect::Delivered, plain: false }
}

pub fn plain(world: &mut World, from: &'static str, to: (&str, u16), scripts: [Script; 2]) -> CallId {
    let call = call(world, from, to, scripts);
    world.call(world.clock.micros(), call)
}

pub fn shows(world: &mut World, identity: &Identity, scripts: [Script; 2]) -> CallId {
    let call = call(world, "peer", ("backend", PORT), scripts);
    world.call_as(world.clock.micros(), call, identity)
}

pub fn issue(authority: &mut Authority, id: &str) -> Identity {
    authority.issue(id, EPOCH - 3_600, EPOCH + 86_400)
}

pub fn report(world: &World, node: usize, id: CallId) -> &ConnectionReport {
    let client = world.calls[id.0].client;
    let mut all = world.gateways[node].ended.iter().filter(|report| report.client == client);
    all.next().unwrap_or_else(|| panic!("{} has not reported {id:?}", world.gateways[node].name))
}

/// Changes `node`'s snapshot so that `cut` are no longer allowed: from the moment at which that is in
/// force on, no byte of theirs may reach a service.
pub fn change(world: &mut World, node: usize, cut: &[CallId], edit: impl FnOnce(&mut Snapshot)) -> Result<(), Broken> {
    for id in cut {
        world.calls[id.0].expect = Expect::Cut;
    }
    world.push(node, &[], edit);
    let version = Some(world.gateways[node].snapshot().version);
    let within = world.clock.micros() + SECOND;
    if !world.run(within, |world| world.gateways[node].in_force() == version)? {
        return Err(world.broken(format!("{version:?} was not in force within a second")));
    }
    cut.iter().for_each(|id| world.oracle.forbid(*id));
    Ok(())
}

pub fn finish(world: &mut World) -> Result<(), Broken> {
    world.run_until_over(LIMIT)?;
    world.judge()?;
    world.drain()
}
