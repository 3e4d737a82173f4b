//! Turns a received frame into offsets that can be trusted, or into the reason why not.
//!
//! Every length in the frame is compared with what arrived, once, here. What comes out points into
//! the frame; nothing after this reads a length from the wire again, except the TCP engine, which
//! parses its segment anew with smoltcp's checked accessors.

mod checksum;
mod headers;
mod icmp;

use std::net::SocketAddr;
use std::ops::Range;

use snapshot::DropReason;
use snapshot::gateway::Checksum;

pub use checksum::{
    complete as complete_checksum, fill as fill_checksums, fill_partial as fill_partial_checksums, sum_of_segment,
};
pub use icmp::{IcmpError, Kind as IcmpKind};

/// Length of an Ethernet header without a VLAN tag, which is what we send.
pub const ETHERNET: usize = 14;

pub mod flags {
    //! TCP control bits (RFC 9293 §3.1).
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const PSH: u8 = 0x08;
    pub const ACK: u8 = 0x10;
}

/// A frame whose headers agree with its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    pub source_mac: [u8; 6],
    /// The IP packet inside the frame, padding cut off. IPv6 extension headers are gone.
    pub packet: Range<usize>,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Segment(Segment),
    Icmp(IcmpError),
}

/// What the flow layer needs of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub flags: u8,
    pub sequence: u32,
    pub acknowledgement: u32,
    /// Bytes of payload.
    pub length: usize,
}

impl Segment {
    /// A connection request: SYN, and neither ACK nor RST nor FIN.
    pub fn is_syn(&self) -> bool {
        self.flags & (flags::SYN | flags::ACK | flags::RST | flags::FIN) == flags::SYN
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// `frame` starts with the Ethernet header. It is changed in one case: an IPv6 header is moved over
/// its extension headers, which end-to-end TCP has no use for.
pub fn parse(frame: &mut [u8], checksums: Checksum, veth: bool) -> Result<Parsed, DropReason> {
    let (source_mac, ip) = headers::ethernet(frame)?;
    let header = headers::ip(&mut frame[ip..])?;
    let packet = ip + header.packet.start..ip + header.packet.end;
    let transport = &frame[ip + header.transport..packet.end];
    let content = match header.protocol {
        headers::TCP => {
            let segment = headers::tcp(transport, header.source, header.destination)?;
            if !checksum_holds(transport, &segment, checksums, veth) {
                return Err(DropReason::BadChecksum);
            }
            Content::Segment(segment)
        }
        headers::ICMP | headers::ICMPV6 => Content::Icmp(icmp::parse(transport, header.destination.is_ipv4())?),
        _ => return Err(DropReason::NotTcp),
    };
    Ok(Parsed { source_mac, packet, content })
}

/// A kernel on the other end of a veth leaves only the pseudo-header's sum in the field
/// (CHECKSUM_PARTIAL): the bytes never left memory, so there is nothing to verify.
fn checksum_holds(transport: &[u8], segment: &Segment, checksums: Checksum, veth: bool) -> bool {
    let partial = || {
        let field = u16::from_be_bytes([transport[16], transport[17]]);
        field == checksum::pseudo_header(segment.source.ip(), segment.destination.ip(), transport.len())
    };
    match checksums {
        Checksum::Trust => true,
        Checksum::Auto if veth && partial() => true,
        Checksum::Auto | Checksum::Verify => {
            sum_of_segment(transport, segment.source.ip(), segment.destination.ip()) == 0
        }
    }
}

#[cfg(test)]
mod tests;
