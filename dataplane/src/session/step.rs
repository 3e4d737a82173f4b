//! The state machine of a session: one function a state, called until nothing moves any more.

use snapshot::{CloseReason, DropReason, RefuseReason};
use tcp_stack::{End, State as Tcp};

use super::leg::{Leg, Sent};
use super::relay::{self, Broken, Flow, Moved};
use super::{Context, Next, Order, Session, Speech, State};
use crate::flow::{self, FlowRef};
use crate::io::PacketIo;
use crate::policy::{Route, Standing, Verdict, decide};
use crate::stats::{Report, Total};
use crate::time::{Duration, Instant};
use crate::tls::{Failure, TlsLeg};

/// State changes in one step; more than a session has states.
const ROUNDS: usize = 8;

/// A service that speaks first is held back this long, or two round trips, for the caller to show
/// whether it speaks TLS (D12).
const DETECTION: Duration = Duration::from_millis(20);

/// What one state's function found.
enum Progress {
    /// Nothing more to do until something arrives.
    Stuck,
    /// The state changed.
    Moved,
    /// There is more to do, and others are due first.
    Yield,
}

impl Session {
    /// Does all that can be done now: moves bytes, changes state, sends segments.
    pub fn step<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Next {
        // Nothing begins under a snapshot that is no longer in force; what relays is reviewed in turn.
        if self.compiled.version != cx.compiled.version && self.state != State::Relaying {
            self.review(cx);
        }
        let mut again = false;
        for _ in 0..ROUNDS {
            match self.advance(cx) {
                Progress::Moved => {}
                Progress::Stuck => break,
                Progress::Yield => {
                    again = true;
                    break;
                }
            }
        }
        again |= self.transmit(cx) == Sent::More;
        // A RST or the last ACK may just have left.
        if self.ending.is_some() && self.is_over(cx.now.mono) {
            return Next::Free;
        }
        if again { Next::Again } else { Next::Wait(self.wake_at(cx)) }
    }

    fn advance<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        if self.state != State::Closing && self.check_deadline(cx) {
            return Progress::Moved;
        }
        if self.caller_gone && !self.has_ended() {
            self.refuse(RefuseReason::CallerGone, None, cx);
        } else if self.unreachable && !self.has_ended() {
            self.refuse(RefuseReason::Unreachable, None, cx);
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

    fn enter<P: PacketIo>(&mut self, state: State, cx: &Context<'_, P>) -> Progress {
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
            Some((_, reason)) => self.refuse(reason, None, cx),
            None if self.state == State::Relaying => self.close(CloseReason::HalfCloseTimeout, None, cx),
            None => return false,
        }
        true
    }

    /// Our SYN goes out; then what comes back decides.
    fn dial<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        if self.up.is_none()
            && let Err(reason) = self.connect(cx)
        {
            self.refuse(reason, None, cx);
            return Progress::Moved;
        }
        if self.plan.order == Order::DownFirst && self.down.conn.ended().is_some() {
            self.refuse(RefuseReason::CallerGone, None, cx);
            return Progress::Moved;
        }
        match dialed(self.up.as_ref()) {
            Dialed::Waiting => Progress::Stuck,
            Dialed::Failed(reason) => {
                self.refuse(reason, None, cx);
                Progress::Moved
            }
            Dialed::Stands => match (self.plan.order, self.plan.up) {
                (Order::DownFirst, _) => self.begin_relay(cx),
                (Order::UpFirst, Speech::Tls) => self.originate_tls(cx),
                (Order::UpFirst, Speech::Plain | Speech::Detect) => self.answer(cx),
            },
        }
    }

    /// Makes the up leg and puts both flows into steering before the SYN can leave.
    fn connect<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Result<(), RefuseReason> {
        let (client, server) = (self.down.remote, self.down.local);
        let hop = cx.paths.to(server.ip()).ok_or(RefuseReason::Unreachable)?;
        let mut conn = cx.pool.take().ok_or(RefuseReason::SessionsFull)?;
        // The far side's TIME-WAIT takes a reused port back only for a higher sequence number, which
        // the caller's own kernel has chosen (D1).
        conn.connect(cx.stack, client, server, self.syn.sequence, hop.mtu, cx.now.mono);
        let up = Leg::new(hop.port, client, server, conn, hop.mac, hop.mtu);
        let key = up.key();
        if hop.mac.is_none() {
            cx.mailbox.report(Report::Resolve { port: hop.port, address: hop.neighbour });
        }
        // The far side may be calling the very same tuple (simultaneous open): that call was first.
        let taken = matches!(cx.flows.find(&key), Some(FlowRef::Live { .. }));
        if taken || !cx.flows.has_room(1) || !cx.io.steer(up.port, server, client) {
            cx.pool.give(up.conn);
            return Err(if taken { RefuseReason::ConnectRefused } else { RefuseReason::FlowsFull });
        }
        cx.flows.insert(key, FlowRef::Live { session: cx.index, leg: flow::Leg::Up });
        self.up = Some(up);
        Ok(())
    }

    fn originate_tls<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        match TlsLeg::originate(&self.compiled, &self.route, self.down.local, cx.now.unix()) {
            Ok(tls) => {
                cx.counters().add(Total::Handshakes, 1);
                self.tls_version = self.compiled.version;
                self.up.as_mut().expect("it stands").tls = Some(Box::new(tls));
                self.enter(State::HandshakeUp, cx)
            }
            Err(reason) => {
                self.refuse(reason, None, cx);
                Progress::Moved
            }
        }
    }

    fn handshake_up<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        let up = self.up.as_mut().expect("handshakes have a leg");
        let result = match shake_hands(up, cx.handshakes) {
            Ok(Some(())) => Ok(()),
            Ok(None) => return Progress::Yield,
            Err(failure) => Err(failure),
        };
        let gone = up.conn.ended().is_some() || (up.conn.fin_received() && up.conn.received() == 0);
        let handshaking = up.tls.as_ref().is_some_and(|tls| tls.handshaking());
        match result {
            Err(failure) => self.fail_handshake(failure, cx),
            Ok(()) if handshaking && gone => self.refuse(RefuseReason::RefusedByPeer, Some("the far side hung up"), cx),
            Ok(()) if handshaking => return Progress::Stuck,
            Ok(()) => {
                if self.authorised(flow::Leg::Up, cx) {
                    return self.answer(cx);
                }
            }
        }
        Progress::Moved
    }

    /// Answers the caller's SYN at last: the far side stands.
    fn answer<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        if self.accept_syn(cx) {
            self.enter(State::Accepting, cx)
        } else {
            self.refuse(RefuseReason::CallerGone, Some("its SYN could not be used"), cx);
            Progress::Moved
        }
    }

    fn accept_syn<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> bool {
        let down = &mut self.down;
        let isn = cx.stack.isn(down.local, down.remote, cx.now.mono);
        let source_mac = cx.paths.link(down.port).map(|link| link.mac);
        let mut out = down.output(cx.io, source_mac, &cx.mailbox.counters);
        self.accepted_at = cx.now.mono;
        self.answered = down.conn.accept(
            cx.stack,
            down.local,
            down.remote,
            isn,
            down.mtu,
            self.syn.packet(),
            cx.now.mono,
            &mut out,
        );
        self.answered
    }

    fn accept<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        if !self.answered {
            return self.answer(cx);
        }
        match self.down.conn.state() {
            _ if self.down.conn.ended().is_some() => {
                self.refuse(RefuseReason::CallerGone, None, cx);
                Progress::Moved
            }
            Tcp::SynReceived | Tcp::SynSent | Tcp::Closed => Progress::Stuck,
            Tcp::Established
            | Tcp::CloseWait
            | Tcp::FinWait1
            | Tcp::FinWait2
            | Tcp::Closing
            | Tcp::LastAck
            | Tcp::TimeWait => match (self.plan.order, self.plan.down) {
                (Order::UpFirst, _) => self.begin_relay(cx),
                (Order::DownFirst, Speech::Tls) => self.accept_tls(cx),
                (Order::DownFirst, Speech::Detect) => self.begin_detection(cx),
                (Order::DownFirst, Speech::Plain) => self.enter(State::Dialing, cx),
            },
        }
    }

    fn accept_tls<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        let accepted = match self.route {
            Route::Inbound { workload, port, mode } => {
                TlsLeg::accept(&self.compiled, workload, port, mode, cx.now.unix())
            }
            Route::Egress { .. } | Route::Local { .. } | Route::Plain { .. } | Route::Refuse { .. } => {
                unreachable!("only inbound calls have TLS on the down leg")
            }
        };
        match accepted {
            Ok(tls) => {
                cx.counters().add(Total::Handshakes, 1);
                self.tls_version = self.compiled.version;
                self.down.tls = Some(Box::new(tls));
                self.enter(State::HandshakeDown, cx)
            }
            Err(reason) => {
                self.refuse(reason, None, cx);
                Progress::Moved
            }
        }
    }

    fn begin_detection<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        if let Err(reason) = self.connect(cx) {
            self.refuse(reason, None, cx);
            return Progress::Moved;
        }
        let round_trip = cx.now.mono - self.accepted_at;
        self.state = State::Detecting;
        self.deadline = Some(cx.now.mono + DETECTION.max(round_trip * 2));
        Progress::Moved
    }

    /// The caller's first bytes decide; a service that speaks into a caller's silence does too.
    fn detect<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        let caller = first_bytes(&mut self.down);
        let up = dialed(self.up.as_ref());
        if let Dialed::Failed(reason) = up {
            self.refuse(reason, None, cx);
            return Progress::Moved;
        }
        if self.down.conn.ended().is_some() {
            self.refuse(RefuseReason::CallerGone, None, cx);
            return Progress::Moved;
        }
        let waited = self.deadline.is_some_and(|until| cx.now.mono >= until);
        let service_spoke = self.up.as_ref().is_some_and(|up| up.conn.received() > 0 || up.conn.fin_received());
        match caller {
            FirstBytes::Tls => self.accept_tls(cx),
            FirstBytes::None if !(waited && service_spoke) => Progress::Stuck,
            FirstBytes::None | FirstBytes::Plain => match up {
                Dialed::Stands => self.relay_plain(cx),
                Dialed::Waiting | Dialed::Failed(_) => Progress::Stuck,
            },
        }
    }

    /// A plain caller under PERMISSIVE is served, if policy has nothing against it.
    fn relay_plain<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        match decide(&self.compiled, &self.route, None) {
            Verdict::Allow(rule) => {
                self.rule = rule;
                self.standing = Some(Standing::new(&self.compiled, &self.route, false, None));
                cx.counters().add(Total::RelayedPlain, 1);
                self.begin_relay(cx)
            }
            Verdict::Refuse(reason, rule) => {
                self.rule = rule;
                self.refuse(reason, None, cx);
                Progress::Moved
            }
        }
    }

    fn handshake_down<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        if self.down.conn.received() > 0 && !self.down.fed && first_bytes(&mut self.down) == FirstBytes::Plain {
            self.refuse(RefuseReason::PlaintextRefused, None, cx);
            return Progress::Moved;
        }
        let result = match shake_hands(&mut self.down, cx.handshakes) {
            Ok(Some(())) => Ok(()),
            Ok(None) => return Progress::Yield,
            Err(failure) => Err(failure),
        };
        let down = &self.down;
        let gone = down.conn.ended().is_some() || (down.conn.fin_received() && down.conn.received() == 0);
        let handshaking = down.tls.as_ref().is_some_and(|tls| tls.handshaking());
        match result {
            Err(failure) => self.fail_handshake(failure, cx),
            Ok(()) if handshaking && gone => self.refuse(RefuseReason::CallerGone, None, cx),
            Ok(()) if handshaking => return Progress::Stuck,
            Ok(()) => {
                if self.authorised(flow::Leg::Down, cx) {
                    return self.enter(State::Dialing, cx);
                }
            }
        }
        Progress::Moved
    }

    fn begin_relay<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        cx.counters().add(Total::SessionsRelayed, 1);
        match self.plan.direction {
            snapshot::Direction::Local => cx.counters().add(Total::RelayedLocal, 1),
            snapshot::Direction::Egress if self.plan.up == Speech::Plain => cx.counters().add(Total::RelayedPlain, 1),
            snapshot::Direction::Egress | snapshot::Direction::Inbound => {}
        }
        self.enter(State::Relaying, cx)
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
                if self.request.finished && self.response.finished && self.both_over() {
                    self.close(CloseReason::Finished, None, cx);
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

    fn both_over(&self) -> bool {
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
        [down, up, deadline].into_iter().flatten().min()
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

/// Ciphertext in, crypto, ciphertext out. None: the turn's budget for crypto is spent.
fn shake_hands(leg: &mut Leg, budget: &mut u32) -> Result<Option<()>, Failure> {
    if leg.conn.received() > 0 {
        if *budget == 0 {
            return Ok(None);
        }
        *budget -= 1;
    }
    let fed = leg.feed_tls();
    leg.flush_tls();
    fed.map(|_| Some(()))
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

enum Dialed {
    Waiting,
    Stands,
    Failed(RefuseReason),
}

fn dialed(up: Option<&Leg>) -> Dialed {
    let Some(up) = up else { return Dialed::Waiting };
    match (up.conn.ended(), up.conn.state()) {
        (Some(End::Reset), _) => Dialed::Failed(RefuseReason::ConnectRefused),
        (Some(End::UserTimeout | End::Aborted | End::Finished), _) => Dialed::Failed(RefuseReason::ConnectTimeout),
        (None, Tcp::SynSent | Tcp::SynReceived | Tcp::Closed) => Dialed::Waiting,
        (
            None,
            Tcp::Established
            | Tcp::CloseWait
            | Tcp::FinWait1
            | Tcp::FinWait2
            | Tcp::Closing
            | Tcp::LastAck
            | Tcp::TimeWait,
        ) => Dialed::Stands,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstBytes {
    None,
    Tls,
    Plain,
}

/// A TLS record of a ClientHello starts with 22, 3 (RFC 8446 §5.1); nothing that people run starts
/// so in clear.
fn first_bytes(leg: &mut Leg) -> FirstBytes {
    let ended = leg.conn.fin_received();
    leg.conn.recv(|bytes| {
        let seen = match bytes {
            [] if ended => FirstBytes::Plain,
            [] => FirstBytes::None,
            [22] if !ended => FirstBytes::None,
            [22, 3, ..] => FirstBytes::Tls,
            [..] => FirstBytes::Plain,
        };
        (0, seen)
    })
}
