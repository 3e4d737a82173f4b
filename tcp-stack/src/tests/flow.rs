//! Windows, in both directions, delayed acknowledgements and narrower paths.

use super::{NONE, SECOND, plain};
use crate::testing::Script;
use crate::{Config, Duration, State};

#[test]
fn a_full_ring_closes_the_window_and_reading_opens_it() {
    let mut script = Script::accepted(&plain(), false);
    for at in 0..8 {
        script.send("A", 1 + at * 1024, 1, &[at as u8; 1024]);
    }
    assert_eq!(script.heard(), ["A 1 8193 0"]);
    assert_eq!(script.last_window, 0);
    script.send("A", 8193, 1, b"x");
    assert_eq!(script.heard(), ["A 1 8193 0"], "a probe is answered");
    assert_eq!(script.connection.poll_at(&mut script.stack, script.now), None);
    assert_eq!(script.read().len(), 8192);
    assert_eq!(script.wait(), Some(Duration::ZERO), "a window update is due");
    assert_eq!(script.heard(), ["A 1 8193 0"]);
    assert_eq!(script.last_window, 8192);
}

/// Both ends with full rings, each with its acknowledgement on data only: who forgets it with the data
/// waits for ever.
#[test]
fn an_acknowledgement_on_data_that_a_closed_window_refuses_still_counts() {
    let mut script = Script::accepted(&plain(), false);
    script.write(b"0123456789");
    assert_eq!(script.heard(), ["A 1 1 10"]);
    for at in 0..8 {
        script.send("A", 1 + at * 1024, 1, &[at as u8; 1024]);
    }
    script.heard();
    assert_eq!((script.last_window, script.connection.unacked()), (0, 10));
    script.send("A", 8193, 11, b"x");
    assert_eq!(script.connection.unacked(), 0);
    assert_eq!(script.connection.received(), 8192, "the byte beyond the window is not taken");
}

/// A scaled window is told in steps: the last bytes of room are not, and a peer that has filled them in
/// time stands past the window from then on, with all that it says.
#[test]
fn an_acknowledgement_from_past_a_window_that_shrank_by_its_scale_still_counts() {
    const RING: u32 = 1 << 18;
    for data in [&b"abcd"[..], b""] {
        let mut script = Script::new(&Config { buffer: RING as usize, ..plain() }, false);
        script.scales = true;
        assert!(script.accept(1500));
        script.heard();
        script.send("A", 1, 1, b"");
        script.write(b"0123456789");
        assert_eq!(script.heard(), ["A 1 1 10"]);
        let rest = RING - 4;
        for at in (0..rest).step_by(1460) {
            script.send("A", 1 + at, 1, &vec![7; 1460.min(rest - at) as usize]);
        }
        script.heard();
        assert_eq!((script.connection.received(), script.last_window), (rest as usize, 0));
        // The four bytes that there is room for are under way; behind them a mere acknowledgement is.
        let next = 1 + rest + if data.is_empty() { 4 } else { 0 };
        script.send("A", next, 11, data);
        assert_eq!(script.connection.unacked(), 0, "{data:?}");
        assert_eq!(script.read().len(), rest as usize, "what the window refuses is not taken");
    }
}

#[test]
fn acknowledgements_behind_a_hole_are_counted_once_each() {
    let mut script = Script::accepted(&plain(), false);
    script.mss = None;
    script.write(&[1; 4000]);
    assert_eq!(script.heard().len(), 2);
    for _ in 0..2 {
        script.send("A", 100, 1, b"");
    }
    assert_eq!(script.heard(), NONE, "two duplicates are no loss");
    script.send("A", 100, 1, b"");
    assert_eq!(script.heard()[0], "A 1 1 1460", "three are");
}

#[test]
fn a_peers_closed_window_is_probed_until_it_opens() {
    let mut script = Script::accepted(&plain(), false);
    script.window = 4;
    script.send("A", 1, 1, b"");
    script.write(b"0123456789");
    assert_eq!(script.heard(), ["A 1 1 4"]);
    script.window = 0;
    script.send("A", 1, 5, b"");
    for wait in [1, 2, 4] {
        assert_eq!(script.wait(), Some(SECOND * wait));
        assert_eq!(script.heard(), ["A 5 1 1"]);
        script.send("A", 1, 5, b"");
    }
    script.window = 100;
    script.send("A", 1, 5, b"");
    assert_eq!(script.heard(), ["A 5 1 6"]);
}

#[test]
fn a_lone_segments_acknowledgement_waits_and_a_second_ones_does_not() {
    let config = Config { ack_delay: Some(Duration::from_millis(10)), ..plain() };
    let mut script = Script::accepted(&config, false);
    script.send("A", 1, 1, &[0; 1000]);
    assert_eq!(script.heard(), NONE);
    assert_eq!(script.wait(), Some(Duration::from_millis(10)));
    assert_eq!(script.heard(), ["A 1 1001 0"]);
    script.send("A", 1001, 1, &[0; 1000]);
    script.send("A", 2001, 1, &[0; 1000]);
    assert_eq!(script.wait(), Some(Duration::ZERO));
    assert_eq!(script.heard(), ["A 1 3001 0"]);
}

#[test]
fn a_waiting_acknowledgement_travels_with_data() {
    let config = Config { ack_delay: Some(Duration::from_millis(10)), ..plain() };
    let mut script = Script::accepted(&config, false);
    script.send("A", 1, 1, b"question");
    assert_eq!(script.heard(), NONE);
    script.write(b"answer");
    assert_eq!(script.wait(), Some(Duration::ZERO));
    assert_eq!(script.heard(), ["A 1 9 6"]);
    script.send("A", 9, 7, b"");
    assert_eq!(script.heard(), NONE);
    assert_eq!(script.wait(), None);
}

#[test]
fn a_hole_is_told_at_once_and_filled_in_order() {
    let config = Config { ack_delay: Some(Duration::from_millis(10)), ..plain() };
    let mut script = Script::accepted(&config, false);
    script.send("A", 5, 1, b"5678");
    assert_eq!(script.answers(), ["A 1 1 0"]);
    script.send("A", 1, 1, b"1234");
    assert_eq!(script.answers(), ["A 1 9 0"]);
    assert_eq!(script.read(), b"12345678");
}

#[test]
fn transmit_stops_at_its_budget_and_when_the_output_is_full() {
    let mut script = Script::accepted(&plain(), false);
    script.write(&[1; 2048]);
    let Script { connection, stack, now, out, .. } = &mut script;
    assert_eq!(connection.transmit(stack, *now, out, 1), 1);
    out.room = Some(1);
    assert_eq!(connection.transmit(stack, *now, out, 10), 0);
    out.room = None;
    assert_eq!(connection.transmit(stack, *now, out, 10), 1);
    assert_eq!(script.answers(), ["A 1 1 1460", "A 1461 1 588"]);
}

#[test]
fn a_narrower_path_is_taken_at_once_and_never_below_the_least() {
    for (v6, mtu, want, headers) in [(false, 1400, 1400, 40), (false, 68, 576, 40), (true, 1300, 1280, 60)] {
        let mut script = Script::accepted(&plain(), v6);
        script.write(&[7; 1400]);
        assert_eq!(script.heard(), ["A 1 1 1400"]);
        script.connection.shrink_mtu(mtu);
        assert_eq!(script.wait(), Some(Duration::ZERO), "sent again without waiting");
        let again = script.heard();
        assert_eq!(again[0], format!("A 1 1 {}", want - headers), "{mtu}");
        script.connection.shrink_mtu(9000);
        script.send("A", 1, 1401, b"");
        script.write(&[7; 1400]);
        assert_eq!(script.heard()[0], format!("A 1401 1 {}", want - headers), "{mtu}: never up");
        assert_eq!(script.connection.state(), State::Established);
    }
}

#[test]
fn an_acknowledgement_inside_repeated_data_counts() {
    let mut script = Script::accepted(&plain(), false);
    script.send("A", 1, 1, b"data");
    script.heard();
    script.write(b"ours");
    assert_eq!(script.heard(), ["A 1 5 4"]);
    script.send("A", 1, 5, b"data");
    assert_eq!(script.answers(), ["A 5 5 0"], "the repetition is acknowledged");
    assert_eq!(script.connection.unacked(), 0, "and so are our bytes");
}

#[test]
fn a_repeated_fin_that_acknowledges_ours_is_answered_and_finishes() {
    let mut script = Script::accepted(&plain(), false);
    script.send("FA", 1, 1, b"");
    script.heard();
    script.connection.close();
    assert_eq!(script.heard(), ["FA 1 2 0"]);
    script.send("FA", 1, 2, b"");
    assert_eq!(script.answers(), ["A 2 2 0"]);
    assert_eq!(script.connection.ended(), Some(crate::End::Finished));
}

#[test]
fn an_acknowledgement_after_a_timeout_still_carries_our_highest_number() {
    let mut script = Script::accepted(&plain(), false);
    script.mss = None;
    script.write(&[1; 2000]);
    assert_eq!(script.heard(), ["A 1 1 1460", "A 1461 1 540"]);
    assert_eq!(script.wait(), Some(SECOND));
    assert_eq!(script.heard(), ["A 1 1 1460"], "the congestion window fell to one segment");
    script.send("A", 1, 1, b"x");
    assert_eq!(script.heard(), ["A 2001 2 0"]);
}

#[test]
fn a_window_that_closes_over_bytes_under_way_is_probed_too() {
    for keep_alive in [None, Some(SECOND * 60)] {
        let mut script = Script::accepted(&Config { keep_alive, ..plain() }, false);
        script.write(&[1; 1000]);
        assert_eq!(script.heard(), ["A 1 1 1000"]);
        script.window = 0;
        script.send("A", 1, 1, b"");
        assert_eq!(script.wait(), Some(SECOND), "the retransmission timeout");
        assert_eq!(script.heard(), NONE, "but nothing may be sent");
        for _ in 0..3 {
            assert_eq!(script.wait(), Some(SECOND));
            assert_eq!(script.heard(), ["A 0 1 1"]);
        }
        script.window = 5000;
        script.send("A", 1, 1, b"");
        assert_eq!(script.heard(), ["A 1 1 1000"]);
        script.send("A", 1, 1001, b"");
        script.heard();
        assert_eq!(script.wait(), keep_alive, "back to the usual pace");
    }
}

#[test]
fn a_narrower_path_while_more_is_to_send_still_repeats_what_was_too_large() {
    let mut script = Script::accepted(&plain(), false);
    script.write(&[7; 1400]);
    script.heard();
    script.write(&[8; 100]);
    script.connection.shrink_mtu(1000);
    assert_eq!(script.heard(), ["A 1401 1 100", "A 1 1 536", "A 537 1 536", "A 1073 1 388"]);
}
