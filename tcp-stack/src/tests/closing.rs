//! FIN, half-close, TIME-WAIT, and RST from both sides.

use super::{NONE, SECOND, plain};
use crate::testing::Script;
use crate::{Config, Duration, End, State};

#[test]
fn we_close_first_and_still_read() {
    let mut script = Script::accepted(&plain(), false);
    script.write(b"bye");
    script.connection.close();
    assert_eq!(script.heard(), ["FA 1 1 3"]);
    assert_eq!(script.connection.room(), 0);
    script.send("A", 1, 5, b"");
    assert_eq!(script.connection.state(), State::FinWait2);
    assert!(script.connection.fin_acked() && !script.connection.fin_received());
    script.send("A", 1, 5, b"more");
    assert_eq!(script.read(), b"more");
    assert_eq!(script.heard(), ["A 5 5 0"]);
    script.send("FA", 5, 5, b"");
    assert_eq!(script.connection.ended(), None, "our last acknowledgement is not out");
    assert_eq!(script.heard(), ["A 5 6 0"]);
    assert_eq!(script.connection.ended(), Some(End::Finished));
    assert_eq!(script.connection.state(), State::TimeWait);
}

#[test]
fn the_peer_closes_first_and_we_still_write() {
    let mut script = Script::accepted(&plain(), true);
    script.send("FA", 1, 1, b"last");
    assert!(script.connection.fin_received());
    assert_eq!(script.connection.received(), 4, "data before the FIN may be read after it");
    assert_eq!(script.heard(), ["A 1 6 0"]);
    script.write(b"answer");
    assert_eq!(script.heard(), ["A 1 6 6"]);
    script.send("A", 6, 7, b"");
    script.connection.close();
    assert_eq!(script.heard(), ["FA 7 6 0"]);
    assert_eq!(script.connection.ended(), None);
    script.send("A", 6, 8, b"");
    assert_eq!(script.connection.ended(), Some(End::Finished));
    assert!(script.connection.fin_acked());
    assert_eq!(script.read(), b"last");
}

#[test]
fn both_close_at_once() {
    let mut script = Script::connected(&plain(), false);
    script.connection.close();
    assert_eq!(script.heard(), ["FA 1 1 0"]);
    script.send("FA", 1, 1, b"");
    assert_eq!(script.connection.state(), State::Closing);
    // The FIN was sent already; its number is taken, so this is an acknowledgement.
    assert_eq!(script.heard(), ["A 2 2 0"]);
    script.send("A", 2, 2, b"");
    assert_eq!(script.connection.state(), State::TimeWait);
    assert_eq!(script.connection.ended(), Some(End::Finished));
}

#[test]
fn an_acknowledgement_is_never_held_back_once_closing_began() {
    let config = Config { ack_delay: Some(Duration::from_millis(10)), ..plain() };
    let mut script = Script::accepted(&config, false);
    script.connection.close();
    script.heard();
    script.send("A", 1, 2, b"");
    script.send("A", 1, 2, b"half");
    assert_eq!(script.heard(), ["A 2 5 0"], "FIN-WAIT-2");

    let mut script = Script::accepted(&config, false);
    script.send("A", 1, 1, b"held");
    assert_eq!(script.heard(), NONE, "ESTABLISHED");
    script.send("FA", 5, 1, b"");
    assert_eq!(script.heard(), ["A 1 6 0"], "CLOSE-WAIT, with the one held before");

    let mut script = Script::accepted(&config, false);
    script.send("A", 1, 1, &[1; 100]);
    script.wait();
    assert_eq!(script.heard(), ["A 1 101 0"]);
    script.send("FA", 101, 1, b"end");
    assert_eq!(script.heard(), ["A 1 105 0"], "CLOSE-WAIT, data and FIN in one");
}

#[test]
fn a_fin_that_comes_again_in_time_wait_is_acknowledged_again() {
    let mut script = Script::accepted(&plain(), false);
    script.connection.close();
    script.heard();
    script.send("FA", 1, 2, b"");
    assert_eq!(script.heard(), ["A 2 2 0"]);
    script.pass(SECOND);
    script.send("FA", 1, 2, b"");
    assert_eq!(script.answers(), ["A 2 2 0"]);
    assert_eq!(script.wait(), Some(SECOND * 10));
    assert_eq!(script.heard(), NONE);
    assert_eq!(script.connection.state(), State::Closed);
    assert_eq!(script.connection.ended(), Some(End::Finished));
}

#[test]
fn bytes_that_nobody_read_yet_outlive_time_wait() {
    let mut script = Script::accepted(&plain(), false);
    script.connection.close();
    script.heard();
    script.send("FA", 1, 2, b"slow reader");
    assert_eq!(script.heard(), ["A 2 13 0"]);
    assert_eq!(script.wait(), None);
    script.pass(SECOND * 60);
    assert_eq!(script.heard(), NONE);
    assert_eq!(script.read(), b"slow reader");
}

#[test]
fn a_close_during_the_handshake_waits_for_its_end() {
    let mut script = Script::new(&plain(), false);
    script.accept(1500);
    script.heard();
    script.connection.close();
    assert_eq!(script.heard(), NONE);
    script.send("A", 1, 1, b"");
    assert_eq!(script.heard(), ["FA 1 1 0"]);
    assert!(!script.connection.fin_acked());
}

#[test]
fn an_abort_sends_one_rst_and_then_nothing() {
    let mut script = Script::accepted(&plain(), false);
    script.write(b"lost");
    script.heard();
    script.connection.abort();
    assert_eq!(script.connection.ended(), None, "the RST is not out");
    assert_eq!(script.heard(), ["RA 5 1 0"]);
    assert_eq!(script.connection.ended(), Some(End::Aborted));
    assert_eq!(script.heard(), NONE);
    assert_eq!(script.wait(), None);
}

#[test]
fn a_dial_that_nobody_heard_is_aborted_without_a_word() {
    let mut script = Script::new(&plain(), false);
    script.connect(1500);
    script.connection.abort();
    assert_eq!(script.connection.ended(), Some(End::Aborted));
    assert_eq!(script.heard(), NONE);
}

#[test]
fn a_peers_reset_ends_it_and_leaves_what_came_before() {
    let mut script = Script::accepted(&plain(), false);
    script.send("A", 1, 1, b"before");
    script.send("R", 7, 0, b"");
    assert_eq!(script.connection.ended(), Some(End::Reset));
    assert_eq!(script.heard(), NONE);
    assert_eq!(script.read(), b"before");
    script.send("A", 7, 1, b"late");
    assert_eq!(script.answers(), ["R 1 - 0"], "a closed connection answers with a RST");
    script.connection.abort();
    assert_eq!(script.connection.ended(), Some(End::Reset), "the first end stays");
}

#[test]
fn data_behind_a_fin_is_not_taken() {
    let mut script = Script::accepted(&plain(), false);
    script.send("FA", 1, 1, b"end");
    script.heard();
    script.send("A", 5, 1, b"smuggled");
    assert_eq!(script.heard(), ["A 1 5 0"]);
    assert_eq!(script.read(), b"end");
}

#[test]
fn a_fin_behind_more_than_the_window_is_not_believed() {
    let mut script = Script::accepted(&plain(), false);
    script.send("FA", 1, 1, &vec![1; 8193]);
    assert!(!script.connection.fin_received(), "its last byte does not fit");
    script.send("FA", 1, 1, &vec![1; 8192]);
    assert!(script.connection.fin_received());
    assert_eq!(script.read().len(), 8192);
}

#[test]
fn a_new_syn_above_the_old_numbers_reopens_a_pair_in_time_wait() {
    let mut script = Script::accepted(&plain(), false);
    script.send("A", 1, 1, b"");
    assert!(!script.connection.reopened_by(&script.packet("S", 5000, 0, b"")), "it lives");
    script.connection.close();
    script.heard();
    script.send("FA", 1, 2, b"");
    script.heard();
    script.send("R", 2, 0, b"");
    assert_eq!(script.connection.ended(), Some(End::Finished), "RFC 1337");
    assert!(!script.connection.reopened_by(&script.packet("S", 2, 0, b"")), "an old number");
    assert!(!script.connection.reopened_by(&script.packet("SA", 5000, 2, b"")), "no opening");
    assert!(script.connection.reopened_by(&script.packet("S", 3, 0, b"")));
    script.irs = script.irs.wrapping_add(3);
    assert!(script.accept(1500));
    assert_eq!(script.heard(), ["SA 0 1 0"]);
}

#[test]
fn a_window_that_opens_after_both_have_closed_is_used() {
    let mut script = Script::accepted(&plain(), false);
    script.send("FA", 1, 1, b"");
    script.heard();
    script.write(&[1; 1000]);
    assert_eq!(script.heard(), ["A 1 2 1000"]);
    script.connection.close();
    assert_eq!(script.connection.room(), 0);
    script.window = 0;
    script.send("A", 2, 1, b"");
    assert_eq!(script.wait(), Some(SECOND), "the retransmission timeout");
    assert_eq!(script.heard(), NONE, "but nothing may be sent");
    script.window = 5000;
    script.send("A", 2, 1, b"");
    script.wait();
    assert_eq!(script.heard(), ["A 1 2 1000"]);
    script.send("A", 2, 1001, b"");
    assert_eq!(script.heard(), ["FA 1001 2 0"]);
    script.send("A", 2, 1002, b"");
    assert_eq!(script.connection.ended(), Some(End::Finished));
}
