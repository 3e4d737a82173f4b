//! The caller's SYN, kept while the far side is being connected.

use crate::parse::Segment;

/// Largest IP and TCP headers: 60 + 60 bytes for IPv4, 40 + 60 for IPv6.
const HEADERS: usize = 120;

/// The IP packet of a SYN without its payload: we do not do TCP Fast Open (RFC 7413 §4.1 lets a
/// server take only the SYN, the caller then sends the data again).
#[derive(Debug, Clone)]
pub struct Syn {
    bytes: [u8; HEADERS],
    length: usize,
    pub sequence: u32,
}

impl Syn {
    /// `packet` has passed the parser, which found `segment` in it.
    pub fn new(packet: &[u8], segment: &Segment) -> Self {
        let length = (packet.len() - segment.length).min(HEADERS);
        let mut bytes = [0; HEADERS];
        bytes[..length].copy_from_slice(&packet[..length]);
        if bytes[0] >> 4 == 4 {
            bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        } else {
            bytes[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
        }
        Self { bytes, length, sequence: segment.sequence }
    }

    pub fn packet(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
