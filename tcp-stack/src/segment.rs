//! The fields of a segment that are judged before or beside the engine.

use std::net::{IpAddr, SocketAddr};

use smoltcp::wire::{IpProtocol, IpVersion, Ipv4Packet, Ipv6Packet, TcpOption, TcpPacket};

/// What one IP packet with a TCP segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub seq: u32,
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub window: u16,
    /// Bytes of payload.
    pub len: usize,
    /// A SYN that offers to scale windows (RFC 7323 §2.2).
    pub scales: bool,
}

impl Segment {
    /// `None` for what is no TCP segment, or is cut short.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        // `of_packet` takes its first byte for granted.
        packet.first()?;
        let (source, destination, payload): (IpAddr, IpAddr, &[u8]) = match IpVersion::of_packet(packet).ok()? {
            IpVersion::Ipv4 => {
                let ip = Ipv4Packet::new_checked(packet).ok()?;
                if ip.next_header() != IpProtocol::Tcp || ip.more_frags() || ip.frag_offset() != 0 {
                    return None;
                }
                (ip.src_addr().into(), ip.dst_addr().into(), ip.payload())
            }
            IpVersion::Ipv6 => {
                let ip = Ipv6Packet::new_checked(packet).ok()?;
                let payload = after_hop_by_hop(ip.next_header(), ip.payload())?;
                (ip.src_addr().into(), ip.dst_addr().into(), payload)
            }
        };
        let tcp = TcpPacket::new_checked(payload).ok()?;
        Some(Self {
            source: SocketAddr::new(source, tcp.src_port()),
            destination: SocketAddr::new(destination, tcp.dst_port()),
            seq: tcp.seq_number().0 as u32,
            ack: tcp.ack().then(|| tcp.ack_number().0 as u32),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            window: tcp.window_len(),
            len: tcp.payload().len(),
            scales: tcp.syn() && offers_scale(tcp.options()),
        })
    }

    /// The sequence number after this segment: SYN and FIN count as one each.
    pub(crate) fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len as u32).wrapping_add(u32::from(self.syn) + u32::from(self.fin))
    }

    /// SYN alone: the opening of a connection.
    pub(crate) fn opens(&self) -> bool {
        self.syn && self.ack.is_none() && !self.fin && !self.rst
    }
}

fn offers_scale(mut options: &[u8]) -> bool {
    while let Ok((rest, option)) = TcpOption::parse(options) {
        match option {
            TcpOption::WindowScale(_) => return true,
            TcpOption::EndOfList => return false,
            _ => options = rest,
        }
    }
    false
}

/// The engine reads past one hop-by-hop header and no other extension.
fn after_hop_by_hop(next: IpProtocol, payload: &[u8]) -> Option<&[u8]> {
    match next {
        IpProtocol::Tcp => Some(payload),
        IpProtocol::HopByHop => {
            let (&next, &length) = (payload.first()?, payload.get(1)?);
            let rest = payload.get((usize::from(length) + 1) * 8..)?;
            (IpProtocol::from(next) == IpProtocol::Tcp).then_some(rest)
        }
        _ => None,
    }
}

/// Whether `a` comes after `b` in sequence space.
pub(crate) fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}
