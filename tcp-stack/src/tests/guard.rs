//! RFC 5961: what a stranger who guessed the four-tuple cannot do.

use super::{NONE, SECOND, plain};
use crate::testing::Script;
use crate::{End, State, rst_for};

#[test]
fn only_the_exact_rst_ends_a_connection() {
    let cases: [(&str, u32, &[&str]); 4] = [
        ("just ahead", 6, &["A 1 5 0"]),
        ("at the window's far end", 5 + 8187, &["A 1 5 0"]),
        ("beyond the window", 5 + 8192, &[]),
        ("already received", 4, &[]),
    ];
    for (name, seq, answer) in cases {
        let mut script = Script::accepted(&plain(), false);
        script.send("A", 1, 1, b"data");
        script.heard();
        script.send("R", seq, 0, b"");
        assert_eq!(script.answers(), answer, "{name}");
        assert_eq!(script.connection.state(), State::Established, "{name}");
        script.send("R", 5, 0, b"");
        assert_eq!(script.connection.ended(), Some(End::Reset), "{name}: the exact one counts");
    }
}

#[test]
fn an_exact_rst_counts_also_before_we_acknowledged_what_came_before_it() {
    let mut script = Script::accepted(&plain(), false);
    script.send("A", 1, 1, b"data");
    script.send("R", 5, 0, b"");
    assert_eq!(script.connection.ended(), Some(End::Reset));
}

#[test]
fn a_syn_is_challenged_and_challenges_are_rare() {
    let mut script = Script::accepted(&plain(), true);
    for flags in ["S", "SA", "S"] {
        script.send(flags, 1000, 1, b"");
    }
    assert_eq!(script.answers(), ["A 1 1 0"]);
    script.pass(SECOND);
    script.send("S", 0, 0, b"");
    assert_eq!(script.answers(), ["A 1 1 0"]);
    assert_eq!(script.connection.state(), State::Established);
}

#[test]
fn a_challenge_offers_no_more_than_we_offered() {
    let mut script = Script::new(&crate::Config { buffer: 1 << 20, ..plain() }, false);
    script.scales = true;
    script.accept(1500);
    script.heard();
    script.send("A", 1, 1, b"");
    script.send("S", 1000, 0, b"");
    assert_eq!(script.answers(), ["A 1 1 0"]);
    assert!(usize::from(script.last_window) << 5 <= 1 << 20);
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_is_challenged() {
    let mut script = Script::accepted(&plain(), false);
    script.out.room = Some(0);
    script.write(b"queued, not sent");
    script.heard();
    script.out.room = None;
    script.send("A", 1, 5, b"forged");
    assert_eq!(script.read(), b"");
    assert_eq!(script.connection.unacked(), 16);
}

#[test]
fn segments_of_other_connections_are_not_taken() {
    let mut script = Script::accepted(&plain(), false);
    script.peer.set_port(1);
    script.send("R", 1, 0, b"");
    script.send("A", 1, 1, b"data");
    assert_eq!(script.answers(), NONE);
    assert_eq!(script.connection.received(), 0);
    assert_eq!(script.connection.ended(), None);
}

#[test]
fn a_stranger_gets_the_rst_that_the_rfc_says() {
    for v6 in [false, true] {
        let script = Script::new(&plain(), v6);
        let cases: [(&str, &[u8], Option<&str>); 6] = [
            ("S", b"", Some("RA 0 1")),
            ("S", b"data", Some("RA 0 5")),
            ("F", b"", Some("RA 0 1")),
            ("A", b"data", Some("R 9 -")),
            ("SA", b"", Some("R 9 -")),
            ("R", b"", None),
        ];
        for (flags, data, want) in cases {
            let mut out = [0xff; 100];
            let len = rst_for(&script.packet(flags, 0, 9, data), &mut out);
            let got = len.map(|len| {
                let rst = crate::segment::Segment::parse(&out[..len]).expect("a segment");
                assert_eq!((rst.source, rst.destination), (script.local, script.peer));
                assert!(rst.rst && !rst.syn && !rst.fin && rst.len == 0);
                match rst.ack {
                    Some(ack) => format!("RA {} {}", rst.seq, ack.wrapping_sub(script.irs)),
                    None => format!("R {} -", rst.seq.wrapping_sub(script.isn)),
                }
            });
            assert_eq!(got.as_deref(), want, "{flags}");
        }
        assert_eq!(rst_for(&script.packet("A", 0, 9, b""), &mut [0; 39]), None, "no room");
        assert_eq!(rst_for(b"not a packet", &mut [0; 100]), None);
    }
}
