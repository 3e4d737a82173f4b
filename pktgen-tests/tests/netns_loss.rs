//! A wire that loses one packet in a thousand costs time, not bytes.

use std::net::SocketAddr;
use std::time::Instant;

use pktgen_tests::load::{Exchange, Server, exchange};
use pktgen_tests::netns::Host;
use pktgen_tests::netns::pair::{Pair, Setup};

const TOTAL: u64 = 20_000_000;

#[test]
fn bytes_are_exact_when_one_packet_in_a_thousand_is_lost() {
    let pair = Pair::start(&Setup::default()).unwrap();
    pair.site.lose_one_in(1000).unwrap();
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&pair.site.backend, address).unwrap();
    for connections in [1, 64] {
        let (began, before) = (Instant::now(), pair.site.wire.lost().unwrap());
        exchange(&pair.site.frontend, address, Exchange { connections, bytes: TOTAL / connections }).unwrap();
        let lost = pair.site.wire.lost().unwrap() - before;
        println!("{connections} connections: {lost} packets lost, {:.1} s", began.elapsed().as_secs_f64());
        assert!(lost > 10, "the wire lost only {lost} packets");
    }
    assert_eq!(server.failures(), Vec::<String>::new());
    pair.ensure_nothing_refused().unwrap();
}
