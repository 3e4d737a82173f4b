//! A megabyte each way over links that lose, reorder and duplicate: the bytes are the same.

use super::plain;
use crate::testing::{Faults, Pair};
use crate::{Config, Duration, End};

const MEGABYTE: usize = 1_000_000;

#[test]
fn a_megabyte_each_way_survives_every_kind_of_fault_from_many_seeds() {
    let delay = Duration::from_micros(200);
    let (mut dropped, mut duplicated, mut reordered) = (0, 0, 0);
    for seed in 0..200 {
        let faults = Faults { drop: seed % 10, duplicate: seed % 7 * 5, reorder: seed % 5 * 20, delay };
        let config = Config { buffer: (32 * 1024) << (seed % 4), user_timeout: None, ..Config::default() };
        let mtu = [576, 1280, 1500, 9000, 65_535][seed as usize % 5];
        let mut pair = Pair::new(&config, mtu, seed % 2 == 1, faults, seed);
        pair.exchange(MEGABYTE, seed);
        for side in [&pair.caller, &pair.callee] {
            assert_eq!(side.connection.ended(), Some(End::Finished), "seed {seed}");
        }
        for link in [&pair.there, &pair.back] {
            dropped += link.dropped;
            duplicated += link.duplicated;
            reordered += link.reordered;
        }
    }
    assert!(dropped > 100 && duplicated > 100 && reordered > 100, "{dropped} {duplicated} {reordered}");
}

#[test]
fn a_megabyte_crosses_in_every_mtu_class_and_family() {
    for v6 in [false, true] {
        for mtu in [576, 1006, 1280, 1400, 1460, 1492, 1500, 9000, 65_535] {
            let mut pair = Pair::new(&Config::default(), mtu, v6, Faults::NONE, 1);
            pair.exchange(MEGABYTE, mtu as u64);
        }
    }
}

#[test]
fn a_slow_reader_holds_the_sender_back_and_loses_nothing() {
    let mut pair = Pair::new(&plain(), 1500, false, Faults::NONE, 4);
    pair.caller.to_send = (0..100_000u32).map(|i| i as u8).collect();
    pair.callee.reads = false;
    pair.connect(1);
    pair.run(1000, "the window fills", |pair| pair.callee.connection.received() == 8192);
    (0..50).for_each(|_| assert!(pair.step()));
    assert_eq!(pair.callee.connection.received(), 8192);
    pair.callee.reads = true;
    pair.run(10_000, "all arrives", |pair| pair.callee.got.len() == 100_000);
    assert!(pair.callee.got.iter().enumerate().all(|(i, &byte)| byte == i as u8));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let faults = Faults { drop: 10, duplicate: 10, reorder: 50, delay: Duration::from_micros(300) };
        let mut pair = Pair::new(&Config::default(), 1500, false, faults, 77);
        pair.exchange(200_000, 5);
        (pair.now, pair.there.carried, pair.back.carried, pair.there.dropped)
    };
    assert_eq!(run(), run());
}
