//! A session: a caller's connection and the one that carries it on, and what stands between them.
//!
//! The worker brings segments and timers in ([`Session::on_segment`], [`Session::step`]); the
//! session moves bytes, changes state, and writes segments to the ports. It never waits: what
//! cannot go on now is tried again when something happened to it.
//!
//! ```text
//!   caller ◀──TCP──▶ [down leg]  relay · TLS · verdict  [up leg] ◀──TCP──▶ service
//! ```

mod close;
mod leg;
mod plan;
mod relay;
mod report;
mod state;
mod step;
mod syn;

use std::sync::Arc;

use snapshot::{CloseReason, RefuseReason, RuleId, Timeouts, Version};
use tcp_stack::Stack;

pub use leg::{Leg, send_frame};
pub use plan::{Order, Plan, Speech};
pub use state::State;
pub use syn::Syn;

use crate::flow;
use crate::io::PacketIo;
use crate::neigh::Paths;
use crate::policy::Route;
use crate::snapshot::Compiled;
use crate::stats::CoreCounters;
use crate::time::{Instant, Now};
use crate::tls::Peer;
use crate::worker::{Mailbox, Pool};

/// What a session needs of its worker for one call.
pub struct Context<'a, P: PacketIo> {
    pub io: &'a mut P,
    pub stack: &'a mut Stack,
    pub pool: &'a mut Pool,
    pub paths: &'a Paths,
    pub compiled: &'a Arc<Compiled>,
    pub timeouts: &'a Timeouts,
    pub mailbox: &'a Mailbox,
    pub now: Now,
    /// Handshake steps that this turn may still do.
    pub handshakes: &'a mut u32,
    /// The session's own place in the table, for the flow that dialing adds.
    pub flows: &'a mut flow::FlowTable,
    pub index: u32,
    pub core: u32,
}

impl<P: PacketIo> Context<'_, P> {
    pub fn counters(&self) -> &CoreCounters {
        &self.mailbox.counters
    }
}

/// How a session ended, once it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Refused(RefuseReason),
    Closed(CloseReason),
}

pub struct Session {
    pub id: u64,
    pub plan: Plan,
    pub route: Route,
    pub state: State,
    /// Faces the caller.
    pub down: Leg,
    /// Faces the service. None until it is dialed.
    pub up: Option<Leg>,
    syn: Syn,
    /// Whether the caller's SYN has been answered.
    answered: bool,
    /// When `state` gives up, or TLS detection stops waiting, or a half-closed one is cut.
    deadline: Option<Instant>,
    accepted_at: Instant,
    request: relay::Flow,
    response: relay::Flow,
    peer: Option<Peer>,
    rule: Option<RuleId>,
    /// The snapshot that it was last decided under.
    pub version: Version,
    /// Milliseconds since the epoch.
    opened_at: u64,
    ending: Option<Ending>,
}

/// What the worker does next with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Step it again in this or the next turn.
    Again,
    /// Step it when a segment comes or at this time.
    Wait(Option<Instant>),
    /// It is over: its memory goes back.
    Free,
}

impl Session {
    /// A captured SYN that policy lets begin. Nothing has been sent yet.
    pub fn new(id: u64, plan: Plan, route: Route, down: Leg, syn: Syn, version: Version, now: Now) -> Self {
        Self {
            id,
            plan,
            route,
            state: match plan.order {
                Order::UpFirst => State::Dialing,
                Order::DownFirst => State::Accepting,
            },
            down,
            up: None,
            syn,
            answered: false,
            deadline: None,
            accepted_at: now.mono,
            request: relay::Flow::default(),
            response: relay::Flow::default(),
            peer: None,
            rule: None,
            version,
            opened_at: now.unix_ms,
            ending: None,
        }
    }

    /// One IP packet of this session, already parsed. Only the TCP engine sees it here; what comes
    /// of it is [`step`](Self::step)'s.
    pub fn on_segment<P: PacketIo>(&mut self, leg: flow::Leg, packet: &[u8], mac: [u8; 6], cx: &mut Context<'_, P>) {
        let side = match leg {
            flow::Leg::Down => &mut self.down,
            flow::Leg::Up => match self.up.as_mut() {
                Some(up) => up,
                None => return,
            },
        };
        if leg == flow::Leg::Down && !self.answered {
            // Its SYN again, or a RST: the only news is that it gave up.
            if is_reset(packet) && self.ending.is_none() {
                self.refuse(RefuseReason::CallerGone, None, cx);
            }
            return;
        }
        // Only a next hop that routing does not know is taken from what we hear.
        if side.mac.is_none() {
            side.mac = Some(mac);
        }
        let source_mac = cx.paths.link(side.port).map(|link| link.mac);
        let mut out = side.output(cx.io, source_mac, &cx.mailbox.counters);
        side.conn.on_segment(cx.stack, packet, cx.now.mono, &mut out);
    }

    /// The network says that a link on the way takes packets of `mtu` bytes at the most.
    pub fn on_too_big(&mut self, leg: flow::Leg, mtu: usize) {
        let side = match leg {
            flow::Leg::Down => Some(&mut self.down),
            flow::Leg::Up => self.up.as_mut(),
        };
        if let Some(side) = side {
            side.conn.shrink_mtu(mtu);
        }
    }

    /// The network says that the far side cannot be reached: fatal only while we dial (RFC 5461 §4).
    pub fn on_unreachable<P: PacketIo>(&mut self, leg: flow::Leg, cx: &mut Context<'_, P>) {
        if leg == flow::Leg::Up && self.state == State::Dialing && self.ending.is_none() {
            self.refuse(RefuseReason::Unreachable, None, cx);
        }
    }
}

/// Of an IP packet that the parser has passed.
fn is_reset(packet: &[u8]) -> bool {
    let transport = if packet[0] >> 4 == 4 { usize::from(packet[0] & 0x0f) * 4 } else { 40 };
    packet[transport + 13] & crate::parse::flags::RST != 0
}
