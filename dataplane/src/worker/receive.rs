//! Packets in: parse, find the flow, give the segment to its session.

use snapshot::{DropReason, Side};

use tcp_stack::Stack;

use super::handoff::Handoff;
use super::sessions::Sessions;
use super::{Mailbox, Received, Settings, Worker};
use crate::flow::{FlowKey, FlowRef, FlowTable};
use crate::io::{BURST, Packet, PacketIo, PortId};
use crate::parse::{self, Content, IcmpError, IcmpKind, Segment, flags};
use crate::session::{Reply, Syn, send_frame, send_reset};
use crate::stats::Total;
use crate::time::{Clock, Instant};

/// Bursts from one port before the next has its turn, and bytes after which no further burst is taken: a
/// packet may have 64 KiB.
const BURSTS_PER_TURN: usize = 4;
const BYTES_PER_TURN: usize = 512 << 10;

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
    /// Everything that arrived, up to a bound a port.
    pub(super) fn receive(&mut self) -> Received {
        let mut total = self.receive_handed();
        for port in (0..self.io.ports() as u16).map(PortId) {
            let enough = total.bytes + BYTES_PER_TURN;
            for _ in 0..BURSTS_PER_TURN {
                let count = self.io.rx_burst(port);
                for index in 0..count {
                    let frame = self.io.bytes(Packet(index));
                    total.bytes += frame.len();
                    let handoff = Some(&mut self.handoff);
                    let after = handle(
                        port,
                        frame,
                        handoff,
                        &self.settings,
                        &self.mailbox,
                        &self.flows,
                        &mut self.sessions,
                        &mut self.stack,
                        self.now.mono,
                    );
                    self.follow_up(port, after);
                }
                self.io.release();
                total.packets += count;
                if count < BURST || total.bytes >= enough {
                    break;
                }
            }
        }
        self.handoff.wake();
        self.mix.add(total, self.now.mono);
        self.mailbox.counters.add(Total::PacketsReceived, total.packets as u64);
        total
    }

    /// What other cores received for flows of ours.
    fn receive_handed(&mut self) -> Received {
        let mut total = Received::default();
        for other in 0..self.handoff.others() {
            for _ in 0..BURSTS_PER_TURN * BURST {
                let Some(mut parcel) = self.handoff.take(other) else { break };
                let port = parcel.port();
                total.packets += 1;
                total.bytes += parcel.frame().len();
                let after = handle(
                    port,
                    parcel.frame(),
                    None,
                    &self.settings,
                    &self.mailbox,
                    &self.flows,
                    &mut self.sessions,
                    &mut self.stack,
                    self.now.mono,
                );
                self.handoff.back(other, parcel);
                self.follow_up(port, after);
            }
        }
        total
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

    pub(super) fn side(&self, port: PortId) -> Side {
        self.port(port).side
    }

    /// Answers a packet that nothing here belongs to.
    pub(super) fn reset(&mut self, port: PortId, mac: [u8; 6], packet: &[u8]) {
        send_reset(&mut self.io, &self.paths, &self.mailbox.counters, port, Some(mac), packet);
    }
}

/// One frame. Free of `self`, since the frame is still lent out by the port. `handoff` is None for a
/// frame that has been handed over already.
#[allow(clippy::too_many_arguments)]
fn handle(
    port: PortId,
    frame: &mut [u8],
    handoff: Option<&mut Handoff>,
    settings: &Settings,
    mailbox: &Mailbox,
    flows: &FlowTable,
    sessions: &mut Sessions,
    stack: &mut Stack,
    now: Instant,
) -> After {
    let counters = &mailbox.counters;
    let at = usize::from(port.0);
    let parsed = match parse::parse(frame, settings.ports[at].checksum, settings.veth[at]) {
        Ok(parsed) => parsed,
        Err(reason) => {
            counters.drop(reason);
            return After::Nothing;
        }
    };
    let (source, destination) = match &parsed.content {
        Content::Segment(segment) => (segment.source, segment.destination),
        // The quoted segment is ours, so the flow's own packets run the other way.
        Content::Icmp(error) => (error.destination, error.source),
    };
    if let Some(handoff) = handoff
        && let Some(owner) = handoff.other_owner(source, destination)
    {
        match handoff.give(owner, port, parsed.source_mac, &frame[parsed.packet]) {
            Ok(()) => counters.add(Total::HandedOver, 1),
            Err(reason) => counters.drop(reason),
        }
        return After::Nothing;
    }
    let key = FlowKey::new(port, source, destination);
    match parsed.content {
        Content::Segment(segment) => {
            segment_arrived(&frame[parsed.packet], &segment, parsed.source_mac, &key, flows, sessions, stack, now)
        }
        Content::Icmp(error) => {
            if !icmp_arrived(error, &key, flows, sessions) {
                counters.drop(DropReason::BadIcmp);
            }
            After::Nothing
        }
    }
}

/// An error about a segment of ours. False: it quotes none that can be in flight (RFC 5927 §4).
fn icmp_arrived(error: IcmpError, key: &FlowKey, flows: &FlowTable, sessions: &mut Sessions) -> bool {
    let Some(FlowRef::Live { session: index, leg }) = flows.find(key) else { return false };
    let Some(session) = sessions.find(index) else { return false };
    if !session.leg(leg).is_some_and(|leg| leg.conn.in_flight(error.sequence)) {
        return false;
    }
    match error.kind {
        IcmpKind::TooBig(mtu) => session.on_too_big(leg, mtu as usize),
        IcmpKind::Unreachable => session.on_unreachable(leg),
    }
    sessions.mark(index);
    true
}

/// A segment, for its session if there is one.
#[allow(clippy::too_many_arguments)]
fn segment_arrived(
    packet: &[u8],
    segment: &Segment,
    mac: [u8; 6],
    key: &FlowKey,
    flows: &FlowTable,
    sessions: &mut Sessions,
    stack: &mut Stack,
    now: Instant,
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
        Some(FlowRef::Spent { .. } | FlowRef::Dead { .. }) | None if segment.is_syn() => {
            After::Admit(*segment, Syn::new(packet, segment), mac)
        }
        // The last ACK was lost: TIME-WAIT answers a FIN that comes again (RFC 9293 §3.10.7.4).
        Some(FlowRef::Spent { .. }) if segment.has(flags::FIN) => answer(packet, mac, tcp_stack::ack_for),
        Some(FlowRef::Spent { .. }) => After::Nothing,
        Some(FlowRef::Dead { .. }) | None => answer(packet, mac, tcp_stack::rst_for),
    }
}

fn answer(packet: &[u8], mac: [u8; 6], make: fn(&[u8], &mut [u8]) -> Option<usize>) -> After {
    let mut bytes = [0; 60];
    match make(packet, &mut bytes) {
        Some(length) => After::Answer(bytes, length, mac),
        None => After::Nothing,
    }
}
