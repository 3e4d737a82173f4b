//! AF_XDP ports on real veth pairs. Needs root.

mod io_rig;

use std::time::Duration;

use dataplane::io::xsk::OpenError;
use dataplane::io::{BURST, Packet, PacketIo, PortId};
use io_rig::*;
use snapshot::DropReason;

const LEFT: PortId = PortId(0);
const RIGHT: PortId = PortId(1);
const SECOND: Option<Duration> = Some(Duration::from_secs(1));

fn forwards_byte_exact(mtu: usize) {
    namespace();
    cable("h0", "p0", mtu);
    cable("h1", "p1", mtu);
    let (mut ports, _programs) = open(&["p0", "p1"]);
    assert_eq!(ports.mode(), "copy");
    let (left, right) = (Wire::open("h0"), Wire::open("h1"));
    let mut copy = Vec::new();
    let largest = mtu + 14;
    let sizes = [60, 64, 590, 1514, 3840, 3841, 7680, 7681, 9014, 40_000, 65_535, 65_549];
    for (i, &size) in sizes.iter().filter(|&&size| size <= largest).enumerate() {
        for (from, to, one, other) in [(LEFT, RIGHT, &left, &right), (RIGHT, LEFT, &right, &left)] {
            let sent = packet(i as u32, size);
            one.send(&sent);
            awaited("the packet reaches the port", || {
                ports.wait(SECOND);
                forward(&mut ports, from, to, &mut copy) == 1
            });
            let received = other.receive();
            assert_eq!(received.len(), size, "length at MTU {mtu}");
            assert!(received == sent, "{size} bytes at MTU {mtu} arrived altered");
            assert_conserved(&ports);
        }
    }
    let over = ports.send(LEFT, mtu + 19, &mut |_| panic!("refused packets are not written"));
    assert_eq!(over, Err(DropReason::TooLarge));
}

#[test]
fn packets_pass_byte_exact_at_mtu_1500() {
    forwards_byte_exact(1500);
}

#[test]
fn packets_pass_byte_exact_at_mtu_9000() {
    forwards_byte_exact(9000);
}

#[test]
fn packets_pass_byte_exact_at_mtu_65535() {
    forwards_byte_exact(65_535);
}

#[test]
fn the_first_fragment_and_the_length_are_known_before_the_packet_is_made_contiguous() {
    namespace();
    cable("h0", "p0", 9000);
    let (mut ports, _programs) = open(&["p0"]);
    let wire = Wire::open("h0");
    let (large, small) = (packet(1, 9014), packet(2, 100));
    wire.send(&large);
    wire.send(&small);
    let mut received = 0;
    awaited("both are there", || {
        ports.wait(SECOND);
        received = ports.rx_burst(LEFT);
        if received < 2 {
            ports.release();
        }
        received == 2
    });
    assert_eq!((ports.length(Packet(0)), ports.length(Packet(1))), (9014, 100));
    let head = ports.head(Packet(0));
    assert!(head.len() > 1000 && head.len() < 9014 && large.starts_with(head));
    assert!(ports.bytes(Packet(0)) == large);
    assert!(ports.bytes(Packet(1)) == small);
    assert!(ports.bytes(Packet(0)) == large, "asked again, after another one");
    ports.release();
    assert_conserved(&ports);
}

/// Sends `count` packets from one core's port to another's, in bursts that the reader's fill ring
/// holds: what is lost then was lost on the cable, or by us.
fn stream(mtu: usize, len: usize, burst: u32, count: u32) {
    namespace();
    cable("a0", "b0", mtu);
    let (mut a, _pa) = open(&["a0"]);
    let (mut b, _pb) = open(&["b0"]);
    let (mut sent, mut received) = (0, 0);
    until("all packets arrive", || {
        let goal = count.min(received + burst);
        while sent < goal && a.can_send(LEFT, len) {
            a.send(LEFT, len, &mut |bytes| write_packet(sent, bytes)).unwrap();
            sent += 1;
        }
        a.flush();
        let burst = b.rx_burst(LEFT);
        for i in 0..burst {
            let bytes = b.bytes(Packet(i));
            assert_eq!(number(bytes), received, "in order, none lost");
            if received % 512 == 0 {
                assert!(bytes == packet(received, len), "packet {received} is altered");
            }
            received += 1;
        }
        b.release();
        b.flush();
        assert_conserved(&a);
        assert_conserved(&b);
        received == count
    });
    assert_eq!((a.counters(LEFT).refused, a.counters(LEFT).shed), (0, 0));
}

#[test]
fn a_hundred_thousand_packets_arrive_in_order_and_no_frame_is_lost() {
    stream(1500, 1514, 1024, 100_000);
}

#[test]
fn the_largest_packets_arrive_in_order_and_no_frame_is_lost() {
    stream(65_535, 65_549, 64, 5_000);
}

#[test]
fn a_peer_that_does_not_read_costs_packets_and_not_frames() {
    namespace();
    cable("a0", "b0", 9000);
    let (mut a, _pa) = open(&["a0"]);
    let (mut b, _pb) = open(&["b0"]);
    let (mut taken, mut refused, mut received) = (0u32, 0u32, 0u32);
    for turn in 0..3_000 {
        for i in 0..40 {
            // Sizes of one, two and three frames.
            let len = [60, 1514, 5000, 9014][(turn + i) % 4];
            match a.send(LEFT, len, &mut |bytes| write_packet(taken, bytes)) {
                Ok(()) => taken += 1,
                Err(DropReason::TransmitBacklogFull) => refused += 1,
                Err(reason) => panic!("refused: {reason}"),
            }
        }
        // A backlog that fills up, and a reader that sleeps.
        if turn % 50 == 49 {
            a.flush();
        }
        if turn % 500 == 499 {
            received += b.rx_burst(LEFT) as u32;
            b.release();
        }
        assert_conserved(&a);
        assert_conserved(&b);
    }
    assert!(taken + refused > 100_000 && refused > 1_000, "{taken} taken, {refused} refused");
    until("the backlog drains", || a.flush() == 0);
    until("what the reader has is read", || {
        let burst = b.rx_burst(LEFT);
        received += burst as u32;
        b.release();
        b.flush();
        burst == 0
    });
    assert!(received > BURST as u32 && received < taken, "{received} of {taken}");
    assert_conserved(&a);
    assert_conserved(&b);
    // Both still work.
    a.send(LEFT, 100, &mut |bytes| write_packet(7, bytes)).unwrap();
    a.flush();
    until("a packet after all that", || {
        let burst = b.rx_burst(LEFT);
        b.release();
        burst == 1
    });
}

#[test]
fn a_port_that_goes_down_is_shed_and_taken_up_again_while_another_goes_on() {
    namespace();
    cable("h0", "p0", 1500);
    cable("h1", "p1", 1500);
    let (mut ports, programs) = open(&["p0", "p1"]);
    let mut copy = Vec::new();
    let wire = Wire::open("h0");

    ip("link set p1 down");
    for i in 0..100 {
        ports.send(RIGHT, 1000, &mut |bytes| write_packet(i, bytes)).unwrap();
    }
    ports.flush();
    assert!(!ports.is_up(RIGHT));
    assert_eq!(ports.counters(RIGHT).shed, 100);
    assert_conserved(&ports);
    assert_eq!(ports.send(RIGHT, 1000, &mut |_| ()), Err(DropReason::PortDown));
    assert!(matches!(ports.take_up(RIGHT), Err(OpenError::Down { .. })));

    // The other one goes on.
    wire.send(&packet(5, 200));
    awaited("the other port", || {
        ports.wait(SECOND);
        forward(&mut ports, LEFT, LEFT, &mut copy) == 1
    });
    assert!(wire.receive() == packet(5, 200));

    ip("link set p1 up");
    let mut busy = 0;
    let fresh = loop {
        match ports.take_up(RIGHT) {
            Ok(fresh) => break fresh,
            Err(OpenError::Busy { .. }) if busy < 1000 => {
                busy += 1;
                ports.wait(Some(Duration::from_millis(1)));
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert!(fresh);
    register(&ports, &programs);
    assert_conserved(&ports);
    assert!(!ports.take_up(RIGHT).unwrap(), "sockets that are good stay");
    let other = Wire::open("h1");
    other.send(&packet(6, 300));
    awaited("the port that came back", || {
        ports.wait(SECOND);
        forward(&mut ports, RIGHT, RIGHT, &mut copy) == 1
    });
    assert!(other.receive() == packet(6, 300), "nothing of what was shed comes first");
}

fn register(ports: &dataplane::io::xsk::XskPorts, programs: &[Program]) {
    for (port, queue, fd) in ports.sockets() {
        programs[usize::from(port.0)].register(queue, fd);
    }
}

/// Whichever port it is: the first one opened is not special.
fn removed_and_made_again(gone: PortId, stays: PortId) {
    namespace();
    cable("h0", "p0", 1500);
    cable("h1", "p1", 1500);
    let (mut ports, mut programs) = open(&["p0", "p1"]);
    let (host, port_name) = [("h0", "p0"), ("h1", "p1")][usize::from(gone.0)];
    let wire = Wire::open(["h0", "h1"][usize::from(stays.0)]);
    let mut copy = Vec::new();

    ip(&format!("link del {port_name}"));
    ports.send(gone, 1000, &mut |bytes| write_packet(1, bytes)).unwrap();
    ports.flush();
    assert!(!ports.is_up(gone));
    assert!(matches!(ports.take_up(gone), Err(OpenError::Link(_))));
    assert_conserved(&ports);

    wire.send(&packet(2, 200));
    awaited("the port that stays", || {
        ports.wait(SECOND);
        forward(&mut ports, stays, stays, &mut copy) == 1
    });
    assert!(wire.receive() == packet(2, 200));

    // Back with another MTU, which the port takes over.
    cable(host, port_name, 9000);
    assert!(ports.take_up(gone).unwrap());
    assert_eq!(ports.mtu(gone), 9000);
    programs[usize::from(gone.0)] = Program::attach(port_name);
    register(&ports, &programs);
    let back = Wire::open(host);
    back.send(&packet(3, 9014));
    awaited("the port that came back", || {
        ports.wait(SECOND);
        forward(&mut ports, gone, gone, &mut copy) == 1
    });
    assert!(back.receive() == packet(3, 9014));
    assert_conserved(&ports);
}

#[test]
fn the_first_port_may_be_removed_and_made_again() {
    removed_and_made_again(LEFT, RIGHT);
}

#[test]
fn another_port_may_be_removed_and_made_again() {
    removed_and_made_again(RIGHT, LEFT);
}

#[test]
fn a_waker_ends_an_endless_wait() {
    namespace();
    cable("h0", "p0", 1500);
    let (mut ports, _programs) = open(&["p0"]);
    let waker = ports.waker();
    std::thread::scope(|scope| {
        scope.spawn(move || waker.wake());
        ports.wait(None);
    });
}

#[test]
fn a_queue_that_is_still_taken_is_waited_for() {
    namespace();
    cable("h0", "p0", 1500);
    let before = try_open(&["p0"]).unwrap();
    let (started, tell) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // A thread is in the namespace of the one that made it.
        let opened = scope.spawn(move || {
            started.send(()).unwrap();
            try_open(&["p0"]).map(|ports| assert_conserved(&ports))
        });
        tell.recv().unwrap();
        drop(before);
        opened.join().unwrap().unwrap();
    });
}

#[test]
fn a_queue_that_stays_taken_is_an_error_that_names_it() {
    namespace();
    cable("h0", "p0", 1500);
    let _other = try_open(&["p0"]).unwrap();
    let Err(error) = try_open(&["p0"]) else { panic!("two sockets on one queue") };
    let error = error.to_string();
    assert!(error.contains("p0") && error.contains("queue 0") && error.contains("EBUSY"), "{error}");
    let Err(error) = try_open(&["nothere"]) else { panic!("a port on no interface") };
    assert!(error.to_string().contains("nothere"), "{error}");
}

#[test]
fn without_the_right_to_make_namespaces_loopback_serves_until_it_is_taken() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    namespace();
    cable("h0", "p0", 1500);
    cable("h1", "p1", 1500);
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::SYS_ADMIN);
    set_capabilities(None, sets).unwrap();
    let _first = try_open(&["p0"]).unwrap();
    let Err(error) = try_open(&["p1"]) else { panic!("two anchors on one loopback") };
    assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
}

#[test]
fn ports_can_be_opened_by_one_thread_and_run_by_another() {
    fn moves<T: Send>() {}
    moves::<dataplane::io::xsk::XskPorts>();
}
