//! Two workers a node: what arrives at one core's queue reaches the core that owns the flow.

use std::net::SocketAddr;

use pktgen_tests::load::{Exchange, Server, call, exchange};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Cables, Host};

#[test]
fn bytes_are_exact_over_two_cores_and_both_have_work() {
    let pair =
        Pair::start(&Setup { cores: &[0, 1], cables: Cables { queues: 2, ..Cables::mtu(1500) }, ..Setup::default() })
            .unwrap();
    for v6 in [false, true] {
        let address = SocketAddr::new(Host::Backend.address(v6), 3000);
        let server = Server::start(&pair.site.backend, address).unwrap();
        exchange(&pair.site.frontend, address, Exchange { connections: 64, bytes: 500_000 }).unwrap();
        pair.site.frontend.enter(|| (100..300).try_for_each(|n| call(address, n, 100))).unwrap().unwrap();
        assert_eq!((server.accepted(), server.failures()), (264, vec![]));
    }
    for gateway in [&pair.node_a, &pair.node_b] {
        let mut cores: Vec<u32> = gateway.connections().unwrap().iter().map(|c| c.core).collect();
        cores.sort_unstable();
        cores.dedup();
        assert_eq!(cores, [0, 1], "{}", gateway.name());
    }
    pair.ensure_nothing_refused().unwrap();
}
