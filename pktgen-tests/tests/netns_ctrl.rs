//! Without its control process a node serves on until its SVID ends, and then nobody in clear.

use std::net::SocketAddr;
use std::time::Duration;

use pktgen_tests::load::{Server, call, complete, open};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Capture, Host, wait_until};
use pktgen_tests::stream::streams;
use snapshot::RefuseReason;

#[test]
fn connections_outlive_ctrl_and_new_ones_are_refused_once_the_svid_has_ended() {
    let mut pair = Pair::configure(&Setup { ttl: "10s", ..Setup::default() }).unwrap();
    pair.node_a.launch().unwrap();
    pair.node_b.launch_apart().unwrap();
    pair.node_a.wait_ready().unwrap();
    pair.node_b.wait_ready().unwrap();
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&pair.site.backend, address).unwrap();
    let held = pair.site.frontend.enter(|| open(address, 1)).unwrap().unwrap();
    let new = |number| pair.site.frontend.enter(|| call(address, number, 1000)).unwrap();

    let capture = Capture::start(&pair.site.wire, "b0").unwrap();
    pair.node_b.kill_control().unwrap();
    new(2).expect("a new handshake right after ctrl died");
    let mut number = 2;
    wait_until("new connections are refused", Duration::from_secs(30), || {
        number += 1;
        new(number).err()
    })
    .unwrap();
    complete(&held, 1, 100_000).expect("the connection from before");
    let frames = capture.finish().unwrap();
    let backend = |s: &&pktgen_tests::stream::Stream| s.destination == address && !s.bytes.is_empty();
    assert!(streams(&frames).iter().filter(backend).all(|s| !s.tls_records().is_empty()), "all of it is TLS");

    pair.node_b.launch_control().unwrap();
    pair.node_b.wait_ready().unwrap();
    let refused = pair.node_b.refused().unwrap();
    assert!(refused.iter().any(|c| c.refused == Some(RefuseReason::NoSvid)), "{refused:#?}");
    new(10_000).expect("a new handshake with a new SVID");
    assert_eq!(server.failures(), Vec::<String>::new());
}
