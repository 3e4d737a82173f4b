//! The first steps of a packet: parsing, checksums, the flow table.

use std::hint::black_box;
use std::net::SocketAddr;

use dataplane::flow::{FlowKey, FlowRef, FlowTable, Leg};
use dataplane::io::PortId;
use dataplane::parse::{ETHERNET, fill_checksums, parse as parse_frame};
use gungraun::prelude::*;
use pktgen_tests::packet::{ACK, Packet};
use snapshot::gateway::Checksum;

use super::name::TIMES;

#[library_benchmark(setup = segment)]
#[bench::bytes_0(0)]
#[bench::bytes_1448(1_448)]
#[bench::bytes_65000(65_000)]
fn parse(mut frame: Vec<u8>) -> Vec<u8> {
    for _ in 0..TIMES {
        parse_frame(black_box(&mut frame), Checksum::Verify, true).expect("a good segment");
    }
    frame
}

#[library_benchmark(setup = segment)]
#[bench::bytes_0(0)]
#[bench::bytes_1448(1_448)]
#[bench::bytes_65000(65_000)]
fn checksum(mut frame: Vec<u8>) -> Vec<u8> {
    for _ in 0..TIMES {
        fill_checksums(black_box(&mut frame[ETHERNET..]));
    }
    frame
}

#[library_benchmark(setup = table)]
#[bench::flows_1(1)]
#[bench::flows_100(100)]
#[bench::flows_10000(10_000)]
#[bench::flows_100000(100_000)]
fn flow_table((table, keys): (FlowTable, Vec<FlowKey>)) -> (FlowTable, Vec<FlowKey>) {
    keys.iter().for_each(|key| assert!(black_box(table.find(key)).is_some()));
    (table, keys)
}

fn segment(bytes: usize) -> Vec<u8> {
    let syn = Packet::syn(client(0), server());
    Packet { flags: ACK, tcp_options: vec![], payload: vec![7; bytes], ..syn }.frame()
}

fn table(flows: u32) -> (FlowTable, Vec<FlowKey>) {
    let key = |number: u32| FlowKey::new(PortId(1), client(number), server());
    let mut table = FlowTable::new(flows as usize, 7);
    (0..flows).for_each(|n| table.insert(key(n), FlowRef::Live { session: n, leg: Leg::Down }));
    // Not in the order in which they came.
    (table, (0..TIMES as u32).map(|n| key(n.wrapping_mul(7919) % flows)).collect())
}

fn client(number: u32) -> SocketAddr {
    let [_, high, middle, low] = number.to_be_bytes();
    SocketAddr::new([10, high, middle, low].into(), 40_000)
}

fn server() -> SocketAddr {
    ([198, 18, 2, 2], 3000).into()
}

library_benchmark_group!(name = packets, benchmarks = [parse, checksum, flow_table]);
