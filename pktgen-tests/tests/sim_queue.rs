//! What a handshake that waits for its turn still gets: acknowledgements, its deadline, its place.
//!
//! Turns take time here, as they do when each of them spends its budget on asymmetric crypto.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use dataplane::io::PortId;
use pktgen_tests::packet::{ACK, PSH, Packet, SYN, Segment};
use pktgen_tests::sim::gateway::OUTSIDE;
use pktgen_tests::sim::topology::{PORT, address, gateway_mac, mac};
use pktgen_tests::sim::{Setup, World};
use snapshot::RefuseReason;

const B: usize = 1;
const CALLERS: u16 = 600;
/// What a turn takes, in microseconds: so all of them take 0.3 s, at two flights each.
const TURN: i64 = 1_000;
/// How long the engine may put off an acknowledgement, and a turn more.
const ACK_DELAY: i64 = 10_000 + 2 * TURN;
const HANDSHAKE: Duration = Duration::from_millis(100);

/// The first bytes of a ClientHello: enough to want a flight, not enough for an answer.
const BEGINNING: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

fn world() -> World {
    let mut setup = Setup::new(71);
    setup.limits.sessions = 1_024;
    setup.limits.handshakes = 1_024;
    setup.limits.flows = 8_192;
    setup.timeouts.handshake = HANDSHAKE;
    World::new(&setup)
}

fn caller(number: u16) -> SocketAddr {
    SocketAddr::new(address("peer", false), 10_000 + number)
}

fn to_backend(number: u16) -> Packet {
    let server = SocketAddr::new(address("backend", false), PORT);
    let (source_mac, destination_mac) = (mac(pktgen_tests::sim::topology::Segment::Wire, 10), gateway_mac(B, false));
    Packet { source_mac, destination_mac, ..Packet::syn(caller(number), server) }
}

/// Turns of node-b until `micros` have passed or `done` says so; tells `seen` each segment to a caller.
fn turns(world: &mut World, micros: i64, mut seen: impl FnMut(i64, Segment) -> bool) {
    let end = world.clock.micros() + micros;
    while world.clock.micros() < end {
        let now = world.clock.micros();
        let mut done = false;
        let gateway = &mut world.gateways[B];
        let sent = |port: PortId, frame: Vec<u8>| {
            if let Some(segment) = Segment::parse(&frame).filter(|_| port == OUTSIDE) {
                done |= seen(now, segment);
            }
        };
        gateway.turn(sent).unwrap();
        world.clock.advance_to(now + TURN);
        if done {
            return;
        }
    }
}

/// Opens a connection for each caller, and sends on each the beginning of its ClientHello. Returns when.
fn storm(world: &mut World) -> i64 {
    for number in 0..CALLERS {
        world.gateways[B].deliver(OUTSIDE, to_backend(number).frame());
    }
    let mut answers: HashMap<SocketAddr, u32> = HashMap::new();
    turns(world, 1_000_000, |_, segment| {
        if segment.flags & (SYN | ACK) == SYN | ACK {
            answers.insert(segment.destination, segment.seq);
        }
        answers.len() == usize::from(CALLERS)
    });
    assert_eq!(answers.len(), usize::from(CALLERS), "all are let in");
    let at = world.clock.micros();
    for number in 0..CALLERS {
        let isn = answers[&caller(number)];
        let hello = Packet {
            seq: 2,
            ack: isn.wrapping_add(1),
            flags: ACK | PSH,
            tcp_options: vec![],
            payload: BEGINNING.to_vec(),
            ..to_backend(number)
        };
        world.gateways[B].deliver(OUTSIDE, hello.frame());
    }
    at
}

#[test]
fn what_waits_for_its_flight_is_acknowledged_in_time() {
    let mut world = world();
    let at = storm(&mut world);
    let wanted = 2 + BEGINNING.len() as u32;
    let mut acknowledged: HashMap<SocketAddr, i64> = HashMap::new();
    turns(&mut world, 90_000, |now, segment| {
        if segment.ack == wanted {
            acknowledged.entry(segment.destination).or_insert(now - at);
        }
        false
    });
    let latest = acknowledged.values().max().copied().unwrap_or(i64::MAX);
    assert_eq!(acknowledged.len(), usize::from(CALLERS), "all are acknowledged");
    // The first turns take in what came: 256 packets each.
    let taken_in = TURN * i64::from(CALLERS.div_ceil(256));
    assert!(latest <= ACK_DELAY + taken_in, "the last one {latest} µs after it came");
}

#[test]
fn what_waits_too_long_is_refused_when_its_time_is_over() {
    let mut world = world();
    storm(&mut world);
    turns(&mut world, HANDSHAKE.as_micros() as i64 + 20 * TURN, |_, _| false);
    let refused = world.gateways[B].ended.iter().filter(|end| end.refused == Some(RefuseReason::HandshakeTimeout));
    assert_eq!(refused.count(), usize::from(CALLERS));
}

#[test]
fn a_caller_that_resets_while_it_waits_costs_no_crypto_and_no_slot() {
    let mut world = world();
    storm(&mut world);
    turns(&mut world, 4 * TURN, |_, _| false);
    for number in 0..CALLERS {
        let seq = 2 + BEGINNING.len() as u32;
        let reset = Packet { seq, flags: pktgen_tests::packet::RST, tcp_options: vec![], ..to_backend(number) };
        world.gateways[B].deliver(OUTSIDE, reset.frame());
    }
    turns(&mut world, 6 * TURN, |_, _| false);
    let gone = world.gateways[B].ended.iter().filter(|end| end.refused == Some(RefuseReason::CallerGone));
    assert_eq!(gone.count(), usize::from(CALLERS), "all are noticed within some turns");
    assert_eq!(world.gateways[B].worker().sessions(), 0);
}
