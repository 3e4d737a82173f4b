//! The judgement of a segment before the engine sees it.
//!
//! Whoever can guess a four-tuple must not be able to end the connection or put bytes into it.
//! RFC 5961: a RST counts only at exactly the next expected sequence number, a SYN in a
//! synchronized state never does, an acknowledgement of what was not sent never does. The honest
//! peer that is meant by such a segment learns the truth from a challenge ACK.
//!
//! Two more are refused here because the engine would take them: a FIN behind data that does not
//! fit the window (the data would be cut, the FIN believed), and data behind a FIN.

use smoltcp::time::Instant;
use smoltcp::wire::TcpControl;

use crate::connection::{CHALLENGE_INTERVAL, Connection};
use crate::device::Lent;
use crate::end::{End, State};
use crate::output::Output;
use crate::reset::{Bare, MAX_BARE, rst_for};
use crate::segment::{Segment, after};
use crate::stack::Stack;

enum Judgement {
    Take,
    Drop,
    Challenge,
    Reset,
    /// There is no connection any more.
    Refuse,
}

impl Connection {
    /// Shows the connection an IP packet that came for it. Its direct answer, if it has one, goes to
    /// `out`; all else waits for `transmit`.
    pub fn on_segment(&mut self, stack: &mut Stack, packet: &[u8], now: Instant, out: &mut impl Output) {
        let Some(segment) = Segment::parse(packet) else { return };
        if self.life.tuple != Some((segment.destination, segment.source)) {
            return;
        }
        match self.judge(&segment) {
            Judgement::Take => self.take(stack, packet, &segment, now, out),
            Judgement::Drop => {}
            Judgement::Challenge => {
                self.hear(self.news(&segment), stack, &segment, now, out);
                self.challenge(stack, now, out);
            }
            Judgement::Reset => self.life.end = Some(End::Reset),
            Judgement::Refuse => refuse(packet, out),
        }
    }

    fn judge(&self, segment: &Segment) -> Judgement {
        let state = self.state();
        let next = self.received_up_to();
        match state {
            State::Closed => Judgement::Refuse,
            // The engine knows which RST refuses a SYN.
            State::SynSent => Judgement::Take,
            State::SynReceived if segment.rst && segment.seq == next => Judgement::Reset,
            State::SynReceived if segment.rst => Judgement::Drop,
            State::SynReceived => Judgement::Take,
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => self.judge_synchronized(segment, next),
        }
    }

    fn judge_synchronized(&self, segment: &Segment, next: u32) -> Judgement {
        let room = self.config.buffer - self.received();
        let data_end = segment.seq.wrapping_add(segment.len as u32);
        // RFC 1337: what is over is not ended once more.
        if segment.rst && self.state() == State::TimeWait {
            return Judgement::Drop;
        }
        if segment.rst {
            return match segment.seq.wrapping_sub(next) as usize {
                0 => Judgement::Reset,
                ahead if ahead < room => Judgement::Challenge,
                _ => Judgement::Drop,
            };
        }
        if segment.syn {
            return Judgement::Challenge;
        }
        let Some(ack) = segment.ack else { return Judgement::Drop };
        let beyond = if self.life.fin_received { next } else { next.wrapping_add(room as u32) };
        let cut = (segment.fin || self.life.fin_received) && after(data_end, beyond);
        match after(ack, self.life.sent.highest) || cut {
            true => Judgement::Challenge,
            false => Judgement::Take,
        }
    }

    fn take(&mut self, stack: &mut Stack, packet: &[u8], segment: &Segment, now: Instant, out: &mut impl Output) {
        let (before, answers) = (self.state(), self.life.sent.segments);
        let beside = if self.in_window(segment) { None } else { self.news(segment) };
        self.engage(stack, packet, segment, now, out);
        self.hear(beside, stack, segment, now, out);
        match self.life.sent.segments == answers {
            true => self.hold_ack(before, segment, now),
            false => self.life.hold = None,
        }
    }

    fn engage(&mut self, stack: &mut Stack, packet: &[u8], segment: &Segment, now: Instant, out: &mut impl Output) {
        let before = self.state();
        let mut device = Lent::ingress(packet, out, &mut self.life.sent);
        stack.interface(self.life.mtu).poll_ingress_single(now, &mut device, &mut self.sockets);
        self.advance(before, segment);
    }

    fn hear(&mut self, news: Option<Bare>, stack: &mut Stack, segment: &Segment, now: Instant, out: &mut impl Output) {
        let Some(news) = news else { return };
        let mut bytes = [0; MAX_BARE];
        let len = news.len();
        news.write(&mut bytes[..len]);
        self.engage(stack, &bytes[..len], segment, now, out);
    }

    /// The engine's test of whether a segment touches the window that was offered last (RFC 9293
    /// §3.10.7.4). That window may end before one offered earlier did: it is told in units of its scale.
    fn in_window(&self, segment: &Segment) -> bool {
        let next = self.received_up_to();
        let past = |seq: u32| i64::from(seq.wrapping_sub(next) as i32);
        let edge = past(self.life.sent.ack.wrapping_add(u32::from(self.life.sent.window) << self.life.scale));
        let (start, end) = (past(segment.seq), past(segment.seq.wrapping_add(segment.len as u32)));
        match (segment.len, edge) {
            (0, 0) => start == 0,
            (_, 0) => false,
            (0, _) => (0..edge).contains(&start),
            (_, _) => (0..edge).contains(&start) || (1..=edge).contains(&end),
        }
    }

    /// A segment outside the window still brings a valid acknowledgement, and if it lies ahead a window
    /// (RFC 9293 §3.10.7.4). The engine answers such a segment and forgets it; if both ends did that,
    /// both would wait for each other for ever. So what it says is shown to the engine in a segment of
    /// its own at RCV.NXT.
    fn news(&self, segment: &Segment) -> Option<Bare> {
        let (next, ack) = (self.received_up_to(), segment.ack?);
        if segment.syn || segment.rst || !self.state().synchronized() || after(ack, self.life.sent.highest) {
            return None;
        }
        let ring = self.config.buffer;
        let (ahead, behind) = (segment.seq.wrapping_sub(next) as usize, next.wrapping_sub(segment.seq) as usize);
        let repeats = behind <= ring && !after(segment.end(), next) && after(ack, self.acked_up_to());
        (repeats || ahead <= 2 * ring).then_some(Bare {
            local: segment.source,
            remote: segment.destination,
            control: TcpControl::None,
            seq: next,
            ack: Some(ack),
            window: segment.window,
        })
    }

    /// Repeats what we expect and offer.
    fn challenge(&mut self, stack: &mut Stack, now: Instant, out: &mut impl Output) {
        if now < self.life.next_challenge {
            return;
        }
        self.life.next_challenge = now + CHALLENGE_INTERVAL;
        self.life.hold = None;
        if self.owes_ack() && self.transmit(stack, now, out, 1) == 1 {
            return;
        }
        let Some((local, remote)) = self.life.tuple else { return };
        let window = self.offered();
        let sent = &mut self.life.sent;
        let bare = Bare { local, remote, control: TcpControl::None, seq: sent.next, ack: Some(sent.ack), window };
        if out.ready(bare.len()) {
            out.packet(bare.len(), &mut |packet| {
                bare.write(packet);
                sent.segments += 1;
            });
        }
    }
}

impl Connection {
    /// The window field that repeats what was offered last. The window of a SYN is not scaled, that
    /// of all other segments may be: then it is better to offer less than more.
    fn offered(&self) -> u16 {
        match self.life.sent.syn {
            true => self.life.sent.window >> self.life.scale.min(15),
            false => self.life.sent.window,
        }
    }
}

/// The answer of a closed connection.
fn refuse(packet: &[u8], out: &mut impl Output) {
    let mut rst = [0; MAX_BARE];
    if let Some(len) = rst_for(packet, &mut rst)
        && out.ready(len)
    {
        out.packet(len, &mut |slot| slot.copy_from_slice(&rst[..len]));
    }
}
