//! A capture read as an eavesdropper would: byte streams out of segments, TLS records out of streams.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::packet::{SYN, Segment};

/// One direction of one connection, put together from what was captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// From the first byte after the SYN up to the first one that was not captured.
    pub bytes: Vec<u8>,
    /// Payload bytes beyond such a gap, in pieces.
    pub stray: Vec<Vec<u8>>,
}

/// The streams of a capture. Retransmissions count once; a second SYN on a 4-tuple, with another
/// sequence number, begins a stream of its own.
pub fn streams(frames: &[Vec<u8>]) -> Vec<Stream> {
    let mut open: BTreeMap<(SocketAddr, SocketAddr), Assembly> = BTreeMap::new();
    let mut done = Vec::new();
    for segment in frames.iter().filter_map(|frame| Segment::parse(frame)) {
        let tuple = (segment.source, segment.destination);
        let assembly = open.entry(tuple).or_default();
        if segment.flags & SYN != 0 && assembly.first.is_some_and(|first| first != segment.seq.wrapping_add(1)) {
            done.push(std::mem::take(assembly).finish(tuple));
        }
        assembly.add(segment);
    }
    done.extend(open.into_iter().map(|(tuple, assembly)| assembly.finish(tuple)));
    done
}

#[derive(Default)]
struct Assembly {
    /// Sequence number of the first byte. None: the SYN was before the capture.
    first: Option<u32>,
    pieces: BTreeSet<(u32, Vec<u8>)>,
}

impl Assembly {
    fn add(&mut self, segment: Segment) {
        let syn = segment.flags & SYN != 0;
        let start = segment.seq.wrapping_add(u32::from(syn));
        let first = *self.first.get_or_insert(start);
        if !segment.payload.is_empty() {
            self.pieces.insert((start.wrapping_sub(first), segment.payload));
        }
    }

    fn finish(self, (source, destination): (SocketAddr, SocketAddr)) -> Stream {
        let (mut bytes, mut stray) = (Vec::new(), Vec::new());
        for (offset, payload) in self.pieces {
            match bytes.len().checked_sub(offset as usize) {
                Some(known) => bytes.extend(payload.get(known..).unwrap_or_default()),
                None => stray.push(payload),
            }
        }
        Stream { source, destination, bytes, stray }
    }
}

impl Stream {
    pub fn contains(&self, marker: &[u8]) -> bool {
        let holds = |bytes: &[u8]| bytes.windows(marker.len()).any(|window| window == marker);
        holds(&self.bytes) || self.stray.iter().any(|piece| holds(piece))
    }

    /// Content type and length of each whole TLS record; empty if the stream is none of records.
    pub fn tls_records(&self) -> Vec<(u8, usize)> {
        let mut records = Vec::new();
        let mut rest = &self.bytes[..];
        while let [kind @ 20..=24, 3, 0..=4, high, low, body @ ..] = rest {
            let length = usize::from(*high) << 8 | usize::from(*low);
            let Some(after) = body.get(length..) else { break };
            records.push((*kind, length));
            rest = after;
        }
        records
    }

    /// Bytes in records of application data, sealing included.
    pub fn application_data(&self) -> usize {
        self.tls_records().iter().filter(|(kind, _)| *kind == 23).map(|(_, length)| length).sum()
    }
}

/// Whether `marker` stands in any frame, or in a stream across the border of two.
pub fn holds_marker(frames: &[Vec<u8>], marker: &[u8]) -> bool {
    frames.iter().any(|frame| frame.windows(marker.len()).any(|window| window == marker))
        || streams(frames).iter().any(|stream| stream.contains(marker))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{ACK, Packet};

    fn frame(seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let syn = Packet::syn("198.18.1.2:40000".parse().unwrap(), "198.18.2.2:3000".parse().unwrap());
        Packet { seq, flags, payload: payload.to_vec(), ..syn }.frame()
    }

    #[test]
    fn reordered_repeated_and_overlapping_segments_give_the_bytes_once() {
        let frames = [
            frame(u32::MAX, SYN, b""),
            frame(4, ACK, b"efg"),
            frame(0, ACK, b"abc"),
            frame(0, ACK, b"abcd"),
            frame(4, ACK, b"efg"),
            frame(20, ACK, b"late"),
        ];
        let [stream] = &streams(&frames)[..] else { panic!("one stream") };
        assert_eq!(stream.bytes, b"abcdefg");
        assert_eq!(stream.stray, [b"late"]);
    }

    #[test]
    fn a_marker_across_two_segments_is_found() {
        let frames = [frame(0, SYN, b""), frame(1, ACK, b"sec"), frame(4, ACK, b"ret")];
        assert!(holds_marker(&frames, b"secret"));
        assert!(!holds_marker(&frames, b"secrets"));
    }

    #[test]
    fn application_data_is_counted_by_record() {
        let records = [&[22, 3, 1, 0, 2, 9, 9][..], &[23, 3, 3, 0, 3, 1, 2, 3], &[23, 3, 3, 0, 9, 1]].concat();
        let frames = [frame(0, SYN, b""), frame(1, ACK, &records)];
        let [stream] = &streams(&frames)[..] else { panic!("one stream") };
        assert_eq!(stream.tls_records(), [(22, 2), (23, 3)]);
        assert_eq!(stream.application_data(), 3);
    }
}
