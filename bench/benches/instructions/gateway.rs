//! Both gateways whole: instructions of the workers' turns alone, while the same thousand writes
//! go through them one after the other, with so many connections standing around.

use gungraun::client_requests::callgrind::{start_instrumentation, stop_instrumentation, toggle_collect};
use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint};

use super::cases::ALONE;
use super::crowd::Crowd;
use super::name::UNITS;

const WRITES: usize = 1_000;

/// Opening ten thousand connections with each instruction looked at would take an hour.
fn by_request() -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::with_args([ALONE, "--instr-atstart=no", "--collect-atstart=no"]);
    callgrind.entry_point(EntryPoint::None);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind).pass_through_env(UNITS);
    config
}

#[library_benchmark(config = by_request())]
#[bench::flows_1(Crowd::standing(1))]
#[bench::flows_100(Crowd::standing(100))]
#[bench::flows_1000(Crowd::standing(1_000))]
fn gateway(crowd: Crowd) {
    talk(crowd);
}

#[library_benchmark(config = by_request())]
#[bench::flows_10000(Crowd::standing(10_000))]
#[bench::flows_100000(Crowd::standing(100_000))]
fn gateway_full(crowd: Crowd) {
    talk(crowd);
}

fn talk(mut crowd: Crowd) {
    for gateway in &mut crowd.gateways {
        gateway.watch = Some(|_| toggle_collect());
    }
    let (packets, records, received) = (crowd.packets(), crowd.records, crowd.received());
    start_instrumentation();
    crowd.talk(WRITES);
    stop_instrumentation();
    assert!(crowd.received() > received, "what is written arrives");
    let units = [("packet", crowd.packets() - packets), ("record", crowd.records - records)];
    if let Some(file) = std::env::var_os(UNITS) {
        std::fs::write(file, serde_json::to_string(&units).expect("numbers")).expect("a file that can be written");
    }
    // Closing a hundred thousand connections is nobody's concern, and takes long under valgrind.
    std::mem::forget(crowd);
}

library_benchmark_group!(name = gateways, benchmarks = [gateway, gateway_full]);
