//! The state machine of a session: one function a state, called until nothing moves any more. Those
//! of the states before it stands are in [`open`](super::open).

use snapshot::{CloseReason, DropReason, RefuseReason};
use tcp_stack::End;

use super::leg::{Leg, Sent};
use super::relay::{self, Broken, Flow, Moved};
use super::{Balanced, Context, Next, Session, State};
use crate::io::PacketIo;
use crate::stats::{Report, Total};
use crate::time::{Duration, Instant};

/// State changes in one step; more than a session has states.
const ROUNDS: usize = 8;

/// What one state's function found.
pub(super) enum Progress {
    /// Nothing more to do until something arrives.
    Stuck,
    /// The state changed.
    Moved,
    /// There is more to do, and others are due first.
    Yield,
    /// Crypto is due, and the turn's budget for it is spent.
    Queue,
}

impl Session {
    /// Does all that can be done now: moves bytes, changes state, sends segments.
    pub fn step<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Next {
        // Nothing begins under a snapshot that is no longer in force; what relays is reviewed in turn.
        if self.compiled.version != cx.compiled.version && self.state != State::Relaying {
            self.review(cx);
        }
        let mut progress = Progress::Moved;
        for _ in 0..ROUNDS {
            progress = self.advance(cx);
            if !matches!(progress, Progress::Moved) {
                break;
            }
        }
        let more = self.transmit(cx) == Sent::More;
        // A RST or the last ACK may just have left.
        if self.ending.is_some() && self.is_over(cx.now.mono) {
            return Next::Free;
        }
        match progress {
            // Acknowledgements, retransmissions and its deadline do not wait for its turn.
            Progress::Queue => Next::Queue(if more { Some(cx.now.mono) } else { self.wake_at(cx) }),
            Progress::Yield => Next::Again,
            // Its last acknowledgement has just left.
            Progress::Moved | Progress::Stuck if self.has_finished() => Next::Again,
            Progress::Moved | Progress::Stuck if more => Next::Again,
            Progress::Moved | Progress::Stuck => Next::Wait(self.wake_at(cx)),
        }
    }

    fn advance<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        if self.state != State::Closing && self.check_deadline(cx) {
            return Progress::Moved;
        }
        if self.caller_gone && !self.has_ended() {
            self.refuse(RefuseReason::CallerGone, None, cx);
        } else if self.unreachable && !self.has_ended() {
            return self.fail_connect(RefuseReason::Unreachable, None, cx);
        }
        if self.state == State::Relaying && self.check_life(cx) {
            return Progress::Moved;
        }
        match self.state {
            State::Dialing => self.dial(cx),
            State::HandshakeUp => self.handshake_up(cx),
            State::Accepting => self.accept(cx),
            State::Detecting => self.detect(cx),
            State::HandshakeDown => self.handshake_down(cx),
            State::Relaying => self.relay(cx),
            State::Closing => self.linger(),
        }
    }

    pub(super) fn enter<P: PacketIo>(&mut self, state: State, cx: &Context<'_, P>) -> Progress {
        self.state = state;
        self.deadline = state.limit(cx.timeouts).map(|(limit, _)| cx.now.mono + Duration::from(limit));
        Progress::Moved
    }

    fn check_deadline<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> bool {
        let limit = self.state.limit(cx.timeouts);
        if self.deadline.is_none()
            && let Some((limit, _)) = limit
        {
            self.deadline = Some(cx.now.mono + Duration::from(limit));
        }
        if self.deadline.is_none_or(|deadline| cx.now.mono < deadline) {
            return false;
        }
        match limit {
            Some((_, reason)) if matches!(self.state, State::Dialing | State::HandshakeUp) => {
                self.fail_connect(reason, None, cx);
            }
            Some((_, reason)) => self.refuse(reason, None, cx),
            None if self.state == State::Relaying => self.close(CloseReason::HalfCloseTimeout, None, cx),
            None => return false,
        }
        true
    }

    fn relay<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        let up = self.up.as_mut().expect("what is relayed has two legs");
        let before = (self.request, self.response);
        let (request, response) = (&mut self.request, &mut self.response);
        let moved = both_ways(&mut self.down, up, request, response);
        cx.mailbox.counters.add(Total::BytesSent, self.request.moved - before.0.moved);
        cx.mailbox.counters.add(Total::BytesReceived, self.response.moved - before.1.moved);
        match moved {
            Err(broken) => {
                self.break_off(broken, cx);
                Progress::Moved
            }
            Ok(moved) => {
                if let Some(reason) = self.cut_off() {
                    self.close(reason, None, cx);
                    return Progress::Moved;
                }
                if self.spoke_too_late() {
                    self.close(CloseReason::MaxAge, Some("the caller sent more when the service was told its end"), cx);
                    return Progress::Moved;
                }
                if self.has_finished() {
                    self.close(self.life.ended(), None, cx);
                    return Progress::Moved;
                }
                self.watch_half_close(moved != Moved::Nothing, cx);
                if moved == Moved::More { Progress::Yield } else { Progress::Stuck }
            }
        }
    }

    /// Why a leg ended that should not have yet.
    fn cut_off(&self) -> Option<CloseReason> {
        let up = self.up.as_ref().expect("what is relayed has two legs");
        let reason = |leg: &Leg, reset| match leg.conn.ended()? {
            End::Reset => Some(reset),
            End::UserTimeout if leg.conn.unacked() == 0 => Some(CloseReason::IdleTimeout),
            End::UserTimeout => Some(CloseReason::UserTimeout),
            End::Aborted | End::Finished => None,
        };
        reason(&self.down, CloseReason::ResetByClient).or_else(|| reason(up, CloseReason::ResetByServer))
    }

    /// Both sides have ended in order, and it has not been told yet.
    fn has_finished(&self) -> bool {
        self.state == State::Relaying && self.request.finished && self.response.finished && self.both_over()
    }

    pub(super) fn both_over(&self) -> bool {
        self.down.is_over() && self.up.as_ref().is_none_or(Leg::is_over)
    }

    fn watch_half_close<P: PacketIo>(&mut self, moved: bool, cx: &Context<'_, P>) {
        if self.request.finished || self.response.finished {
            if moved || self.deadline.is_none() {
                self.deadline = Some(cx.now.mono + Duration::from(cx.timeouts.half_close));
            }
        } else {
            self.deadline = None;
        }
    }

    fn linger(&mut self) -> Progress {
        self.down.flush_tls();
        if let Some(up) = &mut self.up {
            up.flush_tls();
        }
        Progress::Stuck
    }

    fn transmit<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Sent {
        let mut sent = Sent::All;
        let legs = std::iter::once(&mut self.down).filter(|_| self.answered).chain(self.up.as_mut());
        for leg in legs {
            if leg.mac.is_none() {
                resolve(leg, cx);
            }
            let source_mac = cx.paths.link(leg.port).map(|link| link.mac);
            if leg.transmit(cx.io, cx.stack, source_mac, &cx.mailbox.counters, cx.now.mono) == Sent::More {
                sent = Sent::More;
            }
        }
        sent
    }

    fn is_over(&self, now: Instant) -> bool {
        let down_over = !self.answered || self.down.is_over();
        let timed_out = self.linger_until().is_some_and(|deadline| now >= deadline);
        timed_out || (down_over && self.up.as_ref().is_none_or(Leg::is_over))
    }

    fn wake_at<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Option<Instant> {
        let down = if self.answered { self.down.conn.poll_at(cx.stack, cx.now.mono) } else { None };
        let up = self.up.as_mut().and_then(|up| up.conn.poll_at(cx.stack, cx.now.mono));
        // Detection only waits for its deadline once.
        let deadline = self.deadline.filter(|&at| self.state != State::Detecting || at > cx.now.mono);
        let life = self.life.next().filter(|_| self.state == State::Relaying);
        let patience = self.balanced.as_ref().and_then(Balanced::wakes_at).filter(|_| self.state == State::Dialing);
        [down, up, deadline, life, patience].into_iter().flatten().min()
    }
}

fn both_ways(down: &mut Leg, up: &mut Leg, request: &mut Flow, response: &mut Flow) -> Result<Moved, Broken> {
    let there = relay::relay(down, up, request)?;
    let back = relay::relay(up, down, response)?;
    Ok(match (there, back) {
        (Moved::More, _) | (_, Moved::More) => Moved::More,
        (Moved::Nothing, Moved::Nothing) => Moved::Nothing,
        (Moved::Some | Moved::Nothing, Moved::Some | Moved::Nothing) => Moved::Some,
    })
}

/// Asks for the MAC of a leg's next hop, and takes it when it is known.
fn resolve<P: PacketIo>(leg: &mut Leg, cx: &Context<'_, P>) {
    let Some(hop) = cx.paths.to(leg.remote.ip()).filter(|hop| hop.port == leg.port) else { return };
    leg.mac = hop.mac;
    if hop.mac.is_none() {
        cx.mailbox.counters.drop(DropReason::NoNextHop);
        cx.mailbox.report(Report::Resolve { port: hop.port, address: hop.neighbour });
    }
}
