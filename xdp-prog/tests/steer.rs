//! Frames through the steering program, one verdict and one counter each.

mod rig;

use std::net::IpAddr;
use std::time::Duration;

use rig::frame::{ACK, Frame, MAC, OTHER_MAC, SYN, SYN_ACK, icmp, tcp, udp};
use rig::{IN0, IN1, OUT0, steer};
use xdp_prog::Verdict::{Drop, Pass, ToWorker};
use xdp_prog::{Action, Capture, CaptureKind, FlowTuple, Source, Steering, Verdict};

/// A workload with every port captured under MUTUAL, except 9000, which is under DISABLE; set 7.
const SERVICE: &str = "198.18.1.2";
const SERVICE6: &str = "2001:db8:1::2";
/// A workload that only calls; set 8.
const CALLER: &str = "198.18.1.3";
/// What set 7 calls over mTLS on port 443, and what it calls plain.
const REMOTE: &str = "198.18.5.5";
const CLIENT: &str = "198.18.9.9";
const CLIENT6: &str = "2001:db8:9::9";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn capture(kind: CaptureKind, destination: &str, port: u16, action: Action, protected: bool) -> Capture {
    let destination = (destination != "any").then(|| ip(destination));
    Capture { kind, destination, port, action, protected }
}

fn captures() -> Vec<Capture> {
    let outbound = |set| CaptureKind::Outbound { set };
    vec![
        capture(CaptureKind::Inbound, SERVICE, 0, Action::Take, true),
        capture(CaptureKind::Inbound, SERVICE, 9000, Action::Leave, false),
        capture(CaptureKind::Inbound, SERVICE6, 0, Action::Take, true),
        capture(CaptureKind::Inbound, CALLER, 80, Action::Take, false),
        capture(outbound(7), REMOTE, 443, Action::Take, true),
        capture(outbound(8), "any", 443, Action::Take, false),
        capture(outbound(8), REMOTE, 443, Action::Leave, false),
        capture(outbound(9), "any", 0, Action::Take, true),
        capture(outbound(0), "198.18.5.7", 80, Action::Take, true),
    ]
}

fn sources() -> Vec<Source> {
    let source = |port, address: &str, length, mac, set| Source { port, prefix: (ip(address), length), mac, set };
    vec![
        source(IN0, SERVICE, 32, Some(MAC), 7),
        source(IN0, SERVICE6, 128, Some(MAC), 7),
        source(IN1, CALLER, 32, None, 8),
        source(IN0, "198.18.64.0", 24, None, 9),
        source(IN0, "198.18.65.0", 24, Some(MAC), 9),
    ]
}

fn flow(port: u16, source: &str, destination: &str) -> FlowTuple {
    FlowTuple { port, source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn steering(change: impl FnOnce(&mut xdp_prog::Options)) -> Steering {
    rig::enter();
    let mut options = rig::options();
    change(&mut options);
    let mut steering = Steering::attach(&options).unwrap();
    steering.set_sources(&sources()).unwrap();
    steering.set_denied(&[(ip("198.18.66.0"), 24)]).unwrap();
    steering.set_guarded(&[(ip(SERVICE), 0), (ip(SERVICE6), 3000)]).unwrap();
    steering.set_captures(&captures()).unwrap();
    let flows = steering.flows();
    for flow in [
        flow(OUT0, "198.18.9.9:5000", "198.18.1.2:3000"),
        flow(OUT0, "[2001:db8:9::9]:5000", "[2001:db8:1::2]:3000"),
        flow(OUT0, "198.18.5.5:443", "198.18.1.2:6000"),
        flow(OUT0, "198.18.9.9:5001", "198.18.1.4:3000"),
    ] {
        assert!(flows.insert(&flow).unwrap());
    }
    steering
}

type Case = (&'static str, u16, Vec<u8>, Verdict, &'static str);

fn check(steering: &Steering, cases: Vec<Case>) {
    for (name, port, frame, verdict, counter) in cases {
        assert_eq!(steer(steering, port, &frame), (verdict, counter), "{name}");
    }
}

fn syn(source: &str, destination: &str) -> Frame {
    tcp(source, destination, SYN)
}

#[test]
fn a_syn_goes_where_its_capture_says() {
    let steering = steering(|_| ());
    let _workers = rig::workers(&steering);
    let to = |destination| syn("198.18.9.9:40000", destination).bytes();
    let of = |source, destination| syn(source, destination).bytes();
    check(
        &steering,
        vec![
            ("captured, from the wire", OUT0, to("198.18.1.2:3000"), ToWorker, "to_worker_syn"),
            (
                "captured, from another workload",
                IN1,
                of("198.18.1.3:4000", "198.18.1.2:3000"),
                ToWorker,
                "to_worker_syn",
            ),
            ("captured, from nobody inside", IN1, of("198.18.1.99:4000", "198.18.1.2:3000"), ToWorker, "to_worker_syn"),
            ("DISABLE wins over any port", OUT0, to("198.18.1.2:9000"), Pass, "pass"),
            ("another port of a one-port capture", OUT0, to("198.18.1.3:81"), Pass, "pass"),
            ("that one port", OUT0, to("198.18.1.3:80"), ToWorker, "to_worker_syn"),
            ("not captured", OUT0, to("198.18.1.4:3000"), Pass, "pass"),
            ("IPv6", OUT0, to6("[2001:db8:1::2]:3000"), ToWorker, "to_worker_syn"),
            ("IPv6, not captured", OUT0, to6("[2001:db8:1::3]:3000"), Pass, "pass"),
            ("outbound", IN0, of("198.18.1.2:4000", "198.18.5.5:443"), ToWorker, "to_worker_syn"),
            ("outbound, another port", IN0, of("198.18.1.2:4000", "198.18.5.5:444"), Pass, "passed_unmatched"),
            ("any destination", IN1, of("198.18.1.3:4000", "203.0.113.1:443"), ToWorker, "to_worker_syn"),
            ("any destination, another port", IN1, of("198.18.1.3:4000", "203.0.113.1:80"), Pass, "passed_unmatched"),
            ("left out of any destination", IN1, of("198.18.1.3:4000", "198.18.5.5:443"), Pass, "passed_unmatched"),
            ("set of a prefix, any at all", IN0, of("198.18.64.7:4000", "203.0.113.1:1"), ToWorker, "to_worker_syn"),
            ("a prefix counts on its own port only", IN1, of("198.18.64.7:4000", "203.0.113.1:1"), Pass, "pass"),
            ("no identity, captured for it", IN1, of("198.18.1.99:4000", "198.18.5.7:80"), ToWorker, "to_worker_syn"),
            ("no identity, else", IN1, of("198.18.1.99:4000", "198.18.5.7:81"), Pass, "pass"),
            ("outbound is not asked on the wire", OUT0, of("198.18.9.9:4000", "198.18.5.7:80"), Pass, "pass"),
            ("denied source", OUT0, of("198.18.66.1:4000", "198.18.1.2:3000"), Drop, "drop_denied"),
            ("neighbour of the denied", OUT0, of("198.18.67.1:4000", "198.18.1.2:3000"), ToWorker, "to_worker_syn"),
            (
                "SYN with FIN",
                OUT0,
                tcp("198.18.9.9:4000", "198.18.1.2:3000", SYN | 1).bytes(),
                ToWorker,
                "to_worker_syn",
            ),
        ],
    );
}

fn to6(destination: &str) -> Vec<u8> {
    syn("[2001:db8:9::9]:40000", destination).bytes()
}

#[test]
fn headers_of_every_kind_are_followed_to_the_ports() {
    let steering = steering(|_| ());
    let _workers = rig::workers(&steering);
    let v4 = syn("198.18.9.9:40000", "198.18.1.2:3000");
    let v6 = syn("[2001:db8:9::9]:40000", "[2001:db8:1::2]:3000");
    let with = |extensions: &[(u8, usize)]| {
        let extension = |&(kind, length): &(u8, usize)| {
            let mut bytes = vec![0; length];
            bytes[1] = if kind == 51 { length / 4 - 2 } else { length / 8 - 1 } as u8;
            (kind, bytes)
        };
        Frame { extensions: extensions.iter().map(extension).collect(), ..v6.clone() }.bytes()
    };
    let options = Frame { options: vec![1; 40], ..v4.clone() };
    let udp4 = udp("198.18.9.9:1", "198.18.1.2:3000");
    let tags = |frame: &Frame, tags| Frame { tags, ..frame.clone() }.bytes();
    let elsewhere = syn("198.18.9.9:40000", "198.18.1.4:3000");
    check(
        &steering,
        vec![
            ("IPv4 options", OUT0, options.bytes(), ToWorker, "to_worker_syn"),
            ("IPv6 hop-by-hop", OUT0, with(&[(0, 8)]), ToWorker, "to_worker_syn"),
            ("IPv6 long destination options", OUT0, with(&[(60, 264)]), ToWorker, "to_worker_syn"),
            ("IPv6 routing, AH, destination", OUT0, with(&[(43, 24), (51, 16), (60, 8)]), ToWorker, "to_worker_syn"),
            ("IPv6, too many headers", OUT0, with(&[(60, 8); 9]), Drop, "drop_unparsable"),
            ("IPv6, headers past our reach", OUT0, with(&[(60, 2048), (60, 2048)]), Drop, "drop_unparsable"),
            ("one tag", OUT0, tags(&v4, 1), ToWorker, "to_worker_syn"),
            ("two tags", OUT0, tags(&v4, 2), Drop, "drop_vlan"),
            ("two tags, IPv6", OUT0, tags(&v6, 2), Drop, "drop_vlan"),
            ("two tags, elsewhere", OUT0, tags(&elsewhere, 2), Pass, "pass"),
            ("two tags, UDP", OUT0, tags(&udp4, 2), Pass, "pass"),
            ("more tags than we follow", OUT0, tags(&elsewhere, 5), Drop, "drop_vlan"),
            ("UDP", OUT0, udp4.bytes(), Pass, "pass"),
            ("ARP", OUT0, v4.with(13, 0x06), Pass, "pass"),
            ("neighbour solicitation", OUT0, icmp(CLIENT6, SERVICE6, 135, &[0; 16]).bytes(), Pass, "pass"),
            ("echo request", OUT0, icmp(CLIENT, SERVICE, 8, &[0; 16]).bytes(), Pass, "pass"),
        ],
    );
}

#[test]
fn what_cannot_be_read_never_reaches_what_is_captured() {
    let steering = steering(|_| ());
    let _workers = rig::workers(&steering);
    let v4 = syn("198.18.9.9:40000", "198.18.1.2:3000");
    let v6 = syn("[2001:db8:9::9]:40000", "[2001:db8:1::2]:3000");
    let piece = |frame: &Frame, offset, more| Frame { fragment: Some((offset, more)), ..frame.clone() }.bytes();
    let cut = |frame: &Frame, length: usize| frame.bytes()[..length].to_vec();
    let elsewhere = syn("198.18.9.9:40000", "198.18.1.4:3000");
    let udp4 = udp("198.18.9.9:1", "198.18.1.2:3000");
    let reply = tcp("198.18.1.2:3000", "198.18.9.9:40000", ACK);
    let call = syn("198.18.1.2:4000", "198.18.5.5:443");
    let hidden = Frame { extensions: vec![(60, vec![0; 8])], ..v6.clone() };
    let unreachable = icmp(CLIENT, SERVICE, 3, &v4.packet());
    check(
        &steering,
        vec![
            ("first fragment", OUT0, piece(&v4, 0, true), Drop, "drop_fragment"),
            ("later fragment", OUT0, piece(&v4, 64, true), Drop, "drop_fragment"),
            ("last fragment", OUT0, piece(&v4, 64, false), Drop, "drop_fragment"),
            ("first fragment, IPv6", OUT0, piece(&v6, 0, true), Drop, "drop_fragment"),
            ("later fragment, IPv6", OUT0, piece(&v6, 64, false), Drop, "drop_fragment"),
            ("atomic fragment, IPv6", OUT0, piece(&v6, 0, false), Drop, "drop_fragment"),
            ("TCP behind an option in a first fragment", OUT0, piece(&hidden, 0, true), Drop, "drop_fragment"),
            ("fragment of a reply", IN0, piece(&reply, 64, false), Drop, "drop_fragment"),
            ("fragment of a captured call", IN0, piece(&call, 0, true), Drop, "drop_fragment"),
            (
                "fragment to a workload that only calls",
                OUT0,
                piece(&tcp("198.18.9.9:1", "198.18.1.3:2", ACK), 9, false),
                Drop,
                "drop_fragment",
            ),
            ("fragment of an ICMP error", OUT0, piece(&unreachable, 0, true), Drop, "drop_fragment"),
            ("fragment elsewhere", OUT0, piece(&elsewhere, 0, true), Pass, "pass"),
            ("fragment of UDP", OUT0, piece(&udp4, 0, true), Pass, "pass"),
            ("IPv4 header cut short", OUT0, cut(&v4, 30), Drop, "drop_unparsable"),
            ("IPv6 header cut short", OUT0, cut(&v6, 40), Drop, "drop_unparsable"),
            ("length past the frame", OUT0, v4.with(16, 0xff), Drop, "drop_unparsable"),
            ("length inside the header", OUT0, v4.with(17, 19), Drop, "drop_unparsable"),
            ("length inside the TCP header", OUT0, v4.with(17, 39), Drop, "drop_unparsable"),
            ("header shorter than 20", OUT0, v4.with(14, 0x44), Drop, "drop_unparsable"),
            ("version 5", OUT0, v4.with(14, 0x55), Drop, "drop_unparsable"),
            ("IPv6 length past the frame", OUT0, v6.with(18, 0xff), Drop, "drop_unparsable"),
            ("TCP data offset of 4", OUT0, v4.with(46, 0x40), Drop, "drop_unparsable"),
            ("TCP options past the packet", OUT0, v4.with(46, 0x60), Drop, "drop_unparsable"),
            ("TCP options past the packet, elsewhere", OUT0, elsewhere.with(46, 0x60), Pass, "pass"),
        ],
    );
}

#[test]
fn source_address_port_and_mac_must_agree() {
    let steering = steering(|_| ());
    let _workers = rig::workers(&steering);
    let of = |source: &str, mac| Frame { mac, ..syn(source, "198.18.5.9:80") }.bytes();
    let arp = Frame { mac: OTHER_MAC, ..syn("198.18.1.2:1", "198.18.5.9:80") }.with(13, 0x06);
    let advertisement = Frame { mac: OTHER_MAC, ..icmp(SERVICE6, CLIENT6, 136, &[0; 16]) };
    check(
        &steering,
        vec![
            ("as bound", IN0, of("198.18.1.2:1", MAC), Pass, "passed_unmatched"),
            ("another MAC", IN0, of("198.18.1.2:1", OTHER_MAC), Drop, "drop_spoofed"),
            ("another port", IN1, of("198.18.1.2:1", MAC), Drop, "drop_spoofed"),
            ("from the wire", OUT0, of("198.18.1.2:1", MAC), Drop, "drop_spoofed"),
            ("any MAC, as bound", IN1, of("198.18.1.3:1", OTHER_MAC), Pass, "passed_unmatched"),
            ("any MAC, another port", IN0, of("198.18.1.3:1", MAC), Drop, "drop_spoofed"),
            ("UDP too", IN1, udp("198.18.1.2:1", "198.18.5.9:53").bytes(), Drop, "drop_spoofed"),
            ("a prefix's MAC", IN0, of("198.18.65.7:1", MAC), ToWorker, "to_worker_syn"),
            ("not the prefix's MAC", IN0, of("198.18.65.7:1", OTHER_MAC), Drop, "drop_spoofed"),
            ("not bound at all", IN1, of("198.18.1.77:1", MAC), Pass, "pass"),
            ("ARP is the kernel's", IN0, arp, Pass, "pass"),
            ("and so is NDP", IN0, advertisement.bytes(), Pass, "pass"),
        ],
    );
}

#[test]
fn segments_and_errors_of_our_flows_never_reach_the_kernel() {
    let steering = steering(|_| ());
    let cases = |to: Verdict, counters: [&'static str; 2]| -> Vec<Case> {
        let [flow, error] = counters;
        let quote = tcp("198.18.1.2:3000", "198.18.9.9:5000", ACK).packet();
        let quote6 = tcp("[2001:db8:1::2]:3000", "[2001:db8:9::9]:5000", ACK).packet();
        let forwards = tcp("198.18.9.9:5000", "198.18.1.2:3000", ACK).packet();
        let optioned = Frame { options: vec![1; 8], ..tcp("198.18.1.2:3000", "198.18.9.9:5000", ACK) }.packet();
        let error4 = |kind, quote: &[u8]| icmp("198.18.200.1", SERVICE, kind, quote).bytes();
        let error6 = |kind, quote: &[u8]| icmp("2001:db8:c8::1", SERVICE6, kind, quote).bytes();
        vec![
            ("ACK", OUT0, tcp("198.18.9.9:5000", "198.18.1.2:3000", ACK).bytes(), to, flow),
            ("SYN again", OUT0, syn("198.18.9.9:5000", "198.18.1.2:3000").bytes(), to, flow),
            ("RST", OUT0, tcp("198.18.9.9:5000", "198.18.1.2:3000", 4).bytes(), to, flow),
            ("IPv6", OUT0, tcp("[2001:db8:9::9]:5000", "[2001:db8:1::2]:3000", ACK).bytes(), to, flow),
            ("tagged", OUT0, Frame { tags: 1, ..tcp("198.18.9.9:5000", "198.18.1.2:3000", ACK) }.bytes(), to, flow),
            ("of a capture that is gone", OUT0, tcp("198.18.9.9:5001", "198.18.1.4:3000", ACK).bytes(), to, flow),
            ("the far server's", OUT0, tcp("198.18.5.5:443", "198.18.1.2:6000", SYN_ACK).bytes(), to, flow),
            ("unreachable", OUT0, error4(3, &quote), to, error),
            ("time exceeded", OUT0, error4(11, &quote), to, error),
            ("parameter problem", OUT0, error4(12, &quote), to, error),
            ("a quote of 28 bytes", OUT0, error4(3, &quote[..28]), to, error),
            ("a quote with options", OUT0, error4(3, &optioned), to, error),
            ("a quote of 21 bytes says no ports", OUT0, error4(3, &quote[..21]), Pass, "pass"),
            ("a quote of the peer's own segment", OUT0, error4(3, &forwards), Pass, "pass"),
            ("redirect", OUT0, error4(5, &quote), Pass, "pass"),
            ("packet too big, IPv6", OUT0, error6(2, &quote6), to, error),
            ("unreachable, IPv6", OUT0, error6(1, &quote6), to, error),
            ("parameter problem, IPv6", OUT0, error6(4, &quote6), to, error),
            ("echo reply, IPv6", OUT0, error6(129, &quote6), Pass, "pass"),
            ("on a port that it is not of", IN1, error4(3, &quote), Pass, "pass"),
        ]
    };
    check(&steering, cases(Drop, ["drop_absent"; 2]));
    let workers = rig::workers(&steering);
    check(&steering, cases(ToWorker, ["to_worker_flow", "to_worker_icmp"]));
    // A worker that dies leaves its slots empty; its flows stay shut.
    rig::stop(&steering, workers, &to6("[2001:db8:1::2]:3000"));
    check(&steering, cases(Drop, ["drop_absent"; 2]));
}

#[test]
fn without_a_worker_only_what_is_not_protected_may_pass() {
    let steering = steering(|options| options.on_absent_pass = true);
    let protected = syn("198.18.9.9:40000", "198.18.1.2:3000").bytes();
    let unprotected = syn("198.18.9.9:40000", "198.18.1.3:80").bytes();
    let later = tcp("198.18.9.9:40000", "198.18.1.3:80", ACK).bytes();
    let reply = tcp("198.18.1.3:80", "198.18.9.9:40000", SYN_ACK).bytes();
    let stranger = tcp("198.18.9.9:40001", "198.18.1.3:80", ACK).bytes();
    let stranger_protected = tcp("198.18.9.9:40001", "198.18.1.2:3000", ACK).bytes();
    check(
        &steering,
        vec![
            ("protected", OUT0, protected, Drop, "drop_absent"),
            ("not protected", OUT0, unprotected, Pass, "passed_absent"),
            ("unknown, not protected", OUT0, stranger.clone(), Pass, "passed_absent"),
            ("unknown, protected", OUT0, stranger_protected, Drop, "drop_absent"),
        ],
    );
    // The worker is back: what was let through goes on, what it does not know is reset.
    let _workers = rig::workers(&steering);
    check(
        &steering,
        vec![
            ("goes on", OUT0, later, Pass, "pass"),
            ("its replies", IN1, reply, Pass, "pass"),
            ("unknown", OUT0, stranger, ToWorker, "to_worker_unknown"),
        ],
    );
}

#[test]
fn unknown_segments_pass_in_the_grace_and_are_reset_after_it() {
    let cases = |verdict: Verdict, counter: &'static str| -> Vec<Case> {
        vec![
            ("to the service", OUT0, tcp("198.18.9.9:40000", "198.18.1.2:3000", ACK).bytes(), verdict, counter),
            ("from the service", IN0, tcp("198.18.1.2:3000", "198.18.9.9:40000", ACK).bytes(), verdict, counter),
            ("to a captured server", IN1, tcp("198.18.1.3:4000", "203.0.113.1:443", ACK).bytes(), verdict, counter),
            ("from a captured server", OUT0, tcp("203.0.113.1:443", "198.18.1.3:4000", ACK).bytes(), verdict, counter),
            ("SYN-ACK of nobody's", OUT0, tcp("198.18.9.9:80", "198.18.1.2:3000", SYN_ACK).bytes(), verdict, counter),
            ("not captured", OUT0, tcp("198.18.9.9:40000", "198.18.1.4:3000", ACK).bytes(), Pass, "pass"),
            ("DISABLE, to", OUT0, tcp("198.18.9.9:40000", "198.18.1.2:9000", ACK).bytes(), Pass, "pass"),
            ("DISABLE, from", IN0, tcp("198.18.1.2:9000", "198.18.9.9:40000", SYN_ACK).bytes(), Pass, "pass"),
        ]
    };
    let mut steering = steering(|options| options.grace = Duration::from_secs(3600));
    let workers = rig::workers(&steering);
    check(&steering, cases(Pass, "pre_existing"));
    // The same captures again, in another process, with the grace over: their age is what it was.
    drop(steering);
    steering = Steering::attach(&rig::options()).unwrap();
    steering.set_captures(&captures()).unwrap();
    check(&steering, cases(ToWorker, "to_worker_unknown"));
    rig::stop(&steering, workers, &to6("[2001:db8:1::2]:3000"));
    check(&steering, cases(Drop, "drop_absent"));
}

#[test]
fn connections_that_were_let_through_are_not_reset() {
    let mut steering = steering(|_| ());
    let _workers = rig::workers(&steering);
    let call = |flags| tcp("198.18.1.2:4000", "198.18.5.6:5432", flags).bytes();
    let answer = |flags| tcp("198.18.5.6:5432", "198.18.1.2:4000", flags).bytes();
    // A workload whose every port is captured calls something that is not.
    check(
        &steering,
        vec![
            ("before its SYN it is nobody's", OUT0, answer(ACK), ToWorker, "to_worker_unknown"),
            ("SYN", IN0, call(SYN), Pass, "passed_unmatched"),
            ("SYN-ACK", OUT0, answer(SYN_ACK), Pass, "pass"),
            ("ACK", IN0, call(ACK), Pass, "pass"),
            ("data", OUT0, answer(ACK), Pass, "pass"),
            (
                "another port of the same server",
                OUT0,
                tcp("198.18.5.6:5433", "198.18.1.2:4000", ACK).bytes(),
                ToWorker,
                "to_worker_unknown",
            ),
            ("a SYN back is a call to the service", OUT0, answer(SYN), ToWorker, "to_worker_syn"),
        ],
    );
    // Now that server is captured too: the connection is older than the capture, and has no grace.
    let mut more = captures();
    more.push(capture(CaptureKind::Outbound { set: 7 }, "198.18.5.6", 5432, Action::Take, false));
    let change = steering.set_captures(&more).unwrap();
    assert_eq!((change.added, change.kept, change.removed), (1, captures().len(), 0));
    check(
        &steering,
        vec![
            ("to it", IN0, call(ACK), ToWorker, "to_worker_unknown"),
            ("from it", OUT0, answer(ACK), ToWorker, "to_worker_unknown"),
        ],
    );
}
