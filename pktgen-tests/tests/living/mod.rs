//! Calls that live long enough to be met by a change, and the changes: what `sim_living` and
//! `sim_living_local` are made of.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::time::Duration;

use dataplane::stats::Total;
use pktgen_tests::sim::pki::Identity;
use pktgen_tests::sim::topology::{PORT, address, id};
use pktgen_tests::sim::{Begin, Call, CallId, Expect, Finish, Script, World, clock::EPOCH};
use snapshot::{IdPattern, Living, OnChange, Snapshot, Version};

pub const A: usize = 0;
pub const B: usize = 1;
pub const SECOND: i64 = 1_000_000;
pub const DRAIN: Duration = Duration::from_secs(2);

/// Bytes both ways for some `seconds`.
pub fn lasting(seconds: usize) -> [Script; 2] {
    let bytes = seconds * 4_000;
    [
        Script::new(bytes, Begin::AtOnce, Finish::Last).paced(100, 25_000),
        Script::new(bytes, Begin::AtOnce, Finish::WhenReceived(bytes)).paced(100, 25_000),
    ]
}

/// A request and an answer, and then silence: neither side ends before the other.
pub fn waiting() -> [Script; 2] {
    [Script::new(500, Begin::AtOnce, Finish::Last), Script::new(500, Begin::AfterReceived(500), Finish::Last)]
}

pub fn call(world: &mut World, from: &'static str, to: &str, scripts: [Script; 2]) -> CallId {
    let client = SocketAddr::new(address(from, false), world.port());
    let server = SocketAddr::new(address(to, false), PORT);
    let call = Call { client, server, from, scripts, expect: Expect::Delivered, plain: from == "legacy" };
    world.call(world.clock.micros(), call)
}

pub fn shows(world: &mut World, identity: &Identity, to: &str, scripts: [Script; 2]) -> CallId {
    let client = SocketAddr::new(address("peer", false), world.port());
    let server = SocketAddr::new(address(to, false), PORT);
    let call = Call { client, server, from: "peer", scripts, expect: Expect::Delivered, plain: false };
    world.call_as(world.clock.micros(), call, identity)
}

pub fn until(world: &mut World, at: i64) {
    world.run(at, |_| false).expect("nothing breaks");
}

pub fn all_live_by(world: &mut World, node: usize, living: Living) {
    world.push(node, &[], |snapshot| snapshot.workloads.iter_mut().for_each(|workload| workload.living = living));
}

pub fn on_change(on_change: OnChange) -> Living {
    Living { on_change, drain_for: DRAIN, ..Living::default() }
}

/// Pushes a change to B and waits until everything there has been decided again.
pub fn change(world: &mut World, edit: impl FnOnce(&mut Snapshot)) -> Version {
    world.push(B, &[], edit);
    let version = world.gateways[B].snapshot().version;
    let within = world.clock.micros() + SECOND;
    let taken = world.run(within, |world| world.gateways[B].in_force() == Some(version)).expect("nothing breaks");
    assert!(taken, "{version} is not in force within a second");
    version
}

/// Takes `batch` off the backend's list.
pub fn unlist(snapshot: &mut Snapshot) {
    let list = snapshot.workloads[0].inbound.as_mut().expect("backend has a list");
    list.retain(|entry| *entry != IdPattern::Exact(id("batch")));
}

pub fn total(world: &World, node: usize, total: Total) -> u64 {
    world.gateways[node].mailbox().counters.total(total)
}

/// By its wall clock, in milliseconds since the start.
pub fn ended_at(world: &World, node: usize, id: CallId) -> u64 {
    world.report(node, id).ended_at.expect("it has ended") - EPOCH * 1000
}

/// A rule that refuses `host` at every workload by its address.
pub fn deny_all(snapshot: &mut Snapshot, host: &str) {
    use snapshot::{Action, Enforcement, PolicyRule, Prefix, RuleDirection};
    let rule = PolicyRule {
        action: Action::Deny,
        direction: RuleDirection::Inbound,
        enforcement: Enforcement::Enforce,
        peers: vec![],
        cidrs: vec![Prefix::host(address(host, false))],
        ports: vec![],
    };
    pktgen_tests::sim::topology::add_policy(snapshot, vec![rule]);
}
