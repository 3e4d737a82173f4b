//! Segments that leave together, over a real cable: whole, in order, cut by the kernel. Needs root.

mod io_rig;

use dataplane::io::xsk::XskPorts;
use dataplane::io::{Packet, PacketIo, PortId};
use dataplane::parse::{self, ETHERNET, fill_partial_checksums};
use io_rig::*;
use snapshot::gateway::Checksum;

const PORT: PortId = PortId(0);
const HEADERS: usize = ETHERNET + 20 + 20;

/// Segment `number` of a stream of segments of `size` bytes, whose payload is its number.
fn segment(frame: &mut [u8], number: u32, size: usize) {
    frame[..12].fill(2);
    frame[12..14].copy_from_slice(&[8, 0]);
    let ip = &mut frame[ETHERNET..];
    ip[..20].fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&((40 + size) as u16).to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 6]);
    ip[12..20].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
    let tcp = &mut ip[20..];
    tcp[..20].fill(0);
    tcp[..4].copy_from_slice(&[0x9c, 0x40, 0x0b, 0xb8]);
    tcp[4..8].copy_from_slice(&number.wrapping_mul(size as u32).to_be_bytes());
    tcp[12..16].copy_from_slice(&[0x50, 0x10, 0x10, 0]);
    for word in tcp[20..].chunks_mut(4) {
        word.copy_from_slice(&number.to_be_bytes()[..word.len()]);
    }
    fill_partial_checksums(ip);
}

/// Checks what has arrived and returns how many segments that was, each a packet of its own.
fn read(ports: &mut XskPorts, from: u32, size: usize) -> u32 {
    let (segments, packets) = read_trains(ports, from, size);
    assert_eq!(segments, packets, "each was cut off");
    segments
}

/// Checks what has arrived: segments, and the packets that they came in.
fn read_trains(ports: &mut XskPorts, from: u32, size: usize) -> (u32, u32) {
    let (mut segments, mut packets) = (0, 0);
    loop {
        let count = ports.rx_burst(PORT);
        for packet in 0..count {
            let frame = ports.bytes(Packet(packet));
            assert!(frame.len() > HEADERS && (frame.len() - HEADERS).is_multiple_of(size), "{}", frame.len());
            parse::parse(frame, Checksum::Auto, true).expect("its headers and its checksum hold");
            let sequence = u32::from_be_bytes(frame[ETHERNET + 24..ETHERNET + 28].try_into().unwrap());
            assert_eq!(sequence, (from + segments).wrapping_mul(size as u32));
            for payload in frame[HEADERS..].chunks(size) {
                let mut want = vec![0; HEADERS + size];
                segment(&mut want, from + segments, size);
                assert!(*payload == want[HEADERS..], "the payload of segment {}", from + segments);
                segments += 1;
            }
            packets += 1;
        }
        ports.release();
        ports.flush();
        if count == 0 {
            return (segments, packets);
        }
    }
}

/// Sends trains of `train` segments; all arrive, in order.
fn streams(mtu: usize, train: u32, offload: bool) -> u64 {
    namespace();
    cable("a0", "b0", mtu);
    let (mut a, _pa) = open(&["a0"]);
    let (mut b, _pb) = open(&["b0"]);
    if !offload {
        let off = std::process::Command::new("ethtool").args(["-K", "a0", "tso", "off", "gso", "off"]).status();
        assert!(off.is_ok_and(|status| status.success()), "ethtool is installed");
    }
    assert!(a.offloads_checksums(PORT));
    let size = mtu - 40;
    let (mut sent, mut got) = (0, 0);
    while sent < 4_000 {
        for _ in 0..train {
            assert!(a.can_send(PORT, HEADERS + size), "there is room for a train");
            a.send(PORT, HEADERS + size, &mut |frame| segment(frame, sent, size)).unwrap();
            sent += 1;
        }
        assert!((0..10_000).any(|_| a.flush() == 0), "all of it leaves");
        got += read(&mut b, got, size);
    }
    assert_eq!(got, sent);
    assert_conserved(&a);
    assert_conserved(&b);
    a.counters(PORT).kicks
}

#[test]
fn a_train_leaves_as_one_packet_and_arrives_cut_up() {
    let kicks = streams(1500, 40, true);
    assert_eq!(kicks, 0, "none of it took the ring");
}

/// What the generic mode is for on a veth: the kernel has no reason to cut.
#[test]
fn a_train_arrives_whole_where_the_program_runs_in_generic_mode() {
    namespace();
    cable("a0", "b0", 1500);
    let (mut a, _pa) = open(&["a0"]);
    let (mut b, _pb) = open_in(Mode::Generic, &["b0"]);
    let (mut sent, mut got, mut trains) = (0, 0, 0);
    while sent < 4_000 {
        for _ in 0..40 {
            a.send(PORT, HEADERS + 1460, &mut |frame| segment(frame, sent, 1460)).unwrap();
            sent += 1;
        }
        assert!((0..10_000).any(|_| a.flush() == 0), "all of it leaves");
        let (segments, packets) = read_trains(&mut b, got, 1460);
        (got, trains) = (got + segments, trains + packets);
    }
    assert_eq!((got, trains), (4_000, 100));
    assert_conserved(&a);
    assert_conserved(&b);
}

#[test]
fn a_train_arrives_also_where_the_interface_does_not_cut() {
    streams(1500, 40, false);
}

#[test]
fn large_segments_arrive_too() {
    streams(9000, 5, true);
    streams(65_535, 3, true);
}

#[test]
fn a_lone_segment_takes_the_ring_with_its_checksum_complete() {
    let kicks = streams(1500, 1, true);
    assert_eq!(kicks, 4_000);
}

/// A queue in front of the cable keeps the kernel's memory of the socket occupied.
#[test]
fn a_port_whose_socket_is_full_waits_and_loses_nothing() {
    namespace();
    cable("a0", "b0", 1500);
    let shaped = std::process::Command::new("tc")
        .args("qdisc add dev a0 root tbf rate 200mbit burst 100kb limit 10mb".split(' '))
        .status();
    assert!(shaped.is_ok_and(|status| status.success()), "iproute2 is installed");
    let (mut a, _pa) = open(&["a0"]);
    let (mut b, _pb) = open(&["b0"]);
    let (mut sent, mut got, mut waited) = (0, 0, 0);
    let size = 1460;
    while got < 4_000 {
        while sent < 4_000 && a.can_send(PORT, HEADERS + size) {
            a.send(PORT, HEADERS + size, &mut |frame| segment(frame, sent, size)).unwrap();
            sent += 1;
        }
        waited += u32::from(sent < 4_000);
        a.flush();
        got += read(&mut b, got, size);
        b.wait(Some(std::time::Duration::from_millis(1)));
    }
    assert!(waited > 10, "the socket was full {waited} times");
    assert_eq!(a.flush(), 0);
    assert_conserved(&a);
    assert_conserved(&b);
}

#[test]
fn a_port_that_goes_down_sheds_what_is_open() {
    namespace();
    cable("a0", "b0", 1500);
    let (mut a, _pa) = open(&["a0"]);
    ip("link set a0 down");
    for number in 0..20 {
        a.send(PORT, HEADERS + 1460, &mut |frame| segment(frame, number, 1460)).unwrap();
    }
    assert!((0..100).any(|_| a.flush() == 0), "nothing waits for ever");
    let counters = a.counters(PORT);
    assert_eq!(counters.shed + counters.refused, 20, "{counters:?}");
    assert_conserved(&a);
}
