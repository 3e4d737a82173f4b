//! 200 MB each way through two gateways, byte-exact, whatever the packets' size, family and number
//! of connections; and no plain way around them.

use std::net::SocketAddr;
use std::time::Instant;

use pktgen_tests::load::{Exchange, Server, exchange};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Cables, Capture, Host};
use pktgen_tests::stream::streams;

const TOTAL: u64 = 200_000_000;

fn bytes_are_exact_at(mtu: u32, xdp: &str) {
    let pair = Pair::start(&Setup { cables: Cables::mtu(mtu), xdp, ..Setup::default() }).unwrap();
    for v6 in [false, true] {
        let address = SocketAddr::new(Host::Backend.address(v6), 3000);
        let server = Server::start(&pair.site.backend, address).unwrap();
        // A small one first, under a capture: what follows is worth nothing if it goes in clear.
        let capture = Capture::start(&pair.site.wire, "b0").unwrap();
        exchange(&pair.site.frontend, address, Exchange { connections: 1, bytes: 50_000 }).unwrap();
        let sealed = streams(&capture.finish().unwrap()).iter().map(|s| s.application_data()).max();
        assert!(sealed >= Some(50_000), "{sealed:?} bytes of TLS on the wire");
        for connections in [1, 64] {
            let began = Instant::now();
            exchange(&pair.site.frontend, address, Exchange { connections, bytes: TOTAL / connections }).unwrap();
            let seconds = began.elapsed().as_secs_f64();
            let rate = 2.0 * TOTAL as f64 * 8.0 / seconds / 1e9;
            let family = if v6 { "IPv6" } else { "IPv4" };
            println!(
                "MTU {mtu}, XDP {xdp}, {family}, {connections} connections: {seconds:.1} s, {rate:.2} Gbit/s both ways"
            );
        }
        assert_eq!(server.failures(), Vec::<String>::new());
    }
    pair.ensure_nothing_refused().unwrap();
}

#[test]
fn bytes_are_exact_at_mtu_1500() {
    bytes_are_exact_at(1500, "auto");
}

#[test]
fn bytes_are_exact_at_mtu_9000() {
    bytes_are_exact_at(9000, "auto");
}

#[test]
fn bytes_are_exact_at_mtu_65535() {
    bytes_are_exact_at(65535, "auto");
}

#[test]
fn bytes_are_exact_at_mtu_1500_in_generic_mode() {
    bytes_are_exact_at(1500, "generic");
}
