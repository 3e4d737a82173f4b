//! An MTU that changes under running connections: no byte is lost, none ends, and new ones use it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Capture, Host, Namespace, wait_until};
use pktgen_tests::packet::{ACK, SYN, Segment};
use pktgen_tests::rounds::{Rounds, echo};

/// A cable: the node's end, and the other one.
struct Cable<'a> {
    port: &'a str,
    ends: [(&'a Namespace, &'a str); 2],
}

#[test]
fn an_mtu_that_changes_under_connections_loses_nothing_and_new_ones_use_it() {
    let pair = Pair::start(&Setup::default()).unwrap();
    let site = &pair.site;
    let servers = [false, true].map(|v6| SocketAddr::new(Host::Backend.address(v6), 3000));
    servers.iter().for_each(|server| echo(&site.backend, *server).unwrap());
    let running = servers.map(|server| Rounds::start(&site.frontend, server).unwrap());
    let outside = Cable { port: "out0", ends: [(&site.node_a, "out0"), (&site.wire, "a0")] };
    let inside = Cable { port: "in0", ends: [(&site.node_a, "in0"), (&site.frontend, "eth0")] };
    // Each is the size of one of the TCP engine's classes, so that the MSS is exactly what is left of it.
    for (cable, mtu) in [(&outside, 1400), (&inside, 1280), (&inside, 9000), (&outside, 4096), (&outside, 1500)] {
        for (namespace, interface) in cable.ends {
            namespace.ip(&format!("link set {interface} mtu {mtu}")).unwrap();
        }
        wait_until("node-a has seen the new MTU", Duration::from_secs(10), || {
            let ports = pair.node_a.status().ok()?.ports;
            ports.iter().find(|port| port.interface == cable.port && port.mtu == mtu).map(drop)
        })
        .unwrap();
        for connection in &running {
            connection.go_on(2).unwrap_or_else(|e| panic!("{} at MTU {mtu}, {}: {e:#}", cable.port, connection.client));
        }
        for server in servers {
            let (far, interface) = cable.ends[1];
            let capture = Capture::start(far, interface).unwrap();
            let new = Rounds::start(&site.frontend, server).unwrap();
            let offered = offered(&capture, &new, cable.port);
            drop(capture);
            new.go_on(1).unwrap();
            let headers = if server.is_ipv6() { 60 } else { 40 };
            assert_eq!(offered, Some(mtu as u16 - headers), "MSS that node-a offers over {} at MTU {mtu}", cable.port);
            new.finish().unwrap();
        }
    }
    running.into_iter().for_each(|connection| connection.finish().unwrap());
    pair.ensure_nothing_refused().unwrap();
}

/// The MSS in the segment that node-a opens its leg of the connection with: SYN outside, SYN-ACK inside.
fn offered(capture: &Capture, connection: &Rounds, port: &str) -> Option<u16> {
    let ours = |segment: &Segment| match port {
        "out0" => segment.flags & (SYN | ACK) == SYN && segment.source == connection.client,
        _ => segment.flags & (SYN | ACK) == SYN | ACK && segment.destination == connection.client,
    };
    let found = Cell::new(None);
    let opens = |frame: &[u8]| {
        found.set(Segment::parse(frame).filter(ours).and_then(|segment| segment.mss));
        found.get().is_some()
    };
    wait_until("the connection is opened", Duration::from_secs(5), || capture.any(opens).then_some(())).unwrap();
    found.get()
}
