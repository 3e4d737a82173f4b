//! One life of a connection: where it stands in sequence space, and what it waits for.
//!
//! The engine keeps its sequence numbers to itself, so the connection counts along: what was sent
//! is read off the packets that leave ([`Sent`]), what was received is the peer's initial sequence
//! number plus the bytes that came out of the ring or lie in it.

use std::net::SocketAddr;

use smoltcp::time::Instant;

use crate::connection::Connection;
use crate::device::Sent;
use crate::end::{End, State};
use crate::segment::{Segment, after};
use crate::stack::MIN_MTU;

/// What belongs to one life of a connection, and is forgotten whole at its end.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    /// Our address and the peer's; `None` in the pool.
    pub tuple: Option<(SocketAddr, SocketAddr)>,
    pub mtu: usize,
    pub sent: Sent,
    /// The initial sequence numbers, ours and (once its SYN came) the peer's.
    pub isn: u32,
    pub irs: u32,
    /// How far the window field of our segments is shifted.
    pub scale: u8,
    /// Bytes that `send` took and `recv` gave, modulo 2^32 as sequence numbers are.
    pub queued: u32,
    pub consumed: u32,
    pub fin_received: bool,
    pub fin_acked: bool,
    /// `close` came before the handshake's end: it is carried out then.
    pub close_later: bool,
    /// Until when the acknowledgement of a lone segment may wait.
    pub hold: Option<Instant>,
    /// The peer's largest segment so far.
    pub largest: usize,
    /// When the first segment left that the peer has not answered, with whatever it be.
    pub asked: Option<Instant>,
    pub next_challenge: Instant,
    /// The path got narrower: what is in flight is too large and is sent again at once.
    pub rewind: bool,
    pub end: Option<End>,
}

impl Life {
    pub fn none() -> Self {
        Self {
            tuple: None,
            mtu: MIN_MTU,
            sent: Sent::default(),
            isn: 0,
            irs: 0,
            scale: 0,
            queued: 0,
            consumed: 0,
            fin_received: false,
            fin_acked: false,
            close_later: false,
            hold: None,
            largest: 0,
            asked: None,
            next_challenge: Instant::ZERO,
            rewind: false,
            end: None,
        }
    }
}

impl Connection {
    /// What a segment did to our state.
    pub(crate) fn advance(&mut self, before: State, segment: &Segment) {
        let state = self.state();
        match (before, state) {
            (State::SynSent, State::SynSent) => return,
            (State::SynSent, State::Closed) => self.life.end = Some(End::Reset),
            (State::SynSent, _) => self.hear_syn(segment),
            // The guard takes each RST, so this is the acknowledgement of our FIN.
            (State::LastAck, State::Closed) => {
                self.life.fin_acked = true;
                self.life.end = Some(End::Finished);
            }
            _ => {}
        }
        self.life.asked = None;
        self.life.fin_received |= state.after_peers_fin();
        self.life.fin_acked |= matches!(state, State::FinWait2 | State::TimeWait);
        if self.life.close_later && matches!(state, State::Established | State::CloseWait) {
            self.life.close_later = false;
            self.close();
        }
    }

    /// The peer's SYN: its first sequence number, and whether windows are scaled.
    pub(crate) fn hear_syn(&mut self, syn: &Segment) {
        self.life.irs = syn.seq;
        self.life.scale = if syn.scales { scale(self.config.buffer) } else { 0 };
    }

    /// Decides whether the acknowledgement of `segment` may wait: only in ESTABLISHED, only for a
    /// lone segment, and only if nothing is there to carry it and the window is wide open.
    pub(crate) fn hold_ack(&mut self, before: State, segment: &Segment, now: Instant) {
        if segment.len == 0 && self.unacked() == 0 && self.state() == State::Established {
            return;
        }
        self.life.largest = self.life.largest.max(segment.len);
        let owed = self.received_up_to().wrapping_sub(self.life.sent.ack) as usize;
        let lone = before == State::Established
            && self.state() == State::Established
            && segment.len > 0
            && owed <= self.life.largest
            && self.received() <= self.config.buffer / 2
            && !self.has_unsent();
        self.life.hold = match self.config.ack_delay {
            Some(delay) if lone => Some(self.life.hold.unwrap_or(now + delay)),
            Some(_) | None => None,
        };
    }

    /// RCV.NXT.
    pub(crate) fn received_up_to(&self) -> u32 {
        let data = self.life.consumed.wrapping_add(self.received() as u32);
        self.life.irs.wrapping_add(1).wrapping_add(data).wrapping_add(u32::from(self.life.fin_received))
    }

    pub(crate) fn owes_ack(&self) -> bool {
        self.life.sent.ack != self.received_up_to()
    }

    /// SND.UNA, but for a FIN of ours.
    pub(crate) fn acked_up_to(&self) -> u32 {
        self.queued_up_to().wrapping_sub(self.unacked() as u32)
    }

    fn queued_up_to(&self) -> u32 {
        self.life.isn.wrapping_add(1).wrapping_add(self.life.queued)
    }

    pub(crate) fn has_unsent(&self) -> bool {
        after(self.queued_up_to(), self.life.sent.highest)
    }

    /// In the pool, or over and everything said.
    pub(crate) fn silent(&self) -> bool {
        match self.life.end {
            Some(End::Aborted | End::UserTimeout) => !self.rst_is_due(),
            Some(End::Finished | End::Reset) => true,
            None => self.life.tuple.is_none(),
        }
    }

    pub(crate) fn may_transmit(&self, now: Instant) -> bool {
        !self.silent() && self.held(now).is_none() && !self.lingers()
    }

    /// The engine forgets its peer when the RST has left.
    pub(crate) fn rst_is_due(&self) -> bool {
        self.socket().local_endpoint().is_some()
    }

    pub(crate) fn end_with_rst(&mut self, end: End) {
        if self.life.end.is_some() || self.life.tuple.is_none() {
            return;
        }
        let (state, spoke) = (self.state(), self.life.sent.segments > 0);
        self.life.end = Some(if state == State::TimeWait { End::Finished } else { end });
        self.life.hold = None;
        self.socket_mut().abort();
        if !spoke {
            // The peer has never heard of this connection.
            self.socket_mut().listen(1).expect("a closed socket can listen");
            self.socket_mut().abort();
        }
    }

    pub(crate) fn keep_time(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.end_with_rst(End::UserTimeout);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.life.end {
            Some(_) => None,
            None => Some(self.life.asked? + self.config.user_timeout?),
        }
    }

    pub(crate) fn held(&self, now: Instant) -> Option<Instant> {
        self.life.hold.filter(|&until| until > now && !self.has_unsent())
    }
}

/// The engine's: the least that lets 16 bits tell of a ring of `buffer` bytes.
fn scale(buffer: usize) -> u8 {
    (usize::BITS - buffer.leading_zeros()).saturating_sub(16) as u8
}
