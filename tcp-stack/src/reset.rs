//! Segments that are written without the engine: the RST for a stranger, and a bare ACK.

use std::net::SocketAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber};

use crate::segment::Segment;

/// Writes the RST that answers a segment without a connection (RFC 9293 §3.10.7.1) into `out`, as
/// an IP packet with zero checksums, and returns its length. `None` for a RST, for what is no TCP
/// segment, and if `out` is too short (60 bytes are enough).
pub fn rst_for(packet: &[u8], out: &mut [u8]) -> Option<usize> {
    let segment = Segment::parse(packet)?;
    if segment.rst || segment.source.ip().is_unspecified() || segment.destination.ip().is_unspecified() {
        return None;
    }
    let (seq, ack) = match segment.ack {
        Some(ack) => (ack, None),
        None => (0, Some(segment.end())),
    };
    let bare =
        Bare { local: segment.destination, remote: segment.source, control: TcpControl::Rst, seq, ack, window: 0 };
    let len = bare.len();
    bare.write(out.get_mut(..len)?);
    Some(len)
}

/// Writes the acknowledgement of a FIN that came again after its connection is over (RFC 9293
/// §3.10.7.4, TIME-WAIT), as [`rst_for`] does. Everything in it is read off the FIN, whose sender
/// has acknowledged all that we sent. `None` for what is no FIN with an acknowledgement.
pub fn ack_for(packet: &[u8], out: &mut [u8]) -> Option<usize> {
    let segment = Segment::parse(packet)?;
    let seq = segment.ack.filter(|_| segment.fin && !segment.rst)?;
    let (local, remote) = (segment.destination, segment.source);
    let bare = Bare { local, remote, control: TcpControl::None, seq, ack: Some(segment.end()), window: segment.window };
    let len = bare.len();
    bare.write(out.get_mut(..len)?);
    Some(len)
}

/// A segment without options and payload.
pub(crate) struct Bare {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub control: TcpControl,
    pub seq: u32,
    pub ack: Option<u32>,
    pub window: u16,
}

impl Bare {
    pub(crate) fn len(&self) -> usize {
        self.ip().buffer_len()
    }

    /// `packet` is `len` bytes long.
    pub(crate) fn write(&self, packet: &mut [u8]) {
        let ip = self.ip();
        ip.emit(&mut *packet, &ChecksumCapabilities::ignored());
        let mut tcp = TcpPacket::new_unchecked(&mut packet[ip.header_len()..]);
        self.tcp().emit(&mut tcp, &ip.src_addr(), &ip.dst_addr(), &ChecksumCapabilities::ignored());
    }

    fn ip(&self) -> IpRepr {
        let (from, to): (IpAddress, IpAddress) = (self.local.ip().into(), self.remote.ip().into());
        IpRepr::new(from, to, IpProtocol::Tcp, self.tcp().buffer_len(), HOP_LIMIT)
    }

    fn tcp(&self) -> TcpRepr<'static> {
        TcpRepr {
            src_port: self.local.port(),
            dst_port: self.remote.port(),
            control: self.control,
            seq_number: TcpSeqNumber(self.seq as i32),
            ack_number: self.ack.map(|ack| TcpSeqNumber(ack as i32)),
            window_len: self.window,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        }
    }
}

/// An IPv6 and a TCP header.
pub(crate) const MAX_BARE: usize = 40 + 20;
pub(crate) const HOP_LIMIT: u8 = 64;
