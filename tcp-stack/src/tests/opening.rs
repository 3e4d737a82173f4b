//! Handshakes, refusals, and the initial sequence number.

use super::{NONE, SECOND, plain};
use crate::testing::{Random, Script};
use crate::{End, State};

#[test]
fn a_syn_is_answered_and_the_ack_establishes() {
    for v6 in [false, true] {
        let script = Script::accepted(&plain(), v6);
        assert_eq!(script.connection.state(), State::Established);
        assert_eq!(script.connection.ended(), None);
    }
}

#[test]
fn a_dial_is_answered_and_establishes() {
    for v6 in [false, true] {
        let script = Script::connected(&plain(), v6);
        assert_eq!(script.connection.state(), State::Established);
    }
}

#[test]
fn a_lost_syn_and_a_lost_syn_ack_are_sent_again() {
    let mut dial = Script::new(&plain(), false);
    dial.connect(1500);
    assert_eq!(dial.heard(), ["S 0 - 0"]);
    assert_eq!(dial.wait(), Some(SECOND));
    assert_eq!(dial.heard(), ["S 0 - 0"]);

    let mut accept = Script::new(&plain(), false);
    assert!(accept.accept(1500));
    assert_eq!(accept.heard(), ["SA 0 1 0"]);
    assert_eq!(accept.wait(), Some(SECOND));
    assert_eq!(accept.heard(), ["SA 0 1 0"]);
}

#[test]
fn a_syn_ack_that_finds_no_room_leaves_later() {
    let mut script = Script::new(&plain(), false);
    script.out.room = Some(0);
    assert!(script.accept(1500));
    assert_eq!(script.answers(), NONE);
    script.out.room = None;
    assert_eq!(script.wait(), Some(crate::Duration::ZERO));
    assert_eq!(script.heard(), ["SA 0 1 0"]);
}

#[test]
fn a_refused_dial_ends_as_reset() {
    let mut script = Script::new(&plain(), false);
    script.connect(1500);
    script.heard();
    script.send("R", 0, 0, b"");
    script.send("RA", 0, 77, b"");
    assert_eq!(script.connection.ended(), None, "these RSTs acknowledge nothing of ours");
    script.send("RA", 0, 1, b"");
    assert_eq!(script.connection.ended(), Some(End::Reset));
    assert_eq!(script.heard(), NONE);
    assert_eq!(script.wait(), None);
}

#[test]
fn a_reset_during_the_callers_handshake_ends_the_accepted_side() {
    let mut script = Script::new(&plain(), false);
    script.accept(1500);
    script.heard();
    script.send("R", 2, 0, b"");
    assert_eq!(script.connection.state(), State::SynReceived, "not the next expected number");
    script.send("R", 1, 0, b"");
    assert_eq!(script.connection.ended(), Some(End::Reset));
}

#[test]
fn both_may_dial_at_once() {
    let mut script = Script::new(&plain(), false);
    script.connect(1500);
    assert_eq!(script.heard(), ["S 0 - 0"]);
    script.send("S", 0, 0, b"");
    assert_eq!(script.connection.state(), State::SynReceived);
    assert_eq!(script.heard(), ["SA 0 1 0"]);
    script.send("A", 1, 1, b"");
    assert_eq!(script.connection.state(), State::Established);
    script.send("A", 1, 1, b"both");
    assert_eq!(script.read(), b"both");
}

#[test]
fn what_is_no_opening_syn_for_this_pair_is_not_accepted() {
    let good = Script::new(&plain(), false);
    let mut foreign = Script::new(&plain(), false);
    foreign.peer.set_port(40_001);
    let mut cases: Vec<(&str, Vec<u8>)> =
        ["A", "SA", "SF", "SR", "R", "F", ""].iter().map(|flags| (*flags, good.packet(flags, 0, 0, b""))).collect();
    cases.push(("of another port", foreign.packet("S", 0, 0, b"")));
    cases.push(("cut", good.packet("S", 0, 0, b"")[..39].to_vec()));
    cases.push(("empty", Vec::new()));
    for (name, packet) in cases {
        let mut script = Script::new(&plain(), false);
        let Script { connection, stack, out, now, local, peer, .. } = &mut script;
        assert!(!connection.accept(stack, *local, *peer, 1, 1500, &packet, *now, out), "{name}");
        assert_eq!(script.connection.state(), State::Closed, "{name}");
        assert_eq!(script.heard(), NONE, "{name}");
    }
}

#[test]
fn the_initial_sequence_number_is_exactly_the_one_given() {
    let mut random = Random(3);
    let some = (0..2000).map(|_| random.draw() as u32);
    let mut script = Script::new(&plain(), false);
    for isn in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX].into_iter().chain(some) {
        script.isn = isn;
        script.connect(1500);
        assert_eq!(script.heard(), ["S 0 - 0"], "dialled with {isn}");
        assert!(script.accept(9000));
        assert_eq!(script.heard(), ["SA 0 1 0"], "accepted with {isn}");
    }
}

#[test]
fn addresses_that_do_not_fit_together_abort_at_once() {
    let mut script = Script::new(&plain(), false);
    script.peer = "[2001:db8::1]:1".parse().unwrap();
    script.connect(1500);
    assert_eq!(script.connection.ended(), Some(End::Aborted));
    assert_eq!(script.heard(), NONE);
}

#[test]
fn each_mtu_class_announces_and_keeps_its_segment_size() {
    for v6 in [false, true] {
        let headers = if v6 { 60 } else { 40 };
        for (mtu, class) in [(576, 576), (1280, 1280), (1499, 1492), (1500, 1500), (9000, 9000), (65_535, 65_535)] {
            let class = if v6 { class.max(1280) } else { class };
            let mut script = Script::new(&crate::Config { buffer: 1 << 18, ..plain() }, v6);
            script.mss = Some(65_535);
            assert!(script.accept(mtu));
            let syn = script.out.queue.pop_front().expect("a SYN-ACK");
            // Behind the fixed TCP header: kind 2, length 4, the size.
            let announced = u16::from_be_bytes([syn[headers + 2], syn[headers + 3]]);
            assert_eq!((syn[headers], announced as usize), (2, class - headers), "{mtu}");
            script.send("A", 1, 1, b"");
            script.write(&[1; 40_000]);
            let Script { connection, stack, now, out, .. } = &mut script;
            connection.transmit(stack, *now, out, 1000);
            let longest = out.queue.iter().map(Vec::len).max().expect("segments");
            assert!(longest <= class, "{longest} bytes in class {class}");
            assert!(longest == class || longest < 2048 + 120, "only the first congestion window is smaller");
        }
    }
}
