//! What a steering program might not understand, and what nobody sends by mistake, reaches no service.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use pktgen_tests::load::{Exchange, Server, exchange};
use pktgen_tests::netns::pair::{Pair, Setup};
use pktgen_tests::netns::{Capture, Host, PacketSocket, wait_until};
use pktgen_tests::packet::{ACK, Packet, RST, SYN, Segment};

fn answers(port: u16) -> impl Fn(&[u8]) -> bool {
    move |frame| {
        Segment::parse(frame).is_some_and(|s| s.destination.port() == port && s.flags & (SYN | ACK) == SYN | ACK)
    }
}

#[test]
fn fragments_and_double_tags_reach_no_service_and_extension_headers_are_no_disguise() {
    for xdp in ["generic", "native"] {
        nothing_bent_arrives(xdp);
    }
}

fn nothing_bent_arrives(xdp: &str) {
    let pair = Pair::start(&Setup { xdp, ..Setup::default() }).unwrap();
    let site = &pair.site;
    let sender = PacketSocket::sender(&site.wire, "b0").unwrap();
    for v6 in [false, true] {
        let server = SocketAddr::new(Host::Backend.address(v6), 3000);
        let listener = site.backend.enter(|| TcpListener::bind(server)).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut base = Packet::syn(SocketAddr::new(Host::Legacy.address(v6), 0), server);
        base.source_mac = site.wire.mac("b0").unwrap();
        base.destination_mac = site.node_b.mac("out0").unwrap();
        let from = |port: u16| {
            let mut packet = base.clone();
            packet.source.set_port(port);
            packet
        };
        let dressed = match v6 {
            false => Packet { ip_options: vec![1, 1, 1, 1], ..from(46_100) },
            true => Packet {
                extensions: vec![(0, vec![1, 4, 0, 0, 0, 0]), (60, vec![1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
                ..from(46_100)
            },
        };
        // (name, frames, its port, whether the gateway answers)
        let cases = [
            ("in fragments of 8", from(46_001).fragments(8), 46_001, false),
            ("in fragments of 16", from(46_002).fragments(16), 46_002, false),
            ("the first fragment alone", from(46_003).fragments(16)[..1].to_vec(), 46_003, false),
            ("two tags", vec![Packet { vlans: vec![7, 8], ..from(46_004) }.frame()], 46_004, false),
            ("three tags", vec![Packet { vlans: vec![7, 8, 9], ..from(46_005) }.frame()], 46_005, false),
            ("a wrong checksum", vec![Packet { checksum_error: 1, ..from(46_006) }.frame()], 46_006, false),
            ("SYN and RST", vec![Packet { flags: SYN | RST, ..from(46_007) }.frame()], 46_007, false),
            ("options or extension headers", vec![dressed.frame()], 46_100, true),
            ("nothing special", vec![from(46_101).frame()], 46_101, true),
        ];
        let (outside, inside) =
            (Capture::start(&site.wire, "b0").unwrap(), Capture::start(&site.backend, "eth0").unwrap());
        for frame in cases.iter().flat_map(|(_, frames, _, _)| frames) {
            sender.send(frame).unwrap();
        }
        // The last ones are answered, so the ones before have been dealt with.
        for (name, _, port, answered) in &cases {
            if *answered {
                wait_until(name, Duration::from_secs(5), || outside.any(answers(*port)).then_some(())).unwrap();
            }
        }
        let (outside, inside) = (outside.finish().unwrap(), inside.finish().unwrap());
        for (name, _, port, answered) in &cases {
            assert_eq!(
                outside.iter().any(|frame| answers(*port)(frame)),
                *answered,
                "{xdp}, IPv6 {v6}, {name}: SYN-ACK"
            );
        }
        let legacy = match Host::Legacy.address(v6) {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        let leaked = inside.iter().find(|frame| frame.windows(legacy.len()).any(|bytes| bytes == legacy));
        assert_eq!(leaked, None, "{xdp}, IPv6 {v6}: a packet of the sender's on the backend's cable");
        assert!(listener.accept().is_err(), "{xdp}, IPv6 {v6}: the service has a connection");
    }
}

#[test]
fn a_gateway_under_a_rain_of_broken_frames_still_serves() {
    let pair = Pair::start(&Setup::default()).unwrap();
    let site = &pair.site;
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let server = Server::start(&site.backend, address).unwrap();
    let pid = pair.node_b.status().unwrap().pid;
    let sender = PacketSocket::sender(&site.wire, "b0").unwrap();
    let (source_mac, destination_mac) = (site.wire.mac("b0").unwrap(), site.node_b.mac("out0").unwrap());
    let mut state = 0x5eed_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize % below
    };
    for number in 0..20_000u16 {
        let v6 = number % 2 == 1;
        let server = SocketAddr::new(Host::Backend.address(v6), 3000);
        let mut packet = Packet::syn(SocketAddr::new(Host::Legacy.address(v6), 1024 + number), server);
        (packet.source_mac, packet.destination_mac) = (source_mac, destination_mac);
        packet.flags = random(256) as u8;
        packet.tcp_options = (0..random(41)).map(|_| random(256) as u8).collect();
        packet.payload = vec![random(256) as u8; random(200)];
        let mut frame = packet.frame();
        // Behind the addresses of the Ethernet header, so that it arrives; a few bytes at a time.
        for _ in 0..random(4) {
            let at = 12 + random(frame.len() - 12);
            frame[at] = random(256) as u8;
        }
        frame.truncate((14 + random(frame.len() * 4)).min(frame.len()));
        sender.send(&frame).unwrap();
    }
    exchange(&site.frontend, address, Exchange { connections: 4, bytes: 1_000_000 }).unwrap();
    assert_eq!(pair.node_b.status().unwrap().pid, pid, "the dataplane is the one that it was");
    assert_eq!((server.accepted(), server.failures()), (4, vec![]));
}
