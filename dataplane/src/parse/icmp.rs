//! ICMP errors about segments that we sent: the quoted tuple, and what the network says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use snapshot::DropReason::{self, BadIcmp, NotTcp};

use super::headers::{TCP, be16, be32};

/// An error whose quotation holds at least addresses, ports and sequence number (RFC 792, RFC 4443).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IcmpError {
    /// Of the quoted segment, which we sent: its source is the address we spoke as.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Of the quoted segment; it must be in flight (RFC 5927 §4.1).
    pub sequence: u32,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The next link takes at most this many bytes.
    TooBig(u32),
    /// Soft: TCP goes on trying, and says so if it gives up (RFC 5461).
    Unreachable,
}

/// `v4` says which of the two protocols it is. What is no error about TCP is `NotTcp`.
pub fn parse(bytes: &[u8], v4: bool) -> Result<IcmpError, DropReason> {
    if bytes.len() < 8 {
        return Err(BadIcmp);
    }
    let kind = match (v4, bytes[0], bytes[1]) {
        (true, 3, 4) => Kind::TooBig(u32::from(be16(bytes, 6))),
        (false, 2, _) => Kind::TooBig(be32(bytes, 4)),
        (true, 3 | 11 | 12, _) | (false, 1 | 3 | 4, _) => Kind::Unreachable,
        _ => return Err(NotTcp),
    };
    let quoted = &bytes[8..];
    let (source, destination, transport) = if v4 { quoted_v4(quoted)? } else { quoted_v6(quoted)? };
    let transport = quoted.get(transport..).filter(|t| t.len() >= 8).ok_or(BadIcmp)?;
    Ok(IcmpError {
        source: SocketAddr::new(source, be16(transport, 0)),
        destination: SocketAddr::new(destination, be16(transport, 2)),
        sequence: be32(transport, 4),
        kind,
    })
}

fn quoted_v4(packet: &[u8]) -> Result<(IpAddr, IpAddr, usize), DropReason> {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return Err(BadIcmp);
    }
    if packet[9] != TCP {
        return Err(NotTcp);
    }
    let header = usize::from(packet[0] & 0x0f) * 4;
    let address = |at: usize| IpAddr::V4(Ipv4Addr::from_bits(be32(packet, at)));
    if header < 20 { Err(BadIcmp) } else { Ok((address(12), address(16), header)) }
}

/// We send no extension headers, so a quotation of ours has none.
fn quoted_v6(packet: &[u8]) -> Result<(IpAddr, IpAddr, usize), DropReason> {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return Err(BadIcmp);
    }
    if packet[6] != TCP {
        return Err(NotTcp);
    }
    let address = |at: usize| {
        let octets: [u8; 16] = packet[at..at + 16].try_into().expect("sixteen bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    Ok((address(8), address(24), 40))
}
