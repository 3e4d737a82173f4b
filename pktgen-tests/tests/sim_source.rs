//! `source: node`: calls that leave from the node's own address, for far sides that know no way back
//! to the workload.

use std::net::SocketAddr;
use std::time::Duration;

use pktgen_tests::packet::Packet;
use pktgen_tests::sim::topology::{
    GREETING_PORT, PORT, Segment, TLS_PORT, address, gateway_mac, network, node_address,
};
use pktgen_tests::sim::{Begin, Call, CallId, Expect, Finish, Script, Setup, Side, World};
use snapshot::RefuseReason::{self, NoNodeAddress, NodePortsFull};
use snapshot::{CloseReason, ConnectionReport, PortRange, SourceAddress};

const A: usize = 0;
const B: usize = 1;
const TIMES: i64 = 400_000_000;

/// A world whose node-a calls from its own address, and whose far sides know that it may.
fn world(setup: &Setup) -> World {
    let mut world = World::new(setup);
    for name in ["backend", "open", "peer"] {
        world.host(name).nodes = [false, true].map(|v6| node_address(A, v6)).into();
    }
    leave_from(&mut world, SourceAddress::Node);
    world
}

fn leave_from(world: &mut World, source: SourceAddress) {
    world.push(A, &[], |snapshot| {
        let entries = snapshot.workloads.iter_mut().flat_map(|workload| &mut workload.egress);
        entries.for_each(|entry| entry.source = source);
    });
}

fn with_ports(seed: u64, range: &str) -> Setup {
    let mut setup = Setup::new(seed);
    setup.limits.source_ports = range.parse().expect("a range of ports");
    setup
}

fn request() -> [Script; 2] {
    [
        Script::new(30_000, Begin::AtOnce, Finish::Last),
        Script::new(50_000, Begin::AfterReceived(30_000), Finish::WhenSent),
    ]
}

/// Stands for some thirty seconds, and moves little.
fn slow() -> [Script; 2] {
    [
        Script::new(100, Begin::AtOnce, Finish::Last),
        Script::new(300, Begin::AtOnce, Finish::WhenSent).paced(10, 1_000_000),
    ]
}

fn call(world: &mut World, at: i64, to: (&str, u16), v6: bool, scripts: [Script; 2], expect: Expect) -> CallId {
    let client = SocketAddr::new(address("frontend", v6), world.port());
    let server = SocketAddr::new(address(to.0, v6), to.1);
    world.call(at, Call { client, server, from: "frontend", scripts, expect, plain: false })
}

/// Whom the service sees.
fn seen(world: &World, id: CallId) -> SocketAddr {
    world.end(id, Side::Server).unwrap_or_else(|| panic!("{id:?} reached its service")).peer
}

fn report(world: &World, node: usize, client: SocketAddr) -> ConnectionReport {
    let mut all = world.gateways[node].ended.iter().filter(|report| report.client == client);
    all.next().unwrap_or_else(|| panic!("{} reported nothing of {client}", world.gateways[node].name)).clone()
}

fn refused(world: &World, id: CallId) -> Option<RefuseReason> {
    report(world, A, world.calls[id.0].client).refused
}

#[test]
fn the_far_side_sees_the_nodes_address_over_both_families_and_mtls_is_as_ever() {
    let ports = Setup::new(31).limits.source_ports;
    for v6 in [false, true] {
        for to in [("backend", PORT), ("peer", TLS_PORT)] {
            let mut world = world(&Setup::new(31));
            let id = call(&mut world, 0, to, v6, request(), Expect::Delivered);
            world.finish(TIMES, to.0);
            let from = seen(&world, id);
            assert_eq!(from.ip(), node_address(A, v6), "{to:?}");
            assert!(ports.contains(from.port()) && from.port() != world.calls[id.0].client.port(), "{to:?}: {from}");
            let said = report(&world, A, world.calls[id.0].client);
            assert_eq!((said.source, said.closed), (Some(from), Some(CloseReason::Finished)), "{to:?}");
            assert_eq!((said.sent, said.received), (30_000, 50_000), "{to:?}");
            assert_eq!(said.peer_id, Some(format!("spiffe://example.com/{}", to.0)));
            if to.0 == "backend" {
                let said = report(&world, B, from);
                assert_eq!(said.source, None, "node-b keeps the address that it sees");
                assert_eq!(said.peer_id.as_deref(), Some("spiffe://example.com/frontend"), "the identity is the same");
            }
        }
    }
}

#[test]
fn permissive_egress_leaves_from_the_nodes_address_too_and_calls_within_the_node_never_do() {
    let mut world = world(&Setup::new(32));
    world.host("local").nodes = vec![node_address(A, false)];
    let client = SocketAddr::new(address("frontend", false), world.port());
    let server = SocketAddr::new(address("open", false), GREETING_PORT);
    let (from, expect) = ("frontend", Expect::Delivered);
    let plain = world.call(0, Call { client, server, from, scripts: request(), expect, plain: true });
    let local = call(&mut world, 0, ("local", PORT), false, request(), Expect::Delivered);
    world.oracle.in_clear(server);
    world.finish(TIMES, "plain and local");
    assert_eq!(seen(&world, plain).ip(), node_address(A, false));
    assert_eq!(seen(&world, local), world.calls[local.0].client);
    assert_eq!(report(&world, A, world.calls[local.0].client).source, None);
}

#[test]
fn many_calls_at_once_have_ports_of_their_own_which_are_free_again_after_time_wait() {
    for v6 in [false, true] {
        let mut world = world(&with_ports(33, "61000-61063"));
        let mut used = Vec::new();
        for round in ["first", "after TIME-WAIT"] {
            let calls: Vec<_> =
                (0..40).map(|_| call(&mut world, 0, ("backend", PORT), v6, request(), Expect::Delivered)).collect();
            world.finish(TIMES, round);
            let mut ports: Vec<u16> = calls.iter().map(|id| seen(&world, *id).port()).collect();
            ports.sort_unstable();
            ports.dedup();
            assert_eq!(ports.len(), 40, "{round}: a port for each call");
            assert!(ports.iter().all(|port| (61_000..=61_063).contains(port)), "{round}: {ports:?}");
            used.extend(ports);
        }
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), 64, "eighty calls went round the range: what was used last is used again last");
    }
}

#[test]
fn bytes_are_exact_over_links_that_lose_repeat_and_bend_frames() {
    for seed in 50..54 {
        let mut setup = with_ports(seed, "61000-61031");
        setup.faults = 80;
        setup.timeouts.syn_received = Duration::from_secs(20);
        setup.timeouts.handshake = Duration::from_secs(40);
        let mut world = world(&setup);
        for nth in 0..20 {
            call(&mut world, nth * 10_000, ("backend", PORT), seed % 2 == 0, request(), Expect::Delivered);
        }
        world.finish(TIMES, &format!("seed {seed}"));
    }
}

#[test]
fn when_every_port_is_taken_a_call_is_refused_by_name_and_time_wait_counts() {
    let mut world = world(&with_ports(34, "61000-61003"));
    for _ in 0..4 {
        call(&mut world, 0, ("backend", PORT), false, slow(), Expect::Delivered);
    }
    let full = call(&mut world, 1_000_000, ("backend", PORT), false, request(), Expect::Refused);
    // A port is taken towards the server that it calls, and in its family.
    let other = call(&mut world, 1_000_000, ("peer", TLS_PORT), false, request(), Expect::Delivered);
    let v6 = call(&mut world, 1_000_000, ("backend", PORT), true, request(), Expect::Delivered);
    world.run_until_over(TIMES).expect("all end");
    world.run(world.clock.micros() + 1_000_000, |_| false).expect("the last ACKs arrive");
    assert_eq!(world.gateways[A].worker().sessions(), 0, "nothing lives, and TIME-WAIT is not over");
    let resting = call(&mut world, 0, ("backend", PORT), false, request(), Expect::Refused);
    world.run_until_over(TIMES).expect("it is refused");
    assert_eq!([full, resting].map(|id| refused(&world, id)), [Some(NodePortsFull); 2]);
    assert_eq!(world.gateways[A].mailbox().counters.refused(NodePortsFull), 2);
    assert_eq!([other, v6].map(|id| refused(&world, id)), [None; 2]);
    world.finish(TIMES, "full");
    let again = call(&mut world, 0, ("backend", PORT), false, request(), Expect::Delivered);
    world.finish(TIMES, "after TIME-WAIT");
    assert_eq!(refused(&world, again), None);
}

#[test]
fn the_last_free_port_of_a_large_range_is_found_wherever_it_is() {
    let mut setup = with_ports(35, "61000-61299");
    (setup.limits.sessions, setup.limits.handshakes, setup.limits.flows) = (512, 512, 4_096);
    let mut world = world(&setup);
    let calls: Vec<_> = (1..=300)
        .map(|nth| {
            // The search for the next one begins behind the last, and comes to this one after 289 others.
            let scripts = if nth == 290 { request() } else { slow() };
            call(&mut world, 0, ("backend", PORT), false, scripts, Expect::Delivered)
        })
        .collect();
    world.run(15_000_000, |_| false).expect("all stand, one is over, and its TIME-WAIT too");
    let last = call(&mut world, 0, ("backend", PORT), false, slow(), Expect::Delivered);
    let none = call(&mut world, 16_000_000, ("backend", PORT), false, request(), Expect::Refused);
    world.finish(TIMES, "large");
    assert_eq!(seen(&world, last), seen(&world, calls[289]));
    assert_eq!(refused(&world, none), Some(NodePortsFull));
}

#[test]
fn the_first_sequence_number_is_of_the_nodes_own_tuple_and_grows_when_a_port_comes_again() {
    let mut world = world(&with_ports(40, "61000-61000"));
    let server = SocketAddr::new(address("backend", false), PORT);
    let from = SocketAddr::new(node_address(A, false), 61_000);
    let mut last = None;
    for _ in 0..3 {
        let id = call(&mut world, 0, ("backend", PORT), false, request(), Expect::Delivered);
        let began = world.clock.micros();
        world.finish(TIMES, "one port");
        let own = world.oracle.syns[&(from, server)];
        assert_ne!(own, world.oracle.syns[&(world.calls[id.0].client, server)], "not the caller's");
        // RFC 6528: a clock of 4 microseconds, from the same place for the same tuple.
        if let Some((then, before)) = last.replace((began, own)) {
            let (ticks, passed) = (own.wrapping_sub(before), ((began - then) / 4) as u32);
            assert!(ticks.abs_diff(passed) < 1_000, "{ticks} after {passed} ticks");
        }
    }
    leave_from(&mut world, SourceAddress::Preserve);
    let id = call(&mut world, 0, ("peer", TLS_PORT), false, request(), Expect::Delivered);
    let client = world.calls[id.0].client;
    world.run(world.clock.micros() + 100, |_| false).expect("the caller's SYN is on its way");
    let peer = SocketAddr::new(address("peer", false), TLS_PORT);
    let callers = world.oracle.syns[&(client, peer)];
    world.finish(TIMES, "preserve");
    assert_eq!(world.oracle.syns[&(client, peer)], callers, "what keeps the caller's address keeps its number");
}

#[test]
fn an_unreachable_that_quotes_the_nodes_own_segment_ends_the_call_that_it_is_of() {
    let mut world = world(&Setup::new(41));
    world.host("peer").unplugged = true;
    let id = call(&mut world, 0, ("peer", TLS_PORT), false, request(), Expect::Refused);
    world.run(10_000, |_| false).expect("our SYN is lost");
    let (node, peer) = (node_address(A, false), SocketAddr::new(address("peer", false), TLS_PORT));
    let ours = world.oracle.syns.iter().find(|((from, to), _)| from.ip() == node && *to == peer);
    let (from, sequence) = ours.map(|((from, _), sequence)| (*from, *sequence)).expect("a SYN as the node");
    world.inject(Segment::Wire, unreachable(from, peer, sequence.wrapping_add(1)));
    world.run(20_000, |_| false).expect("it quotes nothing that is in flight");
    assert!(world.gateways[A].ended.is_empty());
    world.inject(Segment::Wire, unreachable(from, peer, sequence));
    world.run(30_000, |_| false).expect("it is taken");
    assert_eq!(refused(&world, id), Some(RefuseReason::Unreachable), "long before it would have been given up");
}

/// ICMP's "host unreachable" about a segment that the gateway of node-a sent over IPv4.
fn unreachable(from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    let quoted = Packet { seq: sequence, ..Packet::syn(from, to) }.frame();
    let carrier = Packet { destination_mac: gateway_mac(A, false), ..Packet::syn(to, from) }.frame();
    let quoted = &quoted[14..14 + 28];
    let mut frame = [&carrier[..14 + 20], &[3, 1, 0, 0, 0, 0, 0, 0], quoted].concat();
    let length = (frame.len() - 14) as u16;
    frame[14 + 2..14 + 4].copy_from_slice(&length.to_be_bytes());
    frame[14 + 9] = 1;
    for (sum, range) in [(14 + 10, 14..14 + 20), (14 + 22, 14 + 20..frame.len())] {
        frame[sum..sum + 2].fill(0);
        let words = frame[range].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let total: u32 = words.sum();
        let folded = (total & 0xffff) + (total >> 16);
        frame[sum..sum + 2].copy_from_slice(&(!(folded + (folded >> 16)) as u16).to_be_bytes());
    }
    frame
}

#[test]
fn a_node_without_an_address_of_the_family_refuses_by_name() {
    let setup = Setup::new(36);
    let mut world = world(&setup);
    let mut network = network(A, setup.mtus);
    network.links.iter_mut().for_each(|link| link.addresses.retain(|own| own.address.is_ipv4()));
    world.gateways[A].connect_to(&network);
    world.wake(A);
    let v4 = call(&mut world, 1_000, ("backend", PORT), false, request(), Expect::Delivered);
    let v6 = call(&mut world, 1_000, ("backend", PORT), true, request(), Expect::Refused);
    world.finish(TIMES, "no address");
    assert_eq!([v4, v6].map(|id| refused(&world, id)), [None, Some(NoNodeAddress)]);
}

#[test]
fn a_newer_snapshot_that_changes_the_source_cuts_what_lives_and_nothing_else() {
    for (before, after) in
        [(SourceAddress::Preserve, SourceAddress::Node), (SourceAddress::Node, SourceAddress::Preserve)]
    {
        let mut world = world(&Setup::new(37));
        leave_from(&mut world, before);
        let cut = call(&mut world, 1_000, ("backend", PORT), false, slow(), Expect::Cut);
        // Within the node there is no far side that an address could matter to.
        let kept = call(&mut world, 1_000, ("local", PORT), false, slow(), Expect::Delivered);
        world.run(2_000_000, |_| false).expect("both stand");
        leave_from(&mut world, before);
        world.run(3_000_000, |_| false).expect("nothing is cut by a version that says the same");
        assert!(world.gateways[A].ended.is_empty());
        leave_from(&mut world, after);
        world.finish(TIMES, after.name());
        let said = report(&world, A, world.calls[cut.0].client);
        assert_eq!(said.closed, Some(CloseReason::PolicyChanged), "{}", after.name());
        let detail = format!("the call would now leave with source: {}", after.name());
        assert_eq!(said.detail, Some(detail));
        assert_eq!(report(&world, A, world.calls[kept.0].client).closed, Some(CloseReason::Finished));
    }
}

#[test]
fn the_same_seed_takes_the_same_ports_and_another_one_others() {
    let run = |seed: u64| {
        let mut world = world(&Setup::new(seed));
        let calls: Vec<_> =
            (0..5).map(|_| call(&mut world, 0, ("backend", PORT), false, request(), Expect::Delivered)).collect();
        world.finish(TIMES, "seeded");
        (calls.iter().map(|id| seen(&world, *id).port()).collect::<Vec<_>>(), world.trace_hash())
    };
    assert_eq!(run(38), run(38));
    let (first, second) = (run(38).0, run(39).0);
    assert!(first.iter().all(|port| !second.contains(port)), "{first:?} {second:?}");
    assert!(PortRange::new(61_000, 65_535).is_some_and(|all| first.iter().all(|port| all.contains(*port))));
}
