//! Single modules of the packet path: parsing, the flow table, allow lists.

use std::hint::black_box;
use std::net::SocketAddr;

use dataplane::flow::{FlowKey, FlowRef, FlowTable, Leg};
use dataplane::io::PortId;
use dataplane::parse::parse;
use dataplane::policy::AllowList;
use pktgen_tests::packet::{ACK, Packet};
use snapshot::IdPattern;
use snapshot::gateway::Checksum;

use super::counted::counted;
use super::{Case, Units};

const TIMES: u64 = 1_000;

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for bytes in [0, 1448, 65_000] {
        cases.push((format!("parse, {bytes} bytes verified"), Box::new(move || parsed(bytes))));
    }
    for flows in [1, 100, 10_000, 100_000] {
        cases.push((format!("flow table, {flows} flows"), Box::new(move || found(flows))));
    }
    for rules in [10, 1_000, 100_000] {
        cases.push((format!("allow list, {rules} IDs"), Box::new(move || admitted(rules, IdPattern::Exact))));
        cases.push((format!("allow list, {rules} paths"), Box::new(move || admitted(rules, IdPattern::Under))));
    }
    cases
}

fn parsed(bytes: usize) -> Units {
    let syn = Packet::syn(client(0), server());
    let mut frame = Packet { flags: ACK, tcp_options: vec![], payload: vec![7; bytes], ..syn }.frame();
    counted(|| {
        for _ in 0..TIMES {
            parse(black_box(&mut frame), Checksum::Verify, true).expect("a good segment");
        }
    });
    vec![("packet", TIMES)]
}

fn found(flows: u32) -> Units {
    let key = |number: u32| FlowKey::new(PortId(1), client(number), server());
    let mut table = FlowTable::new(flows as usize, 7);
    (0..flows).for_each(|n| table.insert(key(n), FlowRef::Live { session: n, leg: Leg::Down }));
    // Not in the order in which they came.
    let keys: Vec<FlowKey> = (0..TIMES as u32).map(|n| key(n.wrapping_mul(7919) % flows)).collect();
    counted(|| keys.iter().for_each(|key| assert!(black_box(table.find(key)).is_some())));
    vec![("packet", TIMES)]
}

/// The peer's ID is the last one of the list.
fn admitted(rules: u32, pattern: fn(String) -> IdPattern) -> Units {
    let path = |number: u32| format!("spiffe://example.com/team-{number}/app/");
    let patterns: Vec<IdPattern> = (0..rules).map(|number| pattern(path(number))).collect();
    let list = AllowList::new(&patterns);
    let id = match pattern(path(rules - 1)) {
        IdPattern::Exact(id) => id,
        IdPattern::Under(path) => path + "service",
    };
    counted(|| (0..TIMES).for_each(|_| assert!(list.admits(black_box(&id)))));
    vec![("decision", TIMES)]
}

fn client(number: u32) -> SocketAddr {
    let [_, high, middle, low] = number.to_be_bytes();
    SocketAddr::new([10, high, middle, low].into(), 40_000)
}

fn server() -> SocketAddr {
    ([198, 18, 2, 2], 3000).into()
}
