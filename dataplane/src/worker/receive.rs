//! Packets in: parse, find the flow, give the segment to its session.

use snapshot::{DropReason, Side};

use super::Worker;
use crate::flow::{FlowKey, FlowRef};
use crate::io::{BURST, Packet, PacketIo, PortId};
use crate::parse::{self, Content, IcmpError, IcmpKind, Segment, flags};
use crate::session::{Reply, Syn, send_frame, send_reset};
use crate::stats::Total;
use crate::time::Clock;

/// Bursts from one port before the next has its turn.
const BURSTS_PER_TURN: usize = 4;

/// What a packet asks for once its frame may be given back.
enum After {
    Nothing,
    /// An immediate answer of the TCP engine.
    Reply(u32, crate::flow::Leg, Reply),
    Admit(Segment, Syn, [u8; 6]),
    /// An IP packet that answers one without a session, back to where it came from.
    Answer([u8; 60], usize, [u8; 6]),
}

impl<P: PacketIo, C: Clock> Worker<P, C> {
    /// Everything that arrived, up to a bound a port. Returns how many packets.
    pub(super) fn receive(&mut self) -> usize {
        let mut total = 0;
        for port in (0..self.io.ports() as u16).map(PortId) {
            for _ in 0..BURSTS_PER_TURN {
                let count = self.io.rx_burst(port);
                for index in 0..count {
                    self.receive_packet(port, Packet(index));
                }
                self.io.release();
                total += count;
                if count < BURST {
                    break;
                }
            }
        }
        self.mailbox.counters.add(Total::PacketsReceived, total as u64);
        total
    }

    fn receive_packet(&mut self, port: PortId, packet: Packet) {
        let (checksums, veth) = (self.port(port).checksum, self.settings.veth[usize::from(port.0)]);
        let frame = self.io.bytes(packet);
        let parsed = match parse::parse(frame, checksums, veth) {
            Ok(parsed) => parsed,
            Err(reason) => return self.mailbox.counters.drop(reason),
        };
        let after = match parsed.content {
            Content::Segment(segment) => {
                let packet = &frame[parsed.packet];
                segment_arrived(
                    packet,
                    &segment,
                    parsed.source_mac,
                    &FlowKey::new(port, segment.source, segment.destination),
                    &self.flows,
                    &mut self.sessions,
                    &mut self.stack,
                    self.now.mono,
                )
            }
            Content::Icmp(error) => {
                self.icmp_arrived(port, error);
                After::Nothing
            }
        };
        self.follow_up(port, after);
    }

    fn follow_up(&mut self, port: PortId, after: After) {
        match after {
            After::Nothing => {}
            After::Reply(index, leg, reply) => {
                let Some(leg) = self.sessions.find(index).and_then(|session| session.leg(leg)) else { return };
                let (Some(packet), Some(mac), Some(link)) = (reply.packet(), leg.mac, self.paths.link(leg.port)) else {
                    return;
                };
                let fill = &mut |out: &mut [u8]| out.copy_from_slice(packet);
                send_frame(&mut self.io, &self.mailbox.counters, leg.port, link.mac, mac, packet.len(), fill);
            }
            After::Admit(segment, syn, mac) => self.admit(port, segment, syn, mac),
            After::Answer(bytes, length, mac) => {
                self.mailbox.counters.drop(DropReason::UnknownFlow);
                let Some(link) = self.paths.link(port) else { return };
                let fill = &mut |out: &mut [u8]| out.copy_from_slice(&bytes[..length]);
                send_frame(&mut self.io, &self.mailbox.counters, port, link.mac, mac, length, fill);
            }
        }
    }

    /// An error about a segment of ours, if it quotes one that can be in flight (RFC 5927 §4).
    fn icmp_arrived(&mut self, port: PortId, error: IcmpError) {
        // The quoted segment is ours, so the flow's own packets run the other way.
        let key = FlowKey::new(port, error.destination, error.source);
        let found = self.flows.find(&key);
        let Some(FlowRef::Live { session: index, leg }) = found else {
            return self.mailbox.counters.drop(DropReason::BadIcmp);
        };
        let Some(session) = self.sessions.find(index) else { return };
        let in_flight = session.leg(leg).is_some_and(|leg| leg.conn.in_flight(error.sequence));
        if !in_flight {
            return self.mailbox.counters.drop(DropReason::BadIcmp);
        }
        match error.kind {
            IcmpKind::TooBig(mtu) => session.on_too_big(leg, mtu as usize),
            IcmpKind::Unreachable => session.on_unreachable(leg),
        }
        self.sessions.mark(index);
    }

    pub(super) fn side(&self, port: PortId) -> Side {
        self.port(port).side
    }

    /// Answers a packet that nothing here belongs to.
    pub(super) fn reset(&mut self, port: PortId, mac: [u8; 6], packet: &[u8]) {
        send_reset(&mut self.io, &self.paths, &self.mailbox.counters, port, Some(mac), packet);
    }
}

/// Free of `self`, since the frame is still lent out by the port.
#[allow(clippy::too_many_arguments)]
fn segment_arrived(
    packet: &[u8],
    segment: &Segment,
    mac: [u8; 6],
    key: &FlowKey,
    flows: &crate::flow::FlowTable,
    sessions: &mut super::Sessions,
    stack: &mut tcp_stack::Stack,
    now: crate::time::Instant,
) -> After {
    match flows.find(key) {
        Some(FlowRef::Live { session: index, leg }) => {
            let Some(session) = sessions.find(index) else { return After::Nothing };
            // The caller uses its port again: what is left of the old session is nobody's any more.
            let over = |session: &crate::session::Session| {
                session.has_ended() || session.leg(leg).is_some_and(|leg| leg.conn.reopened_by(packet))
            };
            if segment.is_syn() && leg == crate::flow::Leg::Down && over(session) {
                return After::Admit(*segment, Syn::new(packet, segment), mac);
            }
            let mut reply = Reply::default();
            session.on_segment(leg, packet, mac, stack, now, &mut reply);
            sessions.mark(index);
            if reply.packet().is_some() { After::Reply(index, leg, reply) } else { After::Nothing }
        }
        Some(FlowRef::Spent | FlowRef::Adopted) | None if segment.is_syn() => {
            After::Admit(*segment, Syn::new(packet, segment), mac)
        }
        // The last ACK was lost: TIME-WAIT answers a FIN that comes again (RFC 9293 §3.10.7.4).
        Some(FlowRef::Spent) if segment.has(flags::FIN) => answer(packet, mac, tcp_stack::ack_for),
        Some(FlowRef::Spent) => After::Nothing,
        Some(FlowRef::Adopted) | None => answer(packet, mac, tcp_stack::rst_for),
    }
}

fn answer(packet: &[u8], mac: [u8; 6], make: fn(&[u8], &mut [u8]) -> Option<usize>) -> After {
    let mut bytes = [0; 60];
    match make(packet, &mut bytes) {
        Some(length) => After::Answer(bytes, length, mac),
        None => After::Nothing,
    }
}
