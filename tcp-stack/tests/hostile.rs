//! Segments made wrong on purpose: nothing panics, nothing grows, no byte is made up.

use tcp_stack::testing::{Random, Script};
use tcp_stack::{Config, Duration, rst_for};

const ROUNDS: u64 = 200_000;

/// Flips bytes, cuts, or changes the fields that a clever attacker would.
fn mutate(packet: &mut Vec<u8>, random: &mut Random) {
    let tcp = if packet[0] >> 4 == 4 { 20 } else { 40 };
    for _ in 0..1 + random.below(3) {
        match random.below(6) {
            0 => {
                let len = packet.len() as u64;
                if len > 0 {
                    packet[random.below(len) as usize] = random.draw() as u8;
                }
            }
            1 => packet.truncate(random.below(packet.len() as u64 + 1) as usize),
            // The data offset, then the flags, the window, the options.
            2 => set(packet, tcp + 12, (random.draw() as u8) & 0xf0),
            3 => set(packet, tcp + 13, random.draw() as u8),
            4 => (0..2).for_each(|i| set(packet, tcp + 14 + i, random.draw() as u8)),
            _ => (0..40).for_each(|i| set(packet, tcp + 20 + i, [0, 1, 2, 3, 4, 5, 8, 255][random.below(8) as usize])),
        }
    }
}

fn set(packet: &mut [u8], at: usize, byte: u8) {
    if let Some(slot) = packet.get_mut(at) {
        *slot = byte;
    }
}

/// A sequence number near something that matters.
fn near(random: &mut Random, marks: &[u32]) -> u32 {
    let mark = marks[random.below(marks.len() as u64) as usize];
    mark.wrapping_add(random.below(5) as u32).wrapping_sub(2)
}

#[test]
fn two_hundred_thousand_wrong_segments_do_no_harm() {
    let config = Config {
        buffer: 4096,
        keep_alive: Some(Duration::from_secs(10)),
        user_timeout: Some(Duration::from_secs(20)),
        ack_delay: Some(Duration::from_millis(10)),
    };
    let mut random = Random(0x5eed);
    let mut script = Script::new(&config, false);
    let (mut lives, mut fed) = (0, 0);
    for round in 0..ROUNDS {
        if round % 40 == 0 || script.connection.ended().is_some() {
            lives += 1;
            script = match random.below(4) {
                0 => Script::new(&config, random.below(2) == 0),
                1 => Script::connected(&config, random.below(2) == 0),
                _ => Script::accepted(&config, random.below(2) == 0),
            };
            if random.below(2) == 0 {
                script.isn = random.draw() as u32;
                script.connect(1500);
                script.heard();
            }
        }
        let flags = ["A", "A", "A", "FA", "SA", "S", "R", "RA", "F", "", "SFRA"][random.below(11) as usize];
        let seq = match random.below(4) {
            0 => random.draw() as u32,
            _ => near(&mut random, &[0, 1, 4096, 4097, 8192, u32::MAX / 2]),
        };
        let ack = match random.below(4) {
            0 => random.draw() as u32,
            _ => near(&mut random, &[0, 1, 100, 4096, u32::MAX / 2]),
        };
        let len = [0, 0, 1, 100, 1400, 4096, 5000][random.below(7) as usize];
        script.window = [0, 1, 100, 60_000, u16::MAX][random.below(5) as usize];
        let mut packet = script.packet(flags, seq, ack, &vec![0x5a; len]);
        if random.below(3) == 0 {
            mutate(&mut packet, &mut random);
        }
        fed += 1;
        rst_for(&packet, &mut [0; 100]);
        let Script { connection, stack, out, now, local, peer, .. } = &mut script;
        match random.below(30) {
            0 => drop(connection.accept(stack, *local, *peer, 5, 1500, &packet, *now, out)),
            _ => connection.on_segment(stack, &packet, *now, out),
        }
        match random.below(12) {
            0 if connection.room() >= 100 => script.write(&[1; 100]),
            0 | 1 => drop(script.read()),
            2 => script.connection.close(),
            3 if random.below(5) == 0 => script.connection.abort(),
            4 => script.connection.shrink_mtu(random.below(2000) as usize),
            5 => script.pass(Duration::from_millis(random.below(3000))),
            _ => {}
        }
        script.out.room = if random.below(10) == 0 { Some(0) } else { None };
        let Script { connection, stack, out, now, .. } = &mut script;
        assert!(connection.transmit(stack, *now, out, 100) < 100, "a storm in round {round}");
        assert!(out.queue.len() <= 100, "an answer storm in round {round}");
        assert!(connection.received() <= 4096 && connection.unacked() <= 4096);
        connection.poll_at(stack, *now);
        out.queue.clear();
    }
    assert!(lives > 5000 && fed == ROUNDS, "{lives} lives");
}
