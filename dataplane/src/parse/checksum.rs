//! The Internet checksum (RFC 1071), over headers and over whole segments.

use std::net::IpAddr;

use super::headers::TCP;

/// Ones' complement sum, folded to 16 bits, not yet complemented. Eight bytes a step: the sum may be
/// taken over words of any size and folded later (RFC 1071 §2).
pub fn ones_complement(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_be_bytes(word.try_into().expect("eight bytes"));
        sum = add(sum, word);
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    fold(add(sum, u64::from_be_bytes(last)))
}

/// Addition with end-around carry.
fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// Sum of the pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1) of a TCP segment of `length` bytes.
pub fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize) -> u16 {
    let addresses = match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            u64::from(ones_complement(&s.octets())) + u64::from(ones_complement(&d.octets()))
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            u64::from(ones_complement(&s.octets())) + u64::from(ones_complement(&d.octets()))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("both addresses come out of one header")
        }
    };
    fold(addresses + u64::from(TCP) + length as u64)
}

/// 0 if the segment (TCP header and payload) verifies.
pub fn sum_of_segment(segment: &[u8], source: IpAddr, destination: IpAddr) -> u16 {
    let sum = u64::from(pseudo_header(source, destination, segment.len())) + u64::from(ones_complement(segment));
    !fold(sum)
}

/// Writes the IPv4 header's checksum and the TCP checksum of an IP packet of ours.
pub fn fill(packet: &mut [u8]) {
    fill_partial(packet);
    complete(packet);
}

/// Writes the IPv4 header's checksum, and where the TCP checksum goes the pseudo-header's sum: what is
/// left to whoever has the bytes in hand last (the kernel's CHECKSUM_PARTIAL).
pub fn fill_partial(packet: &mut [u8]) {
    let (source, destination) = if packet[0] >> 4 == 4 {
        packet[10..12].fill(0);
        let sum = !ones_complement(&packet[..transport(packet)]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        (octets4(packet, 12), octets4(packet, 16))
    } else {
        (octets16(packet, 8), octets16(packet, 24))
    };
    let transport = transport(packet);
    let sum = pseudo_header(source, destination, packet.len() - transport);
    packet[transport + 16..transport + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Completes what [`fill_partial`] left. A packet that is no TCP is left alone.
pub fn complete(packet: &mut [u8]) {
    let protocol = match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 40 => packet[9],
        Some(6) if packet.len() >= 60 => packet[6],
        Some(_) | None => return,
    };
    let transport = transport(packet);
    if protocol != TCP || packet.len() < transport + 20 {
        return;
    }
    let sum = !ones_complement(&packet[transport..]);
    packet[transport + 16..transport + 18].copy_from_slice(&sum.to_be_bytes());
}

fn transport(packet: &[u8]) -> usize {
    if packet[0] >> 4 == 4 { usize::from(packet[0] & 0x0f) * 4 } else { 40 }
}

fn octets4(packet: &[u8], at: usize) -> IpAddr {
    let octets: [u8; 4] = packet[at..at + 4].try_into().expect("four bytes");
    octets.into()
}

fn octets16(packet: &[u8], at: usize) -> IpAddr {
    let octets: [u8; 16] = packet[at..at + 16].try_into().expect("sixteen bytes");
    octets.into()
}
