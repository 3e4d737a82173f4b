//! One side of a session: its TCP connection, its TLS if it has any, and the way its packets leave.

use std::net::SocketAddr;

use snapshot::DropReason;
use tcp_stack::{Connection, End, Output, Stack};

use crate::flow::FlowKey;
use crate::io::{PacketIo, PortId};
use crate::parse::{ETHERNET, fill_checksums, fill_partial_checksums};
use crate::planted::{self, Bug};
use crate::stats::{CoreCounters, Total};
use crate::time::Instant;
use crate::tls::{Failure, TlsLeg};

/// Segments that one leg sends in one turn before others have theirs.
const SEGMENTS_PER_TURN: usize = 128;

pub struct Leg {
    pub port: PortId,
    /// The address we speak as: the other side's real one (D1), or the node's (`source: node`).
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub conn: Box<Connection>,
    pub tls: Option<Box<TlsLeg>>,
    /// Of the next hop. None: not resolved yet.
    pub mac: Option<[u8; 6]>,
    pub mtu: usize,
    /// TLS has had its first bytes.
    pub fed: bool,
}

/// What [`Leg::transmit`] leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    All,
    /// The budget of the turn or the port's room ended first.
    More,
}

impl Leg {
    pub fn new(
        port: PortId,
        local: SocketAddr,
        remote: SocketAddr,
        conn: Box<Connection>,
        mac: Option<[u8; 6]>,
        mtu: usize,
    ) -> Self {
        Self { port, local, remote, conn, tls: None, mac, mtu, fed: false }
    }

    /// The flow as packets of this leg arrive.
    pub fn key(&self) -> FlowKey {
        FlowKey::new(self.port, self.remote, self.local)
    }

    /// Whether nothing more will be sent or is waited for, TIME-WAIT aside.
    pub fn is_over(&self) -> bool {
        self.conn.ended().is_some()
    }

    /// Whether it ended in order, so that only TIME-WAIT is left of it. A peer that was reset, and may
    /// not have heard of it, has to hear it again.
    pub fn is_finished(&self) -> bool {
        self.conn.ended() == Some(End::Finished)
    }

    /// Everything from the ring through TLS that fits, up to one record's plaintext at a time.
    pub fn feed_tls(&mut self) -> Result<bool, Failure> {
        let Some(tls) = self.tls.as_deref_mut() else { return Ok(false) };
        let mut progress = false;
        while self.conn.received() > 0 && tls.plaintext() == 0 {
            let consumed = self.conn.recv(|bytes| match tls.read_tls(bytes) {
                Ok(count) => (count, Ok(count)),
                Err(failure) => (0, Err(failure)),
            })?;
            if consumed == 0 {
                break;
            }
            self.fed = true;
            progress = true;
        }
        Ok(progress)
    }

    /// Sealed records into the send ring, as far as it has room.
    pub fn flush_tls(&mut self) -> bool {
        let Some(tls) = self.tls.as_deref_mut() else { return false };
        let mut progress = false;
        while tls.pending() > 0 && self.conn.room() > 0 {
            let written = self.conn.send(|room| {
                let mut count = tls.write_tls(room);
                if planted::is(Bug::NonceRepeated) {
                    count += repeat_record(room, count);
                }
                (count, count)
            });
            if written == 0 {
                break;
            }
            progress = true;
        }
        progress
    }

    /// Whether sealed records wait for room in the send ring.
    pub fn tls_pending(&mut self) -> bool {
        self.tls.as_deref_mut().is_some_and(|tls| tls.pending() > 0)
    }

    pub fn transmit<P: PacketIo>(
        &mut self,
        io: &mut P,
        stack: &mut Stack,
        source_mac: Option<[u8; 6]>,
        counters: &CoreCounters,
        now: Instant,
    ) -> Sent {
        let mut out = LegOutput { io, counters, port: self.port, source_mac, mac: self.mac, blocked: false };
        let sent = self.conn.transmit(stack, now, &mut out, SEGMENTS_PER_TURN);
        if out.blocked || sent == SEGMENTS_PER_TURN { Sent::More } else { Sent::All }
    }

    pub fn output<'a, P: PacketIo>(
        &self,
        io: &'a mut P,
        source_mac: Option<[u8; 6]>,
        counters: &'a CoreCounters,
    ) -> LegOutput<'a, P> {
        LegOutput { io, counters, port: self.port, source_mac, mac: self.mac, blocked: false }
    }
}

/// For [`Bug::NonceRepeated`]: the first sealed record of `written` bytes goes out once more, which is
/// as near as the TLS library lets us come to sealing twice under one nonce.
fn repeat_record(room: &mut [u8], written: usize) -> usize {
    let Some([23, _, _, high, low]) = room[..written].first_chunk() else { return 0 };
    let record = 5 + usize::from(u16::from_be_bytes([*high, *low]));
    if record > written || written + record > room.len() {
        return 0;
    }
    room.copy_within(..record, written);
    record
}

/// A segment that the engine answers at once (a duplicate or challenge ACK), kept until the frame
/// that it answers has been given back: headers only, one a received segment.
pub struct Reply {
    bytes: [u8; 160],
    length: usize,
}

impl Default for Reply {
    fn default() -> Self {
        Self { bytes: [0; 160], length: 0 }
    }
}

impl Reply {
    pub fn packet(&self) -> Option<&[u8]> {
        (self.length > 0).then(|| &self.bytes[..self.length])
    }
}

impl Output for Reply {
    fn ready(&mut self, len: usize) -> bool {
        self.length == 0 && len <= self.bytes.len()
    }

    fn packet(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8])) {
        assert!(len <= self.bytes.len(), "an answer of {len} bytes to a segment is no header");
        fill(&mut self.bytes[..len]);
        self.length = len;
    }
}

/// Puts an Ethernet header before each segment, writes its checksums, queues it on the port.
pub struct LegOutput<'a, P: PacketIo> {
    io: &'a mut P,
    counters: &'a CoreCounters,
    port: PortId,
    /// None: the port's link is gone.
    source_mac: Option<[u8; 6]>,
    mac: Option<[u8; 6]>,
    /// The port had no room; the rest is made next turn.
    pub blocked: bool,
}

impl<P: PacketIo> Output for LegOutput<'_, P> {
    /// A segment that cannot go anywhere is made and dropped, so that the retransmission timer
    /// paces what would else be tried every turn.
    fn ready(&mut self, len: usize) -> bool {
        let ready = self.mac.is_none() || self.source_mac.is_none() || self.io.can_send(self.port, ETHERNET + len);
        self.blocked |= !ready;
        ready
    }

    fn packet(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8])) {
        let (Some(destination), Some(source)) = (self.mac, self.source_mac) else {
            // The engine still has to write its segment somewhere for its state to move on.
            fill(&mut vec![0; len]);
            let reason = if self.mac.is_none() { DropReason::NoNextHop } else { DropReason::PortDown };
            return self.counters.drop(reason);
        };
        send_frame(self.io, self.counters, self.port, source, destination, len, fill);
    }
}

/// Queues one IP packet in an Ethernet frame. What the port refuses is counted.
pub fn send_frame<P: PacketIo>(
    io: &mut P,
    counters: &CoreCounters,
    port: PortId,
    source: [u8; 6],
    destination: [u8; 6],
    len: usize,
    fill: &mut dyn FnMut(&mut [u8]),
) {
    let mut filled = false;
    let offloads = io.offloads_checksums(port);
    let result = io.send(port, ETHERNET + len, &mut |frame| {
        frame[..6].copy_from_slice(&destination);
        frame[6..12].copy_from_slice(&source);
        let packet = &mut frame[ETHERNET..];
        fill(packet);
        let kind: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        if offloads {
            fill_partial_checksums(packet)
        } else {
            fill_checksums(packet)
        }
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        filled = true;
    });
    match result {
        Ok(()) => counters.add(Total::PacketsSent, 1),
        Err(reason) => {
            if !filled {
                fill(&mut vec![0; len]);
            }
            counters.drop(reason);
        }
    }
}
