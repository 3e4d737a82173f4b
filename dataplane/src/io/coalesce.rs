//! Makes one large packet of consecutive segments of a connection, for the kernel to cut up again.
//!
//! A packet costs the kernel the same whatever its size, so forty segments that leave together are
//! better handed over as one: its generic segmentation offload cuts them as late as it can, or never,
//! if the receiver is a kernel on the other end of a veth. Segments go together under the rules by
//! which a receiver would put them together (GRO): the same headers but for what counts up, all of
//! one size but the last.
//!
//! ```text
//!   [ headers | payload of 1 | payload of 2 | … ]  ◀─ each further segment is written with its
//!                                        headers over the end, which is then put back
//! ```
//! What is written here has only the pseudo-header's sum where its TCP checksum goes; the kernel, or
//! [`complete_checksum`](crate::parse::complete_checksum), does the rest.

use crate::parse::{ETHERNET, fill_partial_checksums, flags};

/// Longest packet that is made: IP's own limit, and the Ethernet header.
const LONGEST: usize = 65_535 + ETHERNET;

/// Ethernet, IPv6 and TCP with all its options.
const MAX_HEADERS: usize = ETHERNET + 40 + 60;

/// What became of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is part of the open packet.
    Taken,
    /// It does not go with the open packet: it is in [`Coalescer::beside`].
    Beside,
}

/// What the kernel has to know about a packet to cut it up (`struct virtio_net_hdr`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub v6: bool,
    /// Length of all headers.
    pub headers: usize,
    /// Where the TCP header begins.
    pub transport: usize,
    /// Payload bytes of each segment; 0: it is one segment.
    pub segment: usize,
}

pub struct Coalescer {
    bytes: Box<[u8]>,
    /// 0: nothing is open.
    length: usize,
    headers: usize,
    /// Payload of the first segment, which all others but the last have too.
    segment: usize,
    segments: usize,
    /// The last segment was shorter, or pushes: nothing goes behind it.
    complete: bool,
    beside: Box<[u8]>,
    beside_length: usize,
}

impl Coalescer {
    pub fn new() -> Self {
        let buffer = || vec![0; LONGEST + MAX_HEADERS].into_boxed_slice();
        Self {
            bytes: buffer(),
            length: 0,
            headers: 0,
            segment: 0,
            segments: 0,
            complete: false,
            beside: buffer(),
            beside_length: 0,
        }
    }

    /// Segments in the open packet.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Whether another segment like those in the open packet would fit.
    pub fn can_grow(&self) -> bool {
        self.segments > 0 && !self.complete && self.length + self.segment <= LONGEST
    }

    /// Takes a frame of `len` bytes, which `fill` writes with a partial checksum.
    pub fn push(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Pushed {
        assert!(len <= LONGEST, "a frame of {len} bytes");
        let room = !self.complete && self.length + len <= LONGEST;
        if self.segments == 0 || !room || len < self.headers {
            fill(&mut self.beside[..len]);
            self.beside_length = len;
            return if self.segments == 0 && self.open() { Pushed::Taken } else { Pushed::Beside };
        }
        let at = self.length - self.headers;
        let mut saved = [0; MAX_HEADERS];
        saved[..self.headers].copy_from_slice(&self.bytes[at..self.length]);
        fill(&mut self.bytes[at..at + len]);
        let goes_on = self.goes_on(at, len);
        if !goes_on {
            self.beside[..len].copy_from_slice(&self.bytes[at..at + len]);
            self.beside_length = len;
        }
        let mut last = [0; MAX_HEADERS];
        last[..self.headers].copy_from_slice(&self.bytes[at..self.length]);
        self.bytes[at..self.length].copy_from_slice(&saved[..self.headers]);
        if !goes_on {
            return Pushed::Beside;
        }
        self.length = at + len;
        self.segments += 1;
        let transport = self.transport();
        // The newest acknowledgement, window and PSH are those of the whole.
        self.bytes[transport + 8..transport + 16].copy_from_slice(&last[transport + 8..transport + 16]);
        self.complete = len - self.headers < self.segment || last[transport + 13] & flags::PSH != 0;
        Pushed::Taken
    }

    /// Opens a packet with what is beside. False: it is nothing that others could follow, or too short.
    pub fn open(&mut self) -> bool {
        assert!(self.segments == 0, "a packet is open");
        let frame = &self.beside[..self.beside_length];
        // The next segment's headers are written over the end of this one, and must not reach its own.
        let Some((headers, payload)) = shape(frame).filter(|(headers, payload)| payload >= headers) else {
            return false;
        };
        let transport = headers_before_tcp(frame);
        self.complete = frame[transport + 13] & flags::PSH != 0;
        (self.headers, self.segment, self.length, self.segments) = (headers, payload, self.beside_length, 1);
        std::mem::swap(&mut self.bytes, &mut self.beside);
        true
    }

    /// The frame that did not go with the others.
    pub fn beside(&mut self) -> &mut [u8] {
        &mut self.beside[..self.beside_length]
    }

    /// The open packet, its headers made to fit its length, and how it is to be cut.
    pub fn packet(&mut self) -> (&mut [u8], Cut) {
        let transport = self.transport();
        let v6 = transport == ETHERNET + 40;
        let frame = &mut self.bytes[..self.length];
        if self.segments > 1 {
            let (at, length) = if v6 { (4, self.length - transport) } else { (2, self.length - ETHERNET) };
            frame[ETHERNET + at..ETHERNET + at + 2].copy_from_slice(&(length as u16).to_be_bytes());
            fill_partial_checksums(&mut frame[ETHERNET..]);
        }
        let segment = if self.segments > 1 { self.segment } else { 0 };
        (frame, Cut { v6, headers: self.headers, transport, segment })
    }

    /// The open packet has left, or is given up.
    pub fn clear(&mut self) {
        self.length = 0;
        self.segments = 0;
        self.complete = false;
    }

    fn transport(&self) -> usize {
        headers_before_tcp(&self.bytes)
    }

    /// Whether the frame at `at` is the open packet's next segment.
    fn goes_on(&self, at: usize, len: usize) -> bool {
        let (first, next) = (&self.bytes[..self.headers], &self.bytes[at..at + len]);
        let Some((headers, payload)) = shape(next) else { return false };
        if headers != self.headers || payload > self.segment {
            return false;
        }
        let ip = ETHERNET;
        let tcp = headers_before_tcp(next);
        let same = |range: std::ops::Range<usize>| first[range.clone()] == next[range];
        // All but lengths, identification and checksum of the IP header.
        let network = if tcp == ip + 40 {
            same(0..ip + 4) && same(ip + 6..tcp)
        } else {
            same(0..ip + 2) && same(ip + 6..ip + 10) && same(ip + 12..tcp)
        };
        let sequence = |header: &[u8]| u32::from_be_bytes(header[tcp + 4..tcp + 8].try_into().expect("four bytes"));
        let so_far = (self.segments * self.segment) as u32;
        network
            && same(tcp..tcp + 4)
            && sequence(next) == sequence(first).wrapping_add(so_far)
            && same(tcp + 12..tcp + 13)
            && same(tcp + 18..headers)
    }
}

impl Default for Coalescer {
    fn default() -> Self {
        Self::new()
    }
}

fn headers_before_tcp(frame: &[u8]) -> usize {
    ETHERNET + if frame[ETHERNET] >> 4 == 6 { 40 } else { 20 }
}

/// Length of the headers and of the payload, if this is a TCP segment with payload that others may
/// go with: no IP options, and no flag but ACK and PSH.
fn shape(frame: &[u8]) -> Option<(usize, usize)> {
    const TCP: u8 = 6;
    let ip = frame.get(ETHERNET..)?;
    let (tcp, protocol) = match ip.first()? {
        0x45 if ip.len() >= 40 => (20, ip[9]),
        0x60..0x70 if ip.len() >= 60 => (40, ip[6]),
        _ => return None,
    };
    let headers = tcp + usize::from(ip[tcp + 12] >> 4) * 4;
    let plain = ip[tcp + 13] & !flags::PSH == flags::ACK;
    (protocol == TCP && plain && ip.len() > headers).then(|| (ETHERNET + headers, ip.len() - headers))
}

#[cfg(test)]
#[path = "coalesce_tests.rs"]
mod tests;
