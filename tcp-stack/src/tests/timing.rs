//! Keep-alive, the user timeout, and lives after the first.

use super::{NONE, SECOND, plain};
use crate::testing::{Faults, Pair, Script};
use crate::{Config, Duration, End, State};

fn patient() -> Config {
    Config { keep_alive: Some(SECOND * 60), user_timeout: Some(SECOND * 30), ..plain() }
}

#[test]
fn an_idle_peer_is_asked_and_lives_as_long_as_it_answers() {
    let mut script = Script::accepted(&patient(), false);
    for _ in 0..5 {
        assert_eq!(script.wait(), Some(SECOND * 60));
        assert_eq!(script.heard(), ["A 0 1 1"]);
        script.send("A", 1, 1, b"");
    }
    assert_eq!(script.wait(), Some(SECOND * 60));
    script.heard();
    assert_eq!(script.wait(), Some(SECOND * 30));
    assert_eq!(script.heard(), ["RA 1 1 0"]);
    assert_eq!(script.connection.ended(), Some(End::UserTimeout));
}

#[test]
fn unanswered_data_ends_in_the_user_timeout_counted_from_when_it_was_sent() {
    let mut script = Script::accepted(&Config { keep_alive: None, ..patient() }, false);
    assert_eq!(script.wait(), None, "an idle connection without keep-alive lasts");
    script.pass(SECOND * 1000);
    script.write(b"hello?");
    let began = script.now;
    assert_eq!(script.heard(), ["A 1 1 6"]);
    while script.connection.ended().is_none() {
        script.wait().expect("a timer runs");
        script.heard();
    }
    assert_eq!(script.now - began, SECOND * 30);
    assert_eq!(script.connection.ended(), Some(End::UserTimeout));
    assert_eq!(script.connection.state(), State::Closed);
}

#[test]
fn an_unanswered_syn_and_fin_end_in_the_user_timeout() {
    let mut dial = Script::new(&patient(), false);
    dial.connect(1500);
    let mut close = Script::accepted(&Config { keep_alive: None, ..patient() }, false);
    close.pass(SECOND * 1000);
    close.connection.close();
    for mut script in [dial, close] {
        let began = script.now;
        script.heard();
        while script.connection.ended().is_none() {
            script.wait().expect("a timer runs");
            script.heard();
        }
        assert_eq!(script.now - began, SECOND * 30);
        assert_eq!(script.connection.ended(), Some(End::UserTimeout));
    }
}

#[test]
fn a_peer_that_answers_probes_of_its_closed_window_is_alive() {
    let mut script = Script::accepted(&Config { keep_alive: None, ..patient() }, false);
    script.window = 0;
    script.send("A", 1, 1, b"");
    script.write(b"later");
    let end = script.now + SECOND * 600;
    while script.now < end {
        script.heard();
        script.send("A", 1, 1, b"");
        script.wait().expect("a probe is due");
        assert_eq!(script.connection.ended(), None);
    }
}

/// A busy life: loss, data both ways, a reset in the middle.
fn life(script: &mut Script, isn: u32) -> Vec<String> {
    let mut told = Vec::new();
    (script.isn, script.window) = (isn, 3000);
    assert!(script.accept(1500));
    told.extend(script.heard());
    script.send("A", 1, 1, b"");
    script.write(&[1; 5000]);
    told.extend(script.heard());
    script.send("A", 10, 1, b"hole");
    (0..4).for_each(|_| script.send("A", 1, 1, b""));
    told.extend(script.heard());
    script.send("A", 1, 1461, b"123456789");
    script.send("A", 14, 1461, &[2; 900]);
    script.wait();
    told.extend(script.heard());
    script.send("A", 914, 3000, b"");
    told.extend(script.heard());
    told.push(format!(
        "{:?} {:?}",
        script.connection.state(),
        script.connection.poll_at(&mut script.stack, script.now).map(|at| at - script.now)
    ));
    script.read();
    script.send("FA", 914, 3000, b"");
    told.extend(script.heard());
    script.connection.abort();
    told.extend(script.heard());
    told
}

#[test]
fn a_connection_from_the_pool_behaves_as_a_new_one() {
    let config = Config { ack_delay: Some(Duration::from_millis(10)), ..patient() };
    let mut used = Script::new(&config, false);
    for round in 0..5u32 {
        let isn = 1000 + round * 100_000;
        let want = life(&mut Script::new(&config, false), isn);
        assert_eq!(life(&mut used, isn), want, "life {round}");
        used.connection.reset();
        assert_eq!(used.connection.state(), State::Closed);
        assert_eq!((used.connection.received(), used.connection.unacked(), used.connection.room()), (0, 0, 0));
        assert_eq!(used.connection.ended(), None);
        assert!(!used.connection.fin_received() && !used.connection.fin_acked());
        assert_eq!(used.heard(), NONE);
        assert_eq!(used.wait(), None);
        used.now = Script::new(&config, false).now;
    }
}

#[test]
fn a_pair_exchanges_over_and_over_with_the_same_memory() {
    let mut pair = Pair::new(&Config::default(), 1500, false, Faults { drop: 5, ..Faults::NONE }, 9);
    for round in 0..20 {
        pair.exchange(50_000, round);
        for side in [&mut pair.caller, &mut pair.callee] {
            side.connection.reset();
            side.got.clear();
        }
        pair.forget_packets();
    }
}
