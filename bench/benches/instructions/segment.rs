//! TCP between two connections that stand: a segment out, in and read, its acknowledgement back.

use std::net::SocketAddr;

use gungraun::prelude::*;
use tcp_stack::{Config, Connection, Instant, Output, Stack, State};

use super::name::TIMES;

const MTU: usize = 1_500;
const NOW: Instant = Instant::from_millis_const(1_000);

pub struct Pair {
    ends: [(Connection, Stack); 2],
    wire: Wire,
    data: Vec<u8>,
}

/// The last packet that somebody sent.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Output for Wire {
    fn ready(&mut self, _: usize) -> bool {
        true
    }

    fn packet(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8])) {
        self.0.resize(len, 0);
        fill(&mut self.0);
    }
}

#[library_benchmark(setup = pair)]
#[bench::bytes_64(64)]
#[bench::bytes_1448(1_448)]
fn tcp(mut pair: Pair) -> Pair {
    for _ in 0..TIMES {
        let [(sender, _), _] = &mut pair.ends;
        sender.send(|room| {
            room[..pair.data.len()].copy_from_slice(&pair.data);
            (pair.data.len(), ())
        });
        carry(&mut pair, 0);
        let [_, (receiver, _)] = &mut pair.ends;
        let read = receiver.recv(|bytes| (bytes.len(), bytes.len()));
        assert_eq!(read, pair.data.len());
        carry(&mut pair, 1);
    }
    pair
}

/// One packet of this end to the other.
fn carry(pair: &mut Pair, from: usize) {
    let (connection, stack) = &mut pair.ends[from];
    assert_eq!(connection.transmit(stack, NOW, &mut pair.wire, 1), 1, "it has something to say");
    let packet = std::mem::take(&mut pair.wire.0);
    let (connection, stack) = &mut pair.ends[1 - from];
    connection.on_segment(stack, &packet, NOW, &mut Wire::default());
    pair.wire.0 = packet;
}

fn pair(bytes: usize) -> Pair {
    // A whole number of segments, so that none is cut where a ring begins anew.
    let config = Config { ack_delay: None, buffer: bytes * 64, ..Config::default() };
    let [a, b] = ["198.18.0.1:40000", "198.18.0.2:3000"].map(|end| end.parse::<SocketAddr>().expect("an address"));
    let end = || (Connection::new(&config), Stack::new([7; 16], &[MTU], NOW));
    let mut pair = Pair { ends: [end(), end()], wire: Wire::default(), data: vec![7; bytes] };
    let Pair { ends: [(caller, caller_stack), (callee, callee_stack)], wire, .. } = &mut pair;
    caller.connect(caller_stack, a, b, 1, MTU, NOW);
    caller.transmit(caller_stack, NOW, wire, 1);
    let syn = std::mem::take(&mut wire.0);
    assert!(callee.accept(callee_stack, b, a, 2, MTU, &syn, NOW, wire));
    let answer = std::mem::take(&mut wire.0);
    caller.on_segment(caller_stack, &answer, NOW, wire);
    carry(&mut pair, 0);
    assert!(pair.ends.iter().all(|(end, _)| end.state() == State::Established));
    pair
}

library_benchmark_group!(name = segments, benchmarks = [tcp]);
