//! Whatever is put together comes apart again as it was, in the same order.

use super::*;
use crate::parse::{complete_checksum, fill_checksums, fill_partial_checksums};

/// What a receiver makes of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    flow: u16,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    payload: Vec<u8>,
}

impl Seen {
    fn data(flow: u16, sequence: u32, payload: Vec<u8>) -> Self {
        Self { flow, sequence, acknowledgement: 9, flags: flags::ACK, payload }
    }

    /// With a partial checksum.
    fn frame(&self, v6: bool) -> Vec<u8> {
        let mut tcp = vec![0; 20];
        tcp[..2].copy_from_slice(&self.flow.to_be_bytes());
        tcp[2..4].copy_from_slice(&3000u16.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.acknowledgement.to_be_bytes());
        tcp[12..16].copy_from_slice(&[0x50, self.flags, 0x10, 0]);
        tcp.extend(&self.payload);
        let mut ip = vec![0; if v6 { 40 } else { 20 }];
        if v6 {
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&(tcp.len() as u16).to_be_bytes());
            ip[6..8].copy_from_slice(&[6, 64]);
            ip[23] = 1;
            ip[39] = 2;
        } else {
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&((20 + tcp.len()) as u16).to_be_bytes());
            ip[8..10].copy_from_slice(&[64, 6]);
            ip[12..20].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 2]);
        }
        ip.extend(tcp);
        fill_partial_checksums(&mut ip);
        let mut frame = vec![2; 12];
        frame.extend(if v6 { [0x86, 0xdd] } else { [8, 0] });
        frame.extend(ip);
        frame
    }
}

/// What the kernel makes of a packet: segments, PSH on the last one only.
fn cut_up(frame: &[u8], cut: Cut) -> Vec<Seen> {
    let mut whole = frame[ETHERNET..].to_vec();
    fill_partial_checksums(&mut whole);
    assert_eq!(whole, frame[ETHERNET..], "its headers fit its length");
    let tcp = &frame[cut.transport..];
    let number = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
    let payload = &frame[cut.headers..];
    let size = if cut.segment == 0 { payload.len().max(1) } else { cut.segment };
    let parts = payload.chunks(size).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let last = parts.len() - 1;
    let part = |(at, payload): (usize, Vec<u8>)| Seen {
        flow: u16::from_be_bytes([tcp[0], tcp[1]]),
        sequence: number(4).wrapping_add((at * size) as u32),
        acknowledgement: number(8),
        flags: if at == last { tcp[13] } else { tcp[13] & !flags::PSH },
        payload,
    };
    parts.into_iter().enumerate().map(part).collect()
}

/// Pushes all, and takes packets out as a port does. Returns segments and how many packets there were.
fn through(coalescer: &mut Coalescer, all: &[Seen], v6: bool) -> (Vec<Seen>, usize) {
    let (mut out, mut packets) = (Vec::new(), 0);
    let mut close = |coalescer: &mut Coalescer, out: &mut Vec<Seen>| {
        if coalescer.segments() > 0 {
            let (frame, cut) = coalescer.packet();
            out.extend(cut_up(frame, cut));
            coalescer.clear();
            packets += 1;
        }
    };
    for seen in all {
        let frame = seen.frame(v6);
        if coalescer.push(frame.len(), &mut |bytes| bytes.copy_from_slice(&frame)) == Pushed::Taken {
            continue;
        }
        close(coalescer, &mut out);
        assert_eq!(coalescer.beside(), frame);
        if !coalescer.open() {
            out.push(seen.clone());
        }
    }
    close(coalescer, &mut out);
    (out, packets)
}

fn stream(sizes: &[usize]) -> Vec<Seen> {
    let mut sequence = u32::MAX - 1000;
    let next = |&size: &usize| {
        let seen = Seen::data(1, sequence, (0..size).map(|i| (i + size) as u8).collect());
        sequence = sequence.wrapping_add(size as u32);
        seen
    };
    sizes.iter().map(next).collect()
}

#[test]
fn a_train_of_full_segments_and_a_short_one_is_one_packet() {
    for v6 in [false, true] {
        let all = stream(&[[1440; 40].as_slice(), &[300]].concat());
        let (out, packets) = through(&mut Coalescer::new(), &all, v6);
        assert_eq!((out, packets), (all, 1));
    }
}

#[test]
fn a_packet_is_never_longer_than_ip_allows() {
    for (size, count, want) in [(1440, 100, 3), (8948, 20, 3), (32_000, 4, 2), (65_495, 3, 3), (60_000, 2, 2)] {
        let all = stream(&vec![size; count]);
        let (out, packets) = through(&mut Coalescer::new(), &all, false);
        assert_eq!(packets, want, "{size}");
        assert!(out == all, "{size}");
    }
}

#[test]
fn what_does_not_follow_stands_beside() {
    let first = Seen::data(1, 100, vec![1; 1000]);
    let next = Seen::data(1, 1100, vec![2; 1000]);
    let cases = [
        ("it follows", next.clone(), 1),
        ("a gap", Seen { sequence: 1101, ..next.clone() }, 2),
        ("a repetition", Seen { sequence: 100, ..next.clone() }, 2),
        ("another connection", Seen { flow: 2, ..next.clone() }, 2),
        ("a longer one", Seen { payload: vec![2; 1001], ..next.clone() }, 2),
        ("a FIN", Seen { flags: flags::ACK | flags::FIN, ..next.clone() }, 1),
        ("a RST", Seen { flags: flags::ACK | flags::RST, ..next.clone() }, 1),
        ("no payload", Seen { payload: vec![], ..next.clone() }, 1),
    ];
    for (name, second, packets) in cases {
        let all = [first.clone(), second.clone()];
        let (out, got) = through(&mut Coalescer::new(), &all, false);
        let merged = name == "it follows";
        assert_eq!(out, all, "{name}");
        assert_eq!((got, merged), (packets, merged), "{name}");
    }
}

#[test]
fn a_push_and_a_short_segment_end_a_packet() {
    let mut all = stream(&[1000, 1000, 1000, 400, 1000]);
    all[1].flags |= flags::PSH;
    assert_eq!(through(&mut Coalescer::new(), &all, false), (all, 3));
}

#[test]
fn the_newest_acknowledgement_is_that_of_all() {
    let mut all = stream(&[1000, 1000]);
    all[1].acknowledgement = 77;
    let (out, packets) = through(&mut Coalescer::new(), &all, true);
    assert_eq!((out[0].acknowledgement, out[1].acknowledgement, packets), (77, 77, 1));
}

#[test]
fn frames_that_are_no_tcp_are_left_as_they_are() {
    for frame in [vec![0xff; 60], vec![], vec![0x45; 15], [vec![2; 14], vec![0x45; 30]].concat()] {
        let mut coalescer = Coalescer::new();
        assert_eq!(coalescer.push(frame.len(), &mut |bytes| bytes.copy_from_slice(&frame)), Pushed::Beside);
        assert_eq!(coalescer.beside(), frame);
        assert!(!coalescer.open());
    }
}

#[test]
fn a_partial_checksum_completed_is_the_whole_one() {
    for v6 in [false, true] {
        let mut partial = stream(&[777])[0].frame(v6);
        let mut whole = partial.clone();
        complete_checksum(&mut partial[ETHERNET..]);
        fill_checksums(&mut whole[ETHERNET..]);
        assert_eq!(partial, whole);
        let parsed = crate::parse::parse(&mut whole, snapshot::gateway::Checksum::Verify, false);
        assert!(parsed.is_ok(), "{parsed:?}");
    }
}

/// Two connections, gaps, acknowledgements, ends: what comes out is what went in, byte for byte.
#[test]
fn any_mixture_comes_apart_as_it_was() {
    let mut state = 7u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut coalescer = Coalescer::new();
    let mut merged = 0;
    for run in 0..400 {
        let v6 = run % 2 == 1;
        let mut next = [random(1 << 32) as u32, random(1 << 32) as u32];
        let mut flow = 0;
        let all: Vec<Seen> = (0..60)
            .map(|_| {
                flow = if random(8) == 0 { 1 - flow } else { flow };
                let size = [0, 1448, 1448, 1448, 1448, 1448, random(1448) as usize][random(7) as usize];
                let push = if random(20) == 0 { flags::PSH } else { 0 };
                let end = if random(40) == 0 { flags::FIN } else { 0 };
                let payload: Vec<u8> = (0..size).map(|_| random(256) as u8).collect();
                let sequence = next[flow].wrapping_add(if random(30) == 0 { 5 } else { 0 });
                next[flow] = sequence.wrapping_add(size as u32 + u32::from(end > 0));
                let flags = flags::ACK | push | end;
                Seen { flow: flow as u16, sequence, acknowledgement: 5, flags, payload }
            })
            .collect();
        let (out, packets) = through(&mut coalescer, &all, v6);
        assert!(out == all, "run {run}");
        merged += all.len() - packets;
    }
    assert!(merged > 5_000, "{merged} segments went together: enough to show something");
}
