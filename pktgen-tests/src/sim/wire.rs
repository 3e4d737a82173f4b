//! What the outside link shows to somebody who listens: TLS records, each of them once.

use std::net::{IpAddr, SocketAddr};

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use super::call::MARKER;

pub type Map<K, V> = HashMap<K, V, FixedState>;

/// A TCP segment as it stands in a frame.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub payload: &'a [u8],
}

impl std::fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flag = |set: bool, name: &'static str| if set { name } else { "" };
        let flags = [flag(self.syn, "S"), flag(self.fin, "F"), flag(self.rst, "R")].concat();
        let Self { source, destination, sequence, acknowledgement, payload, .. } = self;
        write!(f, "{source} > {destination} [{flags}] seq {sequence} ack {acknowledgement} length {}", payload.len())
    }
}

/// None: no TCP, or no frame that could be.
pub fn see(frame: &[u8]) -> Option<Seen<'_>> {
    let packet = frame.get(14..).filter(|packet| packet.len() >= 40)?;
    let be16 = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let (source, destination, transport, end): (IpAddr, IpAddr, usize, usize) = match packet.first()? >> 4 {
        4 if packet[9] == 6 => {
            let address = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes").into();
            (address(12), address(16), usize::from(packet[0] & 15) * 4, usize::from(be16(2)))
        }
        6 if packet[6] == 6 => {
            let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen bytes").into();
            (address(8), address(24), 40, 40 + usize::from(be16(4)))
        }
        _ => return None,
    };
    let tcp = packet.get(transport..end).filter(|tcp| tcp.len() >= 20)?;
    let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    Some(Seen {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
        sequence: u32::from_be_bytes(tcp[4..8].try_into().expect("four bytes")),
        acknowledgement: u32::from_be_bytes(tcp[8..12].try_into().expect("four bytes")),
        syn: tcp[13] & 2 != 0,
        fin: tcp[13] & 1 != 0,
        rst: tcp[13] & 4 != 0,
        payload: tcp.get(usize::from(tcp[12] >> 4) * 4..)?,
    })
}

/// One direction of one connection, put together as its sender sent it.
#[derive(Debug, Default)]
struct Stream {
    next: u32,
    /// Of the record that is not complete yet.
    record: Vec<u8>,
    sealed: HashSet<u64, FixedState>,
}

/// All connections of the link.
#[derive(Debug, Default)]
pub struct Wire {
    streams: Map<(SocketAddr, SocketAddr), Stream>,
    pub records: u64,
}

impl Wire {
    /// Looks at a segment of a connection that has to be sealed.
    pub fn sealed(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let way = || format!("{} to {}", seen.source, seen.destination);
        if find(seen.payload, MARKER) {
            return Err(format!("plaintext on the outside link, {}", way()));
        }
        if seen.syn {
            let stream = Stream { next: seen.sequence.wrapping_add(1), ..Stream::default() };
            self.streams.insert((seen.source, seen.destination), stream);
            return Ok(());
        }
        if seen.rst || seen.payload.is_empty() {
            return Ok(());
        }
        let stream = self.streams.entry((seen.source, seen.destination)).or_default();
        let known = stream.next.wrapping_sub(seen.sequence) as i32;
        if known < 0 {
            return Err(format!("bytes before sequence {} were never sent, {}", seen.sequence, way()));
        }
        let Some(new) = seen.payload.get(known as usize..) else { return Ok(()) };
        stream.next = stream.next.wrapping_add(new.len() as u32);
        stream.record.extend_from_slice(new);
        while let Some(length) = complete(&stream.record).map_err(|e| format!("{e}, {}", way()))? {
            let record: Vec<u8> = stream.record.drain(..length).collect();
            self.records += 1;
            // Application data, which everything sealed calls itself (RFC 8446 §5.2).
            if record[0] == 23 && !stream.sealed.insert(super::trace::digest(&record)) {
                return Err(format!("a sealed record was sent twice, so a nonce was, {}", way()));
            }
        }
        Ok(())
    }
}

/// The length of the first record, once all of it is there.
fn complete(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(header) = bytes.get(..5) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if !(20..=23).contains(&header[0]) || header[1] != 3 || length > (1 << 14) + 256 {
        return Err(format!("no TLS record on the outside link: {header:02x?}"));
    }
    Ok((bytes.len() >= 5 + length).then_some(5 + length))
}

pub fn find(bytes: &[u8], what: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == what[0]) {
        if rest[at..].starts_with(what) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}
