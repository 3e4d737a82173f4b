//! Frames by hand: Ethernet, VLAN tags, IPv4 or IPv6, TCP, with right sums unless told otherwise.
//!
//! A [`Packet`] starts as a valid TCP segment and is bent from there; [`Packet::frame`] gives the
//! bytes, [`Packet::fragments`] the same segment cut into IP fragments. [`Segment::parse`] reads
//! frames of a capture back. It trusts nothing, so it may be fed with any bytes.

use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// One TCP segment and everything around it.
#[derive(Debug, Clone)]
pub struct Packet {
    pub source_mac: [u8; 6],
    pub destination_mac: [u8; 6],
    /// Outermost first. Each is announced by 802.1Q's EtherType, the outer of two by 802.1ad's.
    pub vlans: Vec<u16>,
    /// Both addresses are of one family.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// Padded with zeros to a multiple of four.
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
    pub ttl: u8,
    pub identification: u16,
    /// IPv4 only; padded like the TCP ones.
    pub ip_options: Vec<u8>,
    /// IPv6 only: type and body of each extension header, a body being 6 bytes more than a multiple of 8.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Added to the TCP checksum: anything but 0 makes it wrong.
    pub checksum_error: u16,
}

impl Packet {
    /// A SYN with nothing special. Panics if the addresses are of two families.
    pub fn syn(source: SocketAddr, destination: SocketAddr) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "one packet has one IP version");
        Self {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            vlans: vec![],
            source,
            destination,
            seq: 1,
            ack: 0,
            flags: SYN,
            window: 64_240,
            tcp_options: vec![2, 4, 5, 180],
            payload: vec![],
            ttl: 64,
            identification: 1,
            ip_options: vec![],
            extensions: vec![],
            checksum_error: 0,
        }
    }

    /// The whole frame, without padding to Ethernet's minimum.
    pub fn frame(&self) -> Vec<u8> {
        let segment = self.segment();
        let mut frame = self.ethernet();
        match self.source {
            SocketAddr::V4(_) => frame.extend(self.ipv4(&segment, 0, false)),
            SocketAddr::V6(_) => frame.extend(self.ipv6(&self.extensions, TCP, &segment)),
        }
        frame
    }

    /// The segment in IP fragments of at most `size` bytes each, TCP header included; `size` is a
    /// multiple of 8.
    pub fn fragments(&self, size: usize) -> Vec<Vec<u8>> {
        assert!(size > 0 && size.is_multiple_of(8), "fragments are cut at multiples of 8, not at {size}");
        let segment = self.segment();
        let count = segment.len().div_ceil(size);
        let cut = |(index, part): (usize, &[u8])| {
            let (offset, more) = (index * size, index + 1 < count);
            let mut frame = self.ethernet();
            match self.source {
                SocketAddr::V4(_) => frame.extend(self.ipv4(part, offset, more)),
                SocketAddr::V6(_) => frame.extend(self.ipv6_fragment(part, offset, more)),
            }
            frame
        };
        segment.chunks(size).enumerate().map(cut).collect()
    }

    fn ethernet(&self) -> Vec<u8> {
        let mut out = [self.destination_mac, self.source_mac].concat();
        for (index, vlan) in self.vlans.iter().enumerate() {
            let tag_type: u16 = if index + 1 < self.vlans.len() { 0x88a8 } else { 0x8100 };
            out.extend(tag_type.to_be_bytes());
            out.extend(vlan.to_be_bytes());
        }
        let ether_type: u16 = if self.source.is_ipv4() { 0x0800 } else { 0x86dd };
        out.extend(ether_type.to_be_bytes());
        out
    }

    fn ipv4(&self, body: &[u8], offset: usize, more: bool) -> Vec<u8> {
        let options = padded(&self.ip_options);
        let header_length = 20 + options.len();
        let fragment = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        let mut out = vec![0x40 | (header_length / 4) as u8, 0];
        out.extend(((header_length + body.len()) as u16).to_be_bytes());
        out.extend(self.identification.to_be_bytes());
        out.extend(fragment.to_be_bytes());
        out.extend([self.ttl, TCP, 0, 0]);
        out.extend(octets(self.source.ip()));
        out.extend(octets(self.destination.ip()));
        out.extend(options);
        let sum = finish(sum(0, &out));
        out[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend(body);
        out
    }

    fn ipv6(&self, extensions: &[(u8, Vec<u8>)], last: u8, body: &[u8]) -> Vec<u8> {
        let mut chain = Vec::new();
        let types: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).chain([last]).collect();
        for (index, (_, content)) in extensions.iter().enumerate() {
            assert_eq!(content.len() % 8, 6, "an extension header fills multiples of 8 with its first two bytes");
            chain.extend([types[index + 1], (content.len() / 8) as u8]);
            chain.extend(content);
        }
        let mut out = vec![0x60, 0, 0, 0];
        out.extend(((chain.len() + body.len()) as u16).to_be_bytes());
        out.extend([types[0], self.ttl]);
        out.extend(octets(self.source.ip()));
        out.extend(octets(self.destination.ip()));
        out.extend(chain);
        out.extend(body);
        out
    }

    /// RFC 8200 §4.5: the fragment header stands last, and has a reserved byte where others have a length.
    fn ipv6_fragment(&self, part: &[u8], offset: usize, more: bool) -> Vec<u8> {
        let mut body = vec![TCP, 0];
        body.extend((offset as u16 | u16::from(more)).to_be_bytes());
        body.extend(u32::from(self.identification).to_be_bytes());
        body.extend(part);
        self.ipv6(&self.extensions, FRAGMENT, &body)
    }

    fn segment(&self) -> Vec<u8> {
        let options = padded(&self.tcp_options);
        let mut out = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        out.extend(self.seq.to_be_bytes());
        out.extend(self.ack.to_be_bytes());
        out.extend([((20 + options.len()) / 4 * 16) as u8, self.flags]);
        out.extend(self.window.to_be_bytes());
        out.extend([0; 4]);
        out.extend(options);
        out.extend(&self.payload);
        let pseudo = [octets(self.source.ip()), octets(self.destination.ip())].concat();
        let start = sum(u32::from(TCP) + out.len() as u32, &pseudo);
        let sum = finish(sum(start, &out)).wrapping_add(self.checksum_error);
        out[16..18].copy_from_slice(&sum.to_be_bytes());
        out
    }
}

/// A TCP segment as it stood in a captured frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Of the option, which SYNs have.
    pub mss: Option<u16>,
    pub payload: Vec<u8>,
}

impl Segment {
    /// None: not TCP over IP, a fragment, or cut short. Sums are not looked at: the kernel leaves
    /// them to be filled in by hardware that a veth does not have.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let mut ether_type = be16(frame, 12)?;
        let mut at = 14;
        while matches!(ether_type, 0x8100 | 0x88a8) {
            ether_type = be16(frame, at + 2)?;
            at += 4;
        }
        let packet = frame.get(at..)?;
        match ether_type {
            0x0800 => Self::parse_ipv4(packet),
            0x86dd => Self::parse_ipv6(packet),
            _ => None,
        }
    }

    fn parse_ipv4(packet: &[u8]) -> Option<Self> {
        let header_length = usize::from(packet.first()? & 0xf) * 4;
        if *packet.get(9)? != TCP || be16(packet, 6)? & 0x3fff != 0 {
            return None;
        }
        let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
        Self::parse_tcp(address(12)?, address(16)?, packet.get(header_length..usize::from(be16(packet, 2)?))?)
    }

    fn parse_ipv6(packet: &[u8]) -> Option<Self> {
        let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
        // A jumbogram of the kernel's offload says 0: it reaches to the frame's end.
        let end = match usize::from(be16(packet, 4)?) {
            0 => packet.len(),
            length => 40 + length,
        };
        let (mut kind, mut at) = (*packet.get(6)?, 40);
        while matches!(kind, 0 | 43 | 60) {
            kind = *packet.get(at)?;
            at += 8 + 8 * usize::from(*packet.get(at + 1)?);
        }
        if kind != TCP {
            return None;
        }
        Self::parse_tcp(address(8)?, address(24)?, packet.get(at..end)?)
    }

    fn parse_tcp(source: IpAddr, destination: IpAddr, segment: &[u8]) -> Option<Self> {
        let be32 = |at: usize| Some(u32::from_be_bytes(segment.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            source: SocketAddr::new(source, be16(segment, 0)?),
            destination: SocketAddr::new(destination, be16(segment, 2)?),
            seq: be32(4)?,
            ack: be32(8)?,
            flags: *segment.get(13)?,
            mss: mss(segment.get(20..usize::from(segment.get(12)? >> 4) * 4)?),
            payload: segment.get(usize::from(segment.get(12)? >> 4) * 4..)?.to_vec(),
        })
    }
}

/// The MSS among TCP's options (RFC 9293 §3.1): kind 2, four bytes.
fn mss(mut options: &[u8]) -> Option<u16> {
    loop {
        options = match options {
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            [1, rest @ ..] => rest,
            [0, ..] | [] | [_] => return None,
            [_, length, ..] => options.get(usize::from(*length).max(2)..)?,
        };
    }
}

const TCP: u8 = 6;
const FRAGMENT: u8 = 44;

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn padded(options: &[u8]) -> Vec<u8> {
    let mut out = options.to_vec();
    out.resize(options.len().next_multiple_of(4), 0);
    out
}

/// The Internet checksum's running sum (RFC 1071).
fn sum(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| sum + u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0)))
}

fn finish(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4() -> Packet {
        let mut packet = Packet::syn("198.18.1.2:40000".parse().unwrap(), "198.18.2.2:3000".parse().unwrap());
        packet.payload = b"hello".to_vec();
        packet
    }

    fn v6() -> Packet {
        Packet::syn("[2001:db8:1::2]:40000".parse().unwrap(), "[2001:db8:2::2]:3000".parse().unwrap())
    }

    #[test]
    fn what_is_built_is_what_is_parsed() {
        let extended = Packet { extensions: vec![(0, vec![0; 6]), (60, vec![0; 14])], ..v6() };
        let tagged = Packet { vlans: vec![7, 8], ip_options: vec![1, 1, 1], ..v4() };
        for (name, packet) in [("plain", v4()), ("tags and options", tagged), ("v6", v6()), ("extensions", extended)] {
            let segment = Segment::parse(&packet.frame()).unwrap_or_else(|| panic!("{name} parses"));
            assert_eq!((segment.source, segment.destination), (packet.source, packet.destination), "{name}");
            assert_eq!((segment.flags, segment.payload), (SYN, packet.payload), "{name}");
        }
        for (options, want) in [(vec![1, 1, 8, 2, 2, 4, 5, 0xb4], Some(1460)), (vec![0, 2, 4, 5], None)] {
            let packet = Packet { tcp_options: options, ..v4() };
            assert_eq!(Segment::parse(&packet.frame()).unwrap().mss, want);
        }
    }

    #[test]
    fn sums_verify_to_zero() {
        let frame = v4().frame();
        assert_eq!(finish(sum(0, &frame[14..34])), 0, "IPv4 header");
        let (pseudo, segment) = (&frame[26..34], &frame[34..]);
        assert_eq!(finish(sum(6 + segment.len() as u32, &[pseudo, segment].concat())), 0, "TCP");
    }

    #[test]
    fn fragments_carry_the_whole_segment_and_are_no_segments_themselves() {
        for packet in [v4(), v6()] {
            let fragments = packet.fragments(8);
            let header = packet.frame().len() - packet.segment().len();
            let header = if packet.source.is_ipv6() { header + 8 } else { header };
            let joined: Vec<u8> = fragments.iter().flat_map(|f| f[header..].to_vec()).collect();
            assert_eq!(joined, packet.segment());
            assert!(fragments.iter().all(|f| Segment::parse(f).is_none()));
        }
    }

    #[test]
    fn any_prefix_of_a_frame_is_refused_or_parsed_without_panic() {
        for packet in [v4(), v6(), Packet { vlans: vec![1, 2], ..v4() }] {
            let frame = packet.frame();
            for length in 0..frame.len() {
                let mut torn = frame[..length].to_vec();
                let _ = Segment::parse(&torn);
                torn.iter_mut().for_each(|byte| *byte = !*byte);
                let _ = Segment::parse(&torn);
            }
        }
    }
}
