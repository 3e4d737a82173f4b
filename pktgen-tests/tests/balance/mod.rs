//! Virtual addresses of a simulated world: what `sim_balance` and `sim_retry` are made of.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dataplane::stats::Total;
use pktgen_tests::sim::host::Service;
use pktgen_tests::sim::topology::address;
use pktgen_tests::sim::{Begin, Call, CallId, Expect, Finish, Script, Setup, World};
use snapshot::policy::Endpoint;
use snapshot::{ConnectionReport, VirtualAddress};

pub const A: usize = 0;
pub const TIMES: i64 = 400_000_000;
/// Where the endpoints of the Service listen besides.
pub const MORE: [u16; 3] = [3101, 3102, 3103];
/// Where nobody does.
pub const CLOSED: u16 = 3109;

pub fn vip(v6: bool) -> SocketAddr {
    let ip = if v6 { "2001:db8:ffff::10" } else { "203.0.113.10" };
    SocketAddr::new(ip.parse().expect("an address"), 80)
}

/// The endpoints of the first service: `backend` at these ports.
pub fn at_backend(ports: &[u16], v6: bool) -> Vec<SocketAddr> {
    ports.iter().map(|&port| SocketAddr::new(address("backend", v6), port)).collect()
}

/// A world in which the first service has these endpoints, all behind the virtual address.
pub fn world(setup: &Setup, endpoints: &[SocketAddr]) -> World {
    let mut world = World::new(setup);
    for port in MORE {
        world.host("backend").listen(port, Service::Plain);
    }
    for name in ["backend", "local", "peer", "frontend"] {
        world.host(name).stands_for = [false, true].map(vip).into();
    }
    stand_behind(&mut world, endpoints);
    world
}

pub fn stand_behind(world: &mut World, endpoints: &[SocketAddr]) {
    for node in [A, 1] {
        world.push(node, &[], |snapshot| {
            let service = &mut snapshot.services[0];
            service.endpoints = endpoints.iter().map(|&address| Endpoint { address, host: None }).collect();
            let of = |v6: bool| VirtualAddress {
                address: vip(v6),
                endpoints: (0..).zip(endpoints).filter(|(_, at)| at.is_ipv6() == v6).map(|(index, _)| index).collect(),
            };
            service.virtual_addresses = [false, true].map(of).into();
        });
    }
}

pub fn request() -> [Script; 2] {
    [Script::new(3_000, Begin::AtOnce, Finish::Last), Script::new(5_000, Begin::AfterReceived(3_000), Finish::WhenSent)]
}

/// Stands for some twenty seconds.
pub fn slow() -> [Script; 2] {
    [
        Script::new(100, Begin::AtOnce, Finish::Last),
        Script::new(200, Begin::AtOnce, Finish::WhenSent).paced(10, 1_000_000),
    ]
}

pub fn call(world: &mut World, at: i64, v6: bool, scripts: [Script; 2], expect: Expect) -> CallId {
    let client = SocketAddr::new(address("frontend", v6), world.port());
    world.call(at, Call { client, server: vip(v6), from: "frontend", scripts, expect, plain: false })
}

pub fn report(world: &World, id: CallId) -> ConnectionReport {
    let client = world.calls[id.0].client;
    let mut all = world.gateways[A].ended.iter().filter(|report| report.client == client);
    all.next().unwrap_or_else(|| panic!("nothing was reported of {client}")).clone()
}

pub fn total(world: &World, total: Total) -> u64 {
    world.gateways[A].mailbox().counters.total(total)
}

/// Until all calls are over, and reported.
pub fn end(world: &mut World) {
    world.run_until_over(TIMES).expect("all end");
    world.run(world.clock.micros() + 1_000_000, |_| false).expect("the last ACKs arrive");
}

/// Calls by the endpoint that they were given.
pub fn given(world: &World, calls: &[CallId]) -> BTreeMap<SocketAddr, usize> {
    let mut given = BTreeMap::new();
    for id in calls {
        *given.entry(report(world, *id).endpoint.expect("it was given one")).or_default() += 1;
    }
    given
}

pub fn call_to(world: &mut World, server: SocketAddr, expect: Expect) -> CallId {
    let client = SocketAddr::new(address("frontend", server.is_ipv6()), world.port());
    world.call(0, Call { client, server, from: "frontend", scripts: request(), expect, plain: false })
}

/// `peer` at these ports, of which `TLS_PORT` is the one that answers.
pub fn at_peer(ports: &[u16]) -> Vec<SocketAddr> {
    ports.iter().map(|&port| SocketAddr::new(address("peer", false), port)).collect()
}
