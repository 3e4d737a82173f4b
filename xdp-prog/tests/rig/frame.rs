//! Frames put together from parts, right or wrong as the test asks.

use std::net::{IpAddr, SocketAddr};

pub const SYN: u8 = 0x02;
pub const ACK: u8 = 0x10;
pub const SYN_ACK: u8 = 0x12;
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// An Ethernet frame with one IP packet.
#[derive(Debug, Clone)]
pub struct Frame {
    pub mac: [u8; 6],
    pub tags: usize,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    /// IPv4 options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: type and bytes; the first byte is filled in here.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Offset in units of 8 bytes, and whether more follow.
    pub fragment: Option<(u16, bool)>,
    pub payload: Vec<u8>,
}

/// A TCP segment without payload.
pub fn tcp(source: &str, destination: &str, flags: u8) -> Frame {
    let (source, destination): (SocketAddr, SocketAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&source.port().to_be_bytes());
    header[2..4].copy_from_slice(&destination.port().to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    ip(source.ip(), destination.ip(), 6, header)
}

pub fn udp(source: &str, destination: &str) -> Frame {
    Frame { protocol: 17, ..tcp(source, destination, 0) }
}

/// An ICMP or ICMPv6 message, by the family of its addresses.
pub fn icmp(source: &str, destination: &str, kind: u8, body: &[u8]) -> Frame {
    let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let mut payload = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    payload.extend_from_slice(body);
    ip(source, destination, if source.is_ipv4() { 1 } else { 58 }, payload)
}

fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: Vec<u8>) -> Frame {
    Frame {
        mac: MAC,
        tags: 0,
        source,
        destination,
        protocol,
        options: vec![],
        extensions: vec![],
        fragment: None,
        payload,
    }
}

impl Frame {
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 9];
        frame.extend_from_slice(&self.mac);
        for _ in 0..self.tags {
            frame.extend_from_slice(&[0x81, 0x00, 0, 5]);
        }
        frame.extend_from_slice(if self.source.is_ipv4() { &[0x08, 0x00] } else { &[0x86, 0xdd] });
        frame.extend_from_slice(&self.packet());
        frame
    }

    /// The packet alone, as an ICMP error quotes it.
    pub fn packet(&self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = 20 + self.options.len();
                let total = (header + self.payload.len()) as u16;
                let mut packet = vec![0x40 | (header / 4) as u8, 0];
                packet.extend_from_slice(&total.to_be_bytes());
                packet.extend_from_slice(&[0, 1]);
                let (offset, more) = self.fragment.unwrap_or((0, false));
                packet.extend_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
                packet.extend_from_slice(&[64, self.protocol, 0, 0]);
                packet.extend_from_slice(&source.octets());
                packet.extend_from_slice(&destination.octets());
                packet.extend_from_slice(&self.options);
                packet.extend_from_slice(&self.payload);
                packet
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut extensions = self.extensions.clone();
                if let Some((offset, more)) = self.fragment {
                    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
                    extensions.push((44, vec![0, 0, high, low, 0, 0, 0, 1]));
                }
                let types: Vec<u8> = extensions.iter().map(|e| e.0).chain([self.protocol]).collect();
                let mut body = Vec::new();
                for (at, (_, extension)) in extensions.iter().enumerate() {
                    let start = body.len();
                    body.extend_from_slice(extension);
                    body[start] = types[at + 1];
                }
                body.extend_from_slice(&self.payload);
                let mut packet = vec![0x60, 0, 0, 0];
                packet.extend_from_slice(&(body.len() as u16).to_be_bytes());
                packet.extend_from_slice(&[types[0], 64]);
                packet.extend_from_slice(&source.octets());
                packet.extend_from_slice(&destination.octets());
                packet.extend_from_slice(&body);
                packet
            }
            mixed => panic!("one family a packet: {mixed:?}"),
        }
    }

    /// The bytes with one changed, counted from the start of the frame.
    pub fn with(&self, at: usize, byte: u8) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes[at] = byte;
        bytes
    }
}
