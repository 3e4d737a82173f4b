//! The loop of a core: receive a burst, step the sessions it touched, send what came of it.
//!
//! One core owns everything in here. What comes from other threads (snapshots, next hops, commands)
//! waits in the [`Mailbox`] until the next turn; what goes to them is pushed and never waited for.
//! Time, packets and chance are arguments: the same [`Worker`] runs on rings and in a simulation.
//!
//! ```text
//!   turn: mailbox ─▶ packets ─▶ timers ─▶ sessions (established first) ─▶ flush
//! ```

mod admit;
mod attest;
mod endpoints;
pub mod handoff;
mod held;
mod mailbox;
mod patience;
mod pool;
mod receive;
mod sessions;
mod timers;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use snapshot::{Boot, Limits, Port, Timeouts, Waiting};
use tcp_stack::{Config, Stack};

pub use attest::{Asked, Told};
pub use held::{FROM_WIRE, HELD};
pub use mailbox::{Command, Mailbox};
pub use pool::Pool;

use crate::balance::Balancer;
use crate::flow::{FlowTable, Spent};
use crate::io::{PacketIo, PortId};
use crate::neigh::Paths;
use crate::snapshot::Compiled;
use crate::stats::Total;
use crate::time::{Clock, Duration, Instant, Now};
use patience::{Mix, Patience};
use sessions::Sessions;
use timers::Timers;

/// Longest sleep: upper bound on how late a gauge is.
const NAP: Duration = Duration::from_secs(1);

/// Handshake flights whose crypto is done in one turn; each takes some hundred microseconds, for which
/// established connections wait. Measured at 1 and at 4: with 4 there are a tenth more connections at
/// saturation, and a round trip beside them takes 490 instead of 410 µs in the median.
const HANDSHAKES_PER_TURN: u32 = 2;

/// Turns between two looks at what the driver itself has dropped.
const DROPS_EVERY: u64 = 64;

/// Delayed acknowledgement of a lone segment (RFC 9293 §3.8.6.3 allows up to 500 ms).
const ACK_DELAY: Duration = Duration::from_millis(10);

/// MTU classes that a path may be narrowed to by ICMP, besides those of the ports.
const MTU_LADDER: [usize; 8] = [576, 1280, 1400, 1460, 1492, 1500, 4096, 9000];

/// What is the same for all turns of a worker.
pub struct Settings {
    /// This worker's index, and how many there are.
    pub core: u32,
    pub cores: u32,
    pub ports: Vec<Port>,
    /// Whether each port is a veth, whose peer leaves checksums partial.
    pub veth: Vec<bool>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub waiting: Waiting,
    /// Seeds initial sequence numbers and the hash of the flow table.
    pub secret: [u8; 16],
}

impl Settings {
    pub fn new(boot: &Boot, core: u32, veth: Vec<bool>, secret: [u8; 16]) -> Self {
        Self {
            core,
            cores: boot.cores.0.len() as u32,
            ports: boot.ports.clone(),
            veth,
            limits: boot.limits.clone(),
            timeouts: boot.timeouts.clone(),
            waiting: boot.waiting,
            secret,
        }
    }
}

pub struct Worker<P: PacketIo, C: Clock> {
    io: P,
    clock: C,
    settings: Settings,
    mailbox: Arc<Mailbox>,
    handoff: handoff::Handoff,
    now: Now,
    stack: Stack,
    pool: Pool,
    flows: FlowTable,
    spent: Spent,
    sessions: Sessions,
    timers: Timers,
    held: held::Held,
    balancer: Balancer,
    compiled: Option<Arc<Compiled>>,
    paths: Arc<Paths>,
    upkeep: upkeep::Upkeep,
    next_id: u64,
    /// Until when segments of connections older than their capture may pass: ended flows are kept
    /// longer meanwhile, so that nothing late of theirs passes too.
    grace_until: Instant,
    /// From the order to stop on: when what still lives is reset.
    stopping: Option<Instant>,
    /// Packets that the last turn left queued.
    queued: usize,
    mix: Mix,
}

/// What a turn received.
#[derive(Debug, Clone, Copy, Default)]
struct Received {
    packets: usize,
    bytes: usize,
}

impl<P: PacketIo, C: Clock> Worker<P, C> {
    /// Takes all memory that it will ever use, but for what grows up to its limit in [`Pool`].
    pub fn new(io: P, mut clock: C, settings: Settings, mailbox: Arc<Mailbox>) -> Self {
        let now = clock.now();
        let sessions = settings.limits.sessions as usize;
        let flows = (settings.limits.flows / settings.cores) as usize;
        let tcp = Config {
            buffer: settings.limits.buffer as usize,
            keep_alive: Some(settings.timeouts.keep_alive.into()),
            user_timeout: Some(settings.timeouts.user.into()),
            ack_delay: Some(ACK_DELAY),
        };
        let seed = u64::from_le_bytes(settings.secret[..8].try_into().expect("eight bytes"));
        Self {
            stack: Stack::new(settings.secret, &mtu_classes(), now.mono),
            pool: Pool::new(tcp, 2 * sessions),
            flows: FlowTable::new(flows, seed),
            spent: Spent::new(flows / 2),
            sessions: Sessions::new(sessions),
            timers: Timers::new(sessions, now.mono),
            held: held::Held::new(),
            balancer: Balancer::new(&settings.secret, settings.core),
            compiled: None,
            paths: Arc::new(Paths::default()),
            upkeep: upkeep::Upkeep::default(),
            next_id: 1,
            grace_until: now.mono + settings.limits.pre_existing_grace.into(),
            stopping: None,
            queued: 0,
            mix: Mix::new(now.mono),
            handoff: handoff::Handoff::alone(),
            io,
            clock,
            settings,
            mailbox,
            now,
        }
    }

    /// One of several cores: frames of flows that others own go to them.
    pub fn share(&mut self, handoff: handoff::Handoff) {
        self.handoff = handoff;
    }

    /// Turns until [`Command::Stop`], or until the time of [`Command::Drain`] is over. A worker that has
    /// drained says so and turns on: what arrives on its queues may be other workers'.
    pub fn run(&mut self) {
        let mut patience = Patience::new();
        while !self.is_done() {
            if self.turn() {
                patience.found(self.now.mono, self.mix.is_bulk());
                continue;
            }
            match self.settings.waiting {
                Waiting::Adaptive if patience.is_over(self.now.mono) => self.io.wait(Some(self.nap())),
                Waiting::Adaptive | Waiting::Busy => (0..64).for_each(|_| std::hint::spin_loop()),
            }
        }
        self.mailbox.drained.store(true, Relaxed);
    }

    /// Whether it was told to stop and has: what lived too long was reset.
    pub fn is_done(&self) -> bool {
        self.stopping.is_some_and(|until| self.now.mono >= until)
    }

    /// One turn. False: there was nothing to do.
    pub fn turn(&mut self) -> bool {
        self.now = self.clock.now();
        self.read_mailbox();
        let received = self.receive().packets;
        self.expire();
        self.upkeep();
        let stepped = self.step_sessions();
        self.io.expect_more(received > 0);
        let queued = self.io.flush();
        // What does not get on is no work: it is tried again after a pause.
        let moves = queued != std::mem::replace(&mut self.queued, queued);
        self.gauge();
        if self.stopping.is_some() && self.sessions.len() == 0 {
            self.mailbox.drained.store(true, Relaxed);
        }
        received > 0 || stepped || moves || self.sessions.any_due()
    }

    /// When something is due without a packet. None: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.sessions.any_due() || self.upkeep.is_busy() || self.pool.is_over() {
            return Some(self.now.mono);
        }
        let stop = self.stopping.filter(|&until| until > self.now.mono);
        [self.timers.next(), self.spent.next(), self.upkeep.next(), self.held.next(), stop].into_iter().flatten().min()
    }

    pub fn io(&mut self) -> &mut P {
        &mut self.io
    }

    pub fn clock(&mut self) -> &mut C {
        &mut self.clock
    }

    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Sessions that live, for tests and gauges.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    fn nap(&self) -> std::time::Duration {
        let until =
            self.next_deadline().map_or(NAP, |at| if at > self.now.mono { at - self.now.mono } else { Duration::ZERO });
        until.min(NAP).into()
    }

    fn gauge(&mut self) {
        let counters = &self.mailbox.counters;
        counters.add(Total::Turns, 1);
        if counters.total(Total::Turns).is_multiple_of(DROPS_EVERY) {
            self.io.drops(&mut |reason, count| counters.drop_many(reason, count));
        }
        counters.set(Total::Sessions, self.sessions.len() as u64);
        counters.set(Total::Handshaking, self.sessions.opening() as u64);
        counters.set(Total::Flows, self.flows.len() as u64);
        counters.set(Total::EndpointsEjected, self.balancer.ejected(self.now.mono) as u64);
        let (free, all) = self.io.frames();
        counters.set(Total::FramesFree, free as u64);
        counters.set(Total::Frames, all as u64);
    }

    fn port(&self, port: PortId) -> &Port {
        &self.settings.ports[usize::from(port.0)]
    }
}

/// Every MTU that a port may have is one of these or is served by the next one below it.
fn mtu_classes() -> Vec<usize> {
    let mut classes = MTU_LADDER.to_vec();
    classes.extend([3506, 16_384, 32_768, 65_535]);
    classes
}
