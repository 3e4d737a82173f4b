//! The rig itself, with the kernel forwarding plainly: what it measures with must be right first.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pktgen_tests::load::{Exchange, Server, exchange};
use pktgen_tests::netns::{Cables, Capture, Host, PacketSocket, Rig, Site, wait_until};
use pktgen_tests::packet::{ACK, Packet, RST, SYN, Segment};
use pktgen_tests::stream::{holds_marker, streams};

const SMALL: Cables = Cables::mtu(1500);
const PINS: &str = "/sys/fs/bpf/sluice";
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn bytes_cross_the_site_exactly_and_the_capture_holds_them_all() {
    let site = Site::lay(SMALL).unwrap();
    for v6 in [false, true] {
        let address = SocketAddr::new(Host::Backend.address(v6), 3000);
        let server = Server::start(&site.backend, address).unwrap();
        let capture = Capture::start(&site.wire, "b0").unwrap();
        exchange(&site.frontend, address, Exchange { connections: 4, bytes: 200_000 }).unwrap();
        let frames = capture.finish().unwrap();
        let there: Vec<_> = streams(&frames).into_iter().filter(|s| s.destination == address).collect();
        assert_eq!(there.len(), 4);
        assert!(there.iter().all(|s| s.bytes.len() == 200_016), "header and payload of each connection");
        assert!(holds_marker(&frames, &there[0].bytes[100_000..100_020]), "the capture is in clear here");
        assert_eq!((server.accepted(), server.failures()), (4, vec![]));
    }
}

#[test]
fn a_lossy_wire_loses_what_it_was_told_to_and_tcp_repairs_it() {
    let site = Site::lay(SMALL).unwrap();
    site.wire.lose_one_in(50).unwrap();
    let address = SocketAddr::new(Host::Backend.v4(), 3000);
    let _server = Server::start(&site.backend, address).unwrap();
    // Without offloads, so that a packet of the wire is a segment.
    site.frontend.offload("eth0", "tso off gso off gro off").unwrap();
    exchange(&site.frontend, address, Exchange { connections: 2, bytes: 500_000 }).unwrap();
    assert!(site.wire.lost().unwrap() >= 10, "{} packets lost", site.wire.lost().unwrap());
}

#[test]
fn a_crafted_syn_is_answered_in_one_piece_and_in_fragments() {
    let site = Site::lay(SMALL).unwrap();
    let server = SocketAddr::new(Host::Backend.v4(), 3000);
    let _listener = site.backend.enter(|| TcpListener::bind(server)).unwrap().unwrap();
    let sender = PacketSocket::sender(&site.wire, "b0").unwrap();
    let mut syn = Packet::syn(SocketAddr::new(Host::Legacy.v4(), 40_000), server);
    syn.source_mac = site.wire.mac("b0").unwrap();
    syn.destination_mac = site.node_b.mac("out0").unwrap();
    for (port, in_fragments) in [(40_000, false), (40_001, true)] {
        syn.source.set_port(port);
        let frames = if in_fragments { syn.fragments(8) } else { vec![syn.frame()] };
        let capture = Capture::start(&site.wire, "b0").unwrap();
        for frame in &frames {
            sender.send(frame).unwrap();
        }
        let answer = |frame: &[u8]| {
            Segment::parse(frame).is_some_and(|s| s.destination == syn.source && s.flags == SYN | ACK && s.ack == 2)
        };
        wait_until("SYN-ACK", SECOND, || capture.any(answer).then_some(())).unwrap();
        // The kernel of the legacy host knows nothing of it and says so: both ways are captured.
        let reset = |frame: &[u8]| Segment::parse(frame).is_some_and(|s| s.source == syn.source && s.flags & RST != 0);
        wait_until("RST", SECOND, || capture.any(reset).then_some(())).unwrap();
    }
}

#[test]
fn a_program_that_takes_too_long_is_killed_and_an_error() {
    let rig = Rig::new().unwrap();
    let namespace = rig.namespace("slow").unwrap();
    let error = namespace.run("tail -f /dev/null", Duration::from_millis(100)).unwrap_err();
    assert!(error.to_string().contains("took longer"), "{error}");
    wait_until("the program is gone", SECOND, || namespace.pids().is_empty().then_some(())).unwrap();
}

/// Not a test of its own: run by the two below as a process that holds a rig until it dies.
#[test]
fn hold_a_rig_if_told_to() {
    if std::env::var_os("HOLD_A_RIG").is_none() {
        return;
    }
    let rig = Rig::new().unwrap();
    let namespace = rig.namespace("held").unwrap();
    // As a gateway's programs are: nothing of theirs ends with a process or a namespace.
    std::fs::create_dir_all(Path::new(PINS).join(namespace.name())).expect("/sys/fs/bpf is a bpffs");
    let _program = namespace.spawn("tail -f /dev/null", &rig.directory().join("log")).unwrap();
    println!("\nholding {}", namespace.name());
    loop {
        std::thread::park();
    }
}

#[test]
fn an_interrupted_rig_cleans_up_and_a_killed_one_is_swept_by_the_next() {
    for (signal, swept) in [(rustix::process::Signal::INT, false), (rustix::process::Signal::KILL, true)] {
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hold_a_rig_if_told_to", "--nocapture"])
            .env("HOLD_A_RIG", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
        let name = lines.map_while(Result::ok).find_map(|l| l.strip_prefix("holding ").map(str::to_owned)).unwrap();
        let path = Path::new("/run/netns").join(&name);
        assert!(path.exists());
        rustix::process::kill_process(rustix::process::Pid::from_child(&holder), signal).unwrap();
        holder.wait().unwrap();
        let pins = Path::new(PINS).join(&name);
        assert_eq!((path.exists(), pins.exists()), (swept, swept), "after {signal:?}");
        drop(Rig::new().unwrap());
        assert!(!path.exists() && !pins.exists(), "after {signal:?} and the next rig");
    }
}
