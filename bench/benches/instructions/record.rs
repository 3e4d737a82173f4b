//! TLS records between two legs that stand: sealed by the one, opened by the other.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use dataplane::tls::TlsLeg;
use gungraun::prelude::*;
use pktgen_tests::sim::clock::EPOCH;
use pktgen_tests::sim::topology::{PORT, address};
use snapshot::Side;

use super::name::TIMES;
use super::node::compiled;

const LARGEST: usize = 17 << 10;

pub struct Pair {
    legs: [TlsLeg; 2],
    plain: Vec<u8>,
    sealed: Vec<Vec<u8>>,
}

#[library_benchmark(setup = pair)]
#[bench::bytes_64(64)]
#[bench::bytes_1200(1_200)]
#[bench::bytes_16384(16_384)]
fn seal(mut pair: Pair) -> Pair {
    seal_all(&mut pair);
    pair
}

#[library_benchmark(setup = sealed)]
#[bench::bytes_64(64)]
#[bench::bytes_1200(1_200)]
#[bench::bytes_16384(16_384)]
fn open(mut pair: Pair) -> Pair {
    let [_, leg] = &mut pair.legs;
    for record in &pair.sealed {
        assert_eq!(leg.read_tls(black_box(record)), Ok(record.len()));
        assert_eq!(leg.read(&mut pair.plain), pair.plain.len());
    }
    pair
}

fn seal_all(pair: &mut Pair) {
    let [leg, _] = &mut pair.legs;
    for record in &mut pair.sealed {
        assert_eq!(leg.write(black_box(&pair.plain)), pair.plain.len());
        let length = leg.write_tls(record);
        record.truncate(length);
    }
}

/// Legs that stand, and room for the records.
fn pair(bytes: usize) -> Pair {
    let [node_a, node_b] = [0, 1].map(|node| Arc::new(compiled(node, |_| {})));
    let client = SocketAddr::new(address("frontend", false), 40_000);
    let server = SocketAddr::new(address("backend", false), PORT);
    let route = node_a.route(Side::Inside, "in0", client, server, EPOCH);
    let inbound = node_b.route(Side::Outside, "out0", client, server, EPOCH);
    let mut legs = [
        TlsLeg::originate(&node_a, &route, server, EPOCH).expect("there is an SVID"),
        TlsLeg::accept(&node_b, &inbound, EPOCH).expect("there is an SVID"),
    ];
    let mut flight = vec![0; LARGEST];
    while !legs.iter().all(TlsLeg::established) {
        let [from, to] = &mut legs;
        let length = from.write_tls(&mut flight);
        to.read_tls(&flight[..length]).expect("the handshake succeeds");
        // In turns; who has the last word makes no difference to records.
        legs.reverse();
    }
    Pair { legs, plain: vec![7; bytes], sealed: vec![vec![0; LARGEST]; TIMES as usize] }
}

fn sealed(bytes: usize) -> Pair {
    let mut pair = pair(bytes);
    seal_all(&mut pair);
    pair
}

library_benchmark_group!(name = records, benchmarks = [seal, open]);
