//! One end of one TCP connection, and its life: opened, fed, asked, ended, reused.
//!
//! The engine is a smoltcp socket. Beside it the connection counts sequence numbers along
//! (`life.rs`), and from these the guard (`guard.rs`) judges each segment before the engine sees it.

use std::net::SocketAddr;

use smoltcp::iface::{PollResult, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};

use crate::config::Config;
use crate::device::{Lent, Sent};
use crate::end::{End, State};
use crate::life::Life;
use crate::output::Output;
use crate::reset::HOP_LIMIT;
use crate::segment::{Segment, after};
use crate::stack::{MIN_MTU, MIN_MTU_V6, Stack};

/// One end of a TCP connection. All its memory is taken in [`Connection::new`]; a connection that
/// is over goes back to its pool with [`Connection::reset`] and lives again.
pub struct Connection {
    pub(crate) sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub(crate) config: Config,
    pub(crate) life: Life,
}

impl Connection {
    /// A closed connection. The rings' memory is asked for here, and committed by the kernel as it
    /// is first touched.
    pub fn new(config: &Config) -> Self {
        let ring = || tcp::SocketBuffer::new(vec![0; config.buffer]);
        let mut socket = tcp::Socket::new(ring(), ring());
        socket.set_nagle_enabled(false);
        socket.set_hop_limit(Some(HOP_LIMIT));
        socket.set_keep_alive(config.keep_alive);
        // Both are done here, with more care: `hold_ack`, `deadline`.
        socket.set_ack_delay(None);
        socket.set_timeout(None);
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let handle = sockets.add(socket);
        let mut connection = Self { sockets, handle, config: config.clone(), life: Life::none() };
        connection.reset();
        connection
    }

    /// Opens actively: the SYN, with `isn` as its sequence number, leaves at the next `transmit`.
    /// Both addresses are of one family and have a port, or the connection is `Aborted` at once.
    pub fn connect(
        &mut self,
        stack: &mut Stack,
        local: SocketAddr,
        remote: SocketAddr,
        isn: u32,
        mtu: usize,
        now: Instant,
    ) {
        self.begin(local, remote, isn, mtu);
        let mut engine = stack.interface_for_isn(isn, self.life.mtu, now);
        if self.socket_mut().connect(engine.context(), remote, local).is_err() {
            self.life.end = Some(End::Aborted);
        }
    }

    /// Opens passively for `syn`, an IP packet from `remote` to `local`: the SYN-ACK, with `isn` as
    /// its sequence number, goes to `out` now, or at a later `transmit` if `out` is not ready.
    /// `false`, and nothing sent, if this is not a usable SYN.
    #[allow(clippy::too_many_arguments)]
    pub fn accept(
        &mut self,
        stack: &mut Stack,
        local: SocketAddr,
        remote: SocketAddr,
        isn: u32,
        mtu: usize,
        syn: &[u8],
        now: Instant,
        out: &mut impl Output,
    ) -> bool {
        self.begin(local, remote, isn, mtu);
        let fits = |s: &Segment| s.opens() && s.source == remote && s.destination == local;
        let Some(segment) = Segment::parse(syn).filter(fits) else {
            self.reset();
            return false;
        };
        self.hear_syn(&segment);
        let mut engine = stack.interface_for_isn(isn, self.life.mtu, now);
        if self.socket_mut().listen(local).is_ok() {
            let mut device = Lent::ingress(syn, out, &mut self.life.sent);
            engine.poll_ingress_single(now, &mut device, &mut self.sockets);
        }
        if self.state() != State::SynReceived {
            self.reset();
            return false;
        }
        self.transmit(stack, now, out, 1);
        true
    }

    /// Writes the segments that are due, `budget` at most and while `out` is ready. Returns how many.
    pub fn transmit(&mut self, stack: &mut Stack, now: Instant, out: &mut impl Output, budget: usize) -> usize {
        self.keep_time(now);
        let mut made = 0;
        while made < budget && self.may_transmit(now) && out.ready(self.next_packet(stack)) {
            let at = self.engine_time(stack, now);
            let (before, questions) = (self.state(), self.life.sent.questions);
            let result = self.egress(stack, at, out);
            if before == State::TimeWait && self.state() == State::Closed {
                self.life.end = Some(End::Finished);
            }
            if self.life.sent.questions > questions {
                self.life.asked = self.life.asked.or(Some(now));
            }
            match result {
                PollResult::None => {
                    self.life.rewind = false;
                    break;
                }
                PollResult::SocketStateChanged => made += 1,
            }
            self.life.hold = None;
        }
        made
    }

    /// One turn of the engine, for one segment at most. While bytes are unacknowledged it is told to
    /// keep alive closely: of its timers only that one runs on after a retransmission timeout that
    /// met a window closed in the meantime.
    fn egress(&mut self, stack: &mut Stack, at: Instant, out: &mut impl Output) -> PollResult {
        let stuck = self.unacked() > 0;
        if stuck {
            self.socket_mut().set_keep_alive(Some(PROBE_INTERVAL));
        }
        let mut device = Lent::egress(out, &mut self.life.sent);
        let result = stack.interface(self.life.mtu).poll_egress(at, &mut device, &mut self.sockets);
        if stuck {
            let usual = self.config.keep_alive;
            self.socket_mut().set_keep_alive(usual);
        }
        result
    }

    /// The time to show the engine: after the path got narrower, and once all else is sent, that at
    /// which its retransmission timer expires.
    fn engine_time(&mut self, stack: &mut Stack, now: Instant) -> Instant {
        if !self.life.rewind {
            return now;
        }
        match stack.interface(self.life.mtu).poll_at(now, &self.sockets) {
            Some(expiry) if expiry > now => {
                self.life.rewind = false;
                expiry
            }
            Some(_) | None => now,
        }
    }

    /// When `transmit` wants to be called next; at once if that is not after `now`.
    pub fn poll_at(&mut self, stack: &mut Stack, now: Instant) -> Option<Instant> {
        if self.silent() {
            return None;
        }
        let deadline = self.deadline();
        let due = if let Some(until) = self.held(now) {
            Some(until)
        } else if self.lingers() {
            None
        } else if self.life.rewind {
            Some(now)
        } else {
            stack.interface(self.life.mtu).poll_at(now, &self.sockets).map(|at| at.max(now))
        };
        due.into_iter().chain(deadline).min()
    }

    /// A router said that packets of this path may be no longer than `mtu`: segments shrink to the
    /// largest class below it, and what is in flight is sent again at the next `transmit`. Never
    /// below 576 (IPv4) or 1280 (IPv6), and never up.
    pub fn shrink_mtu(&mut self, mtu: usize) {
        let Some((local, _)) = self.life.tuple else { return };
        let mtu = mtu.max(smallest(local));
        if mtu < self.life.mtu {
            self.life.mtu = mtu;
            self.life.rewind = self.unacked() > 0 && after(self.life.sent.highest, self.life.isn.wrapping_add(1));
        }
    }

    /// Whether `packet` is the SYN of a new life of a connection in TIME-WAIT, that RFC 9293 §3.10.7.4
    /// lets in at once: the owner then calls `accept` with it, on this connection or another.
    pub fn reopened_by(&self, packet: &[u8]) -> bool {
        self.ended() == Some(End::Finished)
            && Segment::parse(packet).is_some_and(|syn| {
                syn.opens()
                    && self.life.tuple == Some((syn.destination, syn.source))
                    && after(syn.seq, self.received_up_to())
            })
    }

    /// Bytes in sequence that wait to be read.
    pub fn received(&self) -> usize {
        self.socket().recv_queue()
    }

    /// Shows `f` the first contiguous part of what was received; `f` says how much of it it took.
    pub fn recv<R>(&mut self, f: impl FnOnce(&mut [u8]) -> (usize, R)) -> R {
        if !self.socket().can_recv() {
            return f(&mut []).1;
        }
        let mut taken = 0;
        let result = self.socket_mut().recv(|bytes| {
            let (size, result) = f(bytes);
            taken = size;
            (size, result)
        });
        self.life.consumed = self.life.consumed.wrapping_add(taken as u32);
        result.expect("a ring with bytes in it can be read")
    }

    /// Bytes that can be queued; none before the handshake's end and after `close`.
    pub fn room(&self) -> usize {
        let socket = self.socket();
        match socket.may_send() && self.life.end.is_none() && !self.life.close_later {
            true => socket.send_capacity() - socket.send_queue(),
            false => 0,
        }
    }

    /// Lends `f` the first contiguous free part of the send ring; `f` says how much of it it filled.
    pub fn send<R>(&mut self, f: impl FnOnce(&mut [u8]) -> (usize, R)) -> R {
        if self.room() == 0 {
            return f(&mut []).1;
        }
        let mut filled = 0;
        let result = self.socket_mut().send(|bytes| {
            let (size, result) = f(bytes);
            filled = size;
            (size, result)
        });
        self.life.queued = self.life.queued.wrapping_add(filled as u32);
        result.expect("a ring with room can be written")
    }

    /// Bytes in the send ring: queued, and not yet acknowledged.
    pub fn unacked(&self) -> usize {
        self.socket().send_queue()
    }

    /// Whether `sequence` is of something that we sent and that was not acknowledged: what an ICMP
    /// error may be believed about (RFC 5927 §4.1).
    pub fn in_flight(&self, sequence: u32) -> bool {
        // A SYN or FIN takes a sequence number of its own.
        let outstanding = self.unacked() as u32 + 1;
        let back = self.life.sent.next.wrapping_sub(sequence);
        self.life.tuple.is_some() && back > 0 && back <= outstanding
    }

    /// Sends a FIN after what is queued. In SYN-SENT there is nothing to finish: it aborts.
    pub fn close(&mut self) {
        match self.state() {
            State::SynSent => self.abort(),
            // The engine would take the acknowledgement of its SYN for that of its FIN.
            State::SynReceived => self.life.close_later = true,
            // In LAST-ACK the engine takes a window update for a duplicate ACK and drops it: a peer
            // that opens its window then would never get the rest.
            State::CloseWait if self.unacked() > 0 => self.life.close_later = true,
            State::Established | State::CloseWait => {
                self.life.hold = None;
                self.socket_mut().close();
            }
            State::Closed | State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck | State::TimeWait => {}
        }
    }

    /// Ends it with a RST, which leaves at the next `transmit`.
    pub fn abort(&mut self) {
        self.end_with_rst(End::Aborted);
    }

    /// Back to the pool: forgets everything, sends nothing.
    pub fn reset(&mut self) {
        let socket = self.socket_mut();
        socket.abort();
        // Of the engine's public calls only this one empties the rings.
        socket.listen(1).expect("a closed socket can listen");
        socket.abort();
        socket.set_congestion_control(tcp::CongestionControl::Cubic);
        self.life = Life::none();
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        match self.life.end {
            Some(End::Finished | End::Reset | End::UserTimeout | End::Aborted) => State::Closed,
            None => self.socket().state().into(),
        }
    }

    /// The peer's FIN is in sequence; data before it may still be unread.
    pub fn fin_received(&self) -> bool {
        self.life.fin_received
    }

    /// The peer has acknowledged our FIN.
    pub fn fin_acked(&self) -> bool {
        self.life.fin_acked
    }

    /// How it ended; `None` while it lives or still has something to send for its end.
    pub fn ended(&self) -> Option<End> {
        match self.life.end {
            Some(End::Aborted | End::UserTimeout) if self.rst_is_due() => None,
            Some(end) => Some(end),
            None if self.state() == State::TimeWait && !self.owes_ack() => Some(End::Finished),
            None => None,
        }
    }

    fn begin(&mut self, local: SocketAddr, remote: SocketAddr, isn: u32, mtu: usize) {
        self.reset();
        self.life = Life {
            tuple: Some((local, remote)),
            mtu: mtu.max(smallest(local)),
            sent: Sent::before(isn),
            isn,
            ..Life::none()
        };
    }

    /// TIME-WAIT with nothing to acknowledge. The engine would clear the receive ring when the
    /// state expires, so as long as it is not read out, the engine is not asked.
    pub(crate) fn lingers(&self) -> bool {
        self.state() == State::TimeWait && !self.owes_ack() && self.received() > 0
    }

    /// The longest packet that the engine can write now.
    fn next_packet(&self, stack: &Stack) -> usize {
        stack.class(self.life.mtu).min(MAX_HEADERS + self.unacked().max(1))
    }

    pub(crate) fn socket(&self) -> &tcp::Socket<'static> {
        self.sockets.get(self.handle)
    }

    pub(crate) fn socket_mut(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

fn smallest(local: SocketAddr) -> usize {
    match local {
        SocketAddr::V4(_) => MIN_MTU,
        SocketAddr::V6(_) => MIN_MTU_V6,
    }
}

/// An IPv6 header, a TCP header with all its options, and some slack.
const MAX_HEADERS: usize = 120;

const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// RFC 5961 §7 wants challenges throttled; one a second lets an honest peer make progress.
pub(crate) const CHALLENGE_INTERVAL: Duration = Duration::from_secs(1);
