//! How a session comes to stand: dialing, handshakes, detection, one function a state.

use snapshot::RefuseReason;
use tcp_stack::{End, State as Tcp};

use super::leg::Leg;
use super::origin::Origin;
use super::step::Progress;
use super::{Context, Order, Session, Speech, State};
use crate::flow::{self, FlowRef};
use crate::io::PacketIo;
use crate::policy::{Standing, Verdict, decide, why_not};
use crate::stats::{Report, Total};
use crate::time::Duration;
use crate::tls::{Failure, TlsLeg};

/// A service that speaks first is held back this long, or two round trips, for the caller to show
/// whether it speaks TLS (D12).
const DETECTION: Duration = Duration::from_millis(20);

/// A service that waits for a header that says who calls cannot speak first. A caller who is silent for so
/// long is plain: one that speaks TLS has said so by then, also if its first segment was lost once.
const SILENCE: Duration = Duration::from_millis(1_500);

impl Session {
    /// Our SYN goes out; then what comes back decides.
    pub(super) fn dial<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        if self.up.is_none()
            && let Some(instead) = self.begin_connect(cx)
        {
            return instead;
        }
        if self.answered && self.down.conn.ended().is_some() {
            self.refuse(RefuseReason::CallerGone, None, cx);
            return Progress::Moved;
        }
        match dialed(self.up.as_ref()) {
            Dialed::Waiting if self.has_waited(cx) => Progress::Moved,
            Dialed::Waiting => Progress::Stuck,
            Dialed::Failed(reason) => self.fail_connect(reason, None, cx),
            Dialed::Stands if self.answered => {
                self.has_connected(cx);
                self.begin_relay(cx)
            }
            Dialed::Stands => match (self.plan.order, self.plan.up) {
                (Order::DownFirst, _) => unreachable!("who is answered first has been"),
                (Order::UpFirst, Speech::Tls) => self.originate_tls(cx),
                (Order::UpFirst, Speech::Plain | Speech::Detect) => {
                    self.has_connected(cx);
                    self.answer(cx)
                }
            },
        }
    }

    /// None: the up leg is begun. Else what came of it instead.
    fn begin_connect<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Option<Progress> {
        match self.connect(cx) {
            Ok(Connected::Begun) => None,
            Ok(Connected::Later) => Some(Progress::Queue),
            Err(RefuseReason::Unreachable) => Some(self.fail_connect(RefuseReason::Unreachable, None, cx)),
            Err(reason) => {
                self.refuse(reason, None, cx);
                Some(Progress::Moved)
            }
        }
    }

    /// Makes the up leg and puts its flow into steering before the SYN can leave.
    fn connect<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Result<Connected, RefuseReason> {
        let server = self.destination();
        let hop = cx.paths.to(server.ip()).ok_or(RefuseReason::Unreachable)?;
        if !self.leads_to_callee(&cx.ports[usize::from(hop.port.0)].interface) {
            return Err(RefuseReason::Unreachable);
        }
        let Some(Origin { local, isn }) = self.origin(hop.port, cx)? else { return Ok(Connected::Later) };
        let mut conn = cx.pool.take().ok_or(RefuseReason::SessionsFull)?;
        conn.connect(cx.stack, local, server, isn, hop.mtu, cx.now.mono);
        let up = Leg::new(hop.port, local, server, conn, hop.mac, hop.mtu);
        let key = up.key();
        if hop.mac.is_none() {
            cx.mailbox.report(Report::Resolve { port: hop.port, address: hop.neighbour });
        }
        // The far side may be calling the very same tuple (simultaneous open): that call was first.
        let taken = matches!(cx.flows.find(&key), Some(FlowRef::Live { .. }));
        if taken || !cx.flows.has_room(1) || !cx.io.steer(up.port, server, local) {
            cx.pool.give(up.conn);
            return Err(if taken { RefuseReason::ConnectRefused } else { RefuseReason::FlowsFull });
        }
        cx.flows.insert(key, FlowRef::Live { session: cx.index, leg: flow::Leg::Up });
        self.up = Some(up);
        self.begin_patience(cx);
        Ok(Connected::Begun)
    }

    fn originate_tls<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        match TlsLeg::originate(&self.compiled, &self.route, self.destination(), cx.now.unix()) {
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

    pub(super) fn handshake_up<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        let up = self.up.as_mut().expect("handshakes have a leg");
        // Of one that is gone only its last word matters, an alert, which costs nothing.
        let over = up.conn.ended().is_some();
        if over && up.conn.received() > ALERT {
            return self.fail_connect(RefuseReason::RefusedByPeer, Some("the far side hung up"), cx);
        }
        let mut free = 1;
        let result = match shake_hands(up, if over { &mut free } else { cx.handshakes }) {
            Ok(Some(())) => Ok(()),
            Ok(None) => return Progress::Queue,
            Err(failure) => Err(failure),
        };
        let gone = up.conn.ended().is_some() || (up.conn.fin_received() && up.conn.received() == 0);
        let handshaking = up.tls.as_ref().is_some_and(|tls| tls.handshaking());
        match result {
            Err(failure) => self.fail_handshake(failure, cx),
            Ok(()) if handshaking && gone => {
                return self.fail_connect(RefuseReason::RefusedByPeer, Some("the far side hung up"), cx);
            }
            Ok(()) if handshaking => return Progress::Stuck,
            Ok(()) => {
                self.has_connected(cx);
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

    pub(super) fn accept<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        if !self.answered {
            return self.answer(cx);
        }
        match self.down.conn.state() {
            _ if self.down.conn.ended().is_some() && self.may_bypass() => self.relay_plain(cx),
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
                (Order::UpFirst, Speech::Detect) => self.begin_detection(cx),
                (Order::UpFirst, _) => self.begin_relay(cx),
                (Order::DownFirst, Speech::Tls) => self.accept_tls(cx),
                (Order::DownFirst, Speech::Detect) => self.begin_detection(cx),
                (Order::DownFirst, Speech::Plain) => self.enter(State::Dialing, cx),
            },
        }
    }

    fn accept_tls<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        match TlsLeg::accept(&self.compiled, &self.route, cx.now.unix()) {
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
        if self.up.is_none()
            && let Some(instead) = self.begin_connect(cx)
        {
            return instead;
        }
        let round_trip = cx.now.mono - self.accepted_at;
        self.state = State::Detecting;
        let least = if self.is_announced() { SILENCE } else { DETECTION };
        self.deadline = Some(cx.now.mono + least.max(round_trip * 2));
        Progress::Moved
    }

    /// The caller's first bytes decide; a service that speaks into a caller's silence does too.
    pub(super) fn detect<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        let caller = first_bytes(&mut self.down);
        let up = dialed(self.up.as_ref());
        if let Dialed::Failed(reason) = up {
            self.refuse(reason, None, cx);
            return Progress::Moved;
        }
        if self.down.conn.ended().is_some() {
            if self.may_bypass() && caller != FirstBytes::Tls {
                return self.relay_plain(cx);
            }
            self.refuse(RefuseReason::CallerGone, None, cx);
            return Progress::Moved;
        }
        let waited = self.deadline.is_some_and(|until| cx.now.mono >= until);
        let service_spoke = self.up.as_ref().is_some_and(|up| up.conn.received() > 0 || up.conn.fin_received());
        match caller {
            FirstBytes::Tls => self.accept_tls(cx),
            FirstBytes::None if !(waited && (service_spoke || self.is_announced())) => Progress::Stuck,
            FirstBytes::None | FirstBytes::Plain => match up {
                Dialed::Stands => self.relay_plain(cx),
                Dialed::Waiting | Dialed::Failed(_) => Progress::Stuck,
            },
        }
    }

    /// A plain caller under PERMISSIVE is served, if policy has nothing against it.
    fn relay_plain<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        let verdict = decide(&self.compiled, &self.route, None);
        self.note_verdict(verdict, cx);
        match verdict {
            Verdict::Allow(rule) => {
                self.rule = rule;
                self.standing = Some(Standing::new(&self.compiled, &self.route, false, None));
                cx.counters().add(Total::RelayedPlain, 1);
                self.begin_relay(cx)
            }
            Verdict::Refuse(reason, rule) => {
                self.rule = rule;
                let detail = why_not(&self.compiled, &self.route, (reason, rule), None);
                self.refuse(reason, detail.as_deref(), cx);
                Progress::Moved
            }
        }
    }

    pub(super) fn handshake_down<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Progress {
        if self.down.conn.received() > 0 && !self.down.fed && first_bytes(&mut self.down) == FirstBytes::Plain {
            self.refuse(RefuseReason::PlaintextRefused, None, cx);
            return Progress::Moved;
        }
        // Nobody is there to spend crypto on.
        if self.down.conn.ended().is_some() {
            self.refuse(RefuseReason::CallerGone, None, cx);
            return Progress::Moved;
        }
        let result = match shake_hands(&mut self.down, cx.handshakes) {
            Ok(Some(())) => Ok(()),
            Ok(None) => return Progress::Queue,
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
        self.announce(cx);
        self.note_admission(cx);
        cx.counters().add(Total::SessionsRelayed, 1);
        match self.plan.direction {
            snapshot::Direction::Local => cx.counters().add(Total::RelayedLocal, 1),
            snapshot::Direction::Egress if self.plan.up == Speech::Plain => cx.counters().add(Total::RelayedPlain, 1),
            snapshot::Direction::Egress | snapshot::Direction::Inbound => {}
        }
        self.begin_life(cx.now);
        let progress = self.enter(State::Relaying, cx);
        let (at_ms, connection) = (cx.now.unix_ms, Box::new(self.report(cx.now.unix_ms, cx.core, cx.ports, None)));
        cx.mailbox.report(Report::Stood { at_ms, connection });
        progress
    }
}

/// An encrypted alert has 24 bytes (RFC 8446 §5.2 and §6); nothing with a signature in it is so short.
const ALERT: usize = 64;

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

enum Connected {
    /// Our SYN may leave.
    Begun,
    /// No port was found with what may be spent on it in this turn.
    Later,
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
