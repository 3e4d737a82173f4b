//! Ethernet, IPv4, IPv6 with its extension headers, TCP: lengths checked against what arrived.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use snapshot::DropReason::{self, BadIpHeader, BadTcpHeader, FrameTooShort, IpFragment, NotIp};

use super::Segment;

pub const TCP: u8 = 6;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

const VLAN: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const IPV6_HEADER: usize = 40;

/// Extension headers that may stand before TCP (RFC 8200 §4.1), and the fragment header.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// More than any sender uses; a bound, so that a hostile chain costs no more than this.
const MAX_EXTENSIONS: usize = 8;

pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// Of the IP header and all it carries, from the start of the bytes given.
    pub packet: Range<usize>,
    /// Where the transport header starts, from there too.
    pub transport: usize,
}

pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The source MAC, and where the IP header starts: after at most one VLAN tag.
pub fn ethernet(frame: &[u8]) -> Result<([u8; 6], usize), DropReason> {
    if frame.len() < 18 {
        return Err(FrameTooShort);
    }
    let (kind, at) = match be16(frame, 12) {
        VLAN => (be16(frame, 16), 18),
        kind => (kind, 14),
    };
    match kind {
        IPV4 | IPV6 => Ok((frame[6..12].try_into().expect("six bytes"), at)),
        _ => Err(NotIp),
    }
}

pub fn ip(bytes: &mut [u8]) -> Result<Ip, DropReason> {
    match bytes.first().map(|b| b >> 4) {
        Some(4) => ipv4(bytes),
        Some(6) => ipv6(bytes),
        Some(_) => Err(BadIpHeader),
        None => Err(FrameTooShort),
    }
}

fn ipv4(bytes: &[u8]) -> Result<Ip, DropReason> {
    if bytes.len() < 20 {
        return Err(FrameTooShort);
    }
    let header = usize::from(bytes[0] & 0x0f) * 4;
    let total = usize::from(be16(bytes, 2));
    if header < 20 || total < header || total > bytes.len() {
        return Err(BadIpHeader);
    }
    // More fragments to come, or not the first one.
    if be16(bytes, 6) & 0x3fff != 0 {
        return Err(IpFragment);
    }
    if super::checksum::ones_complement(&bytes[..header]) != 0xffff {
        return Err(BadIpHeader);
    }
    let address = |at: usize| IpAddr::V4(Ipv4Addr::from_bits(be32(bytes, at)));
    Ok(Ip { source: address(12), destination: address(16), protocol: bytes[9], packet: 0..total, transport: header })
}

fn ipv6(bytes: &mut [u8]) -> Result<Ip, DropReason> {
    if bytes.len() < IPV6_HEADER {
        return Err(FrameTooShort);
    }
    let end = IPV6_HEADER + usize::from(be16(bytes, 4));
    if end > bytes.len() {
        return Err(BadIpHeader);
    }
    let (protocol, transport) = skip_extensions(&bytes[..end])?;
    let start = transport - IPV6_HEADER;
    if start > 0 {
        bytes.copy_within(..IPV6_HEADER, start);
        let payload = (end - transport) as u16;
        bytes[start + 4..start + 6].copy_from_slice(&payload.to_be_bytes());
        bytes[start + 6] = protocol;
    }
    let address = |at: usize| {
        let octets: [u8; 16] = bytes[start + at..start + at + 16].try_into().expect("sixteen bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    Ok(Ip { source: address(8), destination: address(24), protocol, packet: start..end, transport })
}

/// The protocol behind the extension headers, and where it starts.
fn skip_extensions(packet: &[u8]) -> Result<(u8, usize), DropReason> {
    let (mut next, mut at) = (packet[6], IPV6_HEADER);
    for _ in 0..MAX_EXTENSIONS {
        match next {
            FRAGMENT => return Err(IpFragment),
            HOP_BY_HOP | ROUTING | DESTINATION => {
                if packet.len() < at + 8 {
                    return Err(BadIpHeader);
                }
                next = packet[at];
                at += (usize::from(packet[at + 1]) + 1) * 8;
            }
            _ if at <= packet.len() => return Ok((next, at)),
            _ => return Err(BadIpHeader),
        }
    }
    Err(BadIpHeader)
}

pub fn tcp(bytes: &[u8], source: IpAddr, destination: IpAddr) -> Result<Segment, DropReason> {
    if bytes.len() < 20 {
        return Err(BadTcpHeader);
    }
    let header = usize::from(bytes[12] >> 4) * 4;
    let (from, to) = (be16(bytes, 0), be16(bytes, 2));
    if header < 20 || header > bytes.len() || from == 0 || to == 0 {
        return Err(BadTcpHeader);
    }
    Ok(Segment {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
        flags: bytes[13],
        sequence: be32(bytes, 4),
        acknowledgement: be32(bytes, 8),
        length: bytes.len() - header,
    })
}
