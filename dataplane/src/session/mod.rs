//! A session: a caller's connection and the one that carries it on, and what stands between them.
//!
//! The worker brings segments and timers in ([`Session::on_segment`], [`Session::step`]); the
//! session moves bytes, changes state, and writes segments to the ports. It never waits: what
//! cannot go on now is tried again when something happened to it.
//!
//! ```text
//!   caller ◀──TCP──▶ [down leg]  relay · TLS · verdict  [up leg] ◀──TCP──▶ service
//! ```

mod balanced;
mod bypass;
mod close;
mod leg;
mod life;
mod open;
mod origin;
mod plan;
mod proxy;
mod relay;
mod report;
mod resumed;
mod state;
mod step;
mod syn;
mod tried;
mod which;

use std::sync::Arc;

use snapshot::{Admitted, CloseReason, Port, PortRange, RefuseReason, RuleId, Timeouts, Version};
use tcp_stack::Stack;

pub use balanced::{Balanced, Left, choose};
pub use leg::{Leg, Reply, send_frame};
pub use plan::{Order, Plan, Speech};
pub use report::{AtOnce, local_id, refused_at_once};
pub use state::State;
pub use syn::Syn;
pub use tried::count;
pub use which::Which;

use crate::balance::Balancer;
use crate::flow;
use crate::io::{PacketIo, PortId};
use crate::neigh::Paths;
use crate::policy::{Route, Standing, Witnesses};
use crate::snapshot::Compiled;
use crate::stats::CoreCounters;
use crate::time::{Instant, Now};
use crate::tls::Peer;
use crate::worker::handoff::Handoff;
use crate::worker::{Mailbox, Pool};

/// What a session needs of its worker for one call.
pub struct Context<'a, P: PacketIo> {
    pub io: &'a mut P,
    pub stack: &'a mut Stack,
    pub pool: &'a mut Pool,
    pub paths: &'a Paths,
    /// The snapshot in force.
    pub compiled: &'a Arc<Compiled>,
    pub ports: &'a [Port],
    pub timeouts: &'a Timeouts,
    pub source_ports: PortRange,
    /// Which flows are this core's.
    pub handoff: &'a Handoff,
    pub mailbox: &'a Mailbox,
    pub now: Now,
    /// Handshake steps that this turn may still do.
    pub handshakes: &'a mut u32,
    /// The session's own place in the table, for the flow that dialing adds.
    pub flows: &'a mut flow::FlowTable,
    pub index: u32,
    pub core: u32,
    pub balancer: &'a mut Balancer,
}

impl<P: PacketIo> Context<'_, P> {
    pub fn counters(&self) -> &CoreCounters {
        &self.mailbox.counters
    }

    /// Answers a segment that has no connection with the RST that RFC 9293 §3.10.7.1 asks for.
    pub fn reset_caller(&mut self, port: PortId, mac: Option<[u8; 6]>, packet: &[u8]) {
        send_reset(self.io, self.paths, &self.mailbox.counters, port, mac, packet);
    }
}

/// See [`Context::reset_caller`]; for when there is no session either.
pub fn send_reset<P: PacketIo>(
    io: &mut P,
    paths: &Paths,
    counters: &CoreCounters,
    port: PortId,
    mac: Option<[u8; 6]>,
    packet: &[u8],
) {
    let mut reset = [0; 60];
    let (Some(length), Some(link), Some(mac)) = (tcp_stack::rst_for(packet, &mut reset), paths.link(port), mac) else {
        return;
    };
    send_frame(io, counters, port, link.mac, mac, length, &mut |out| out.copy_from_slice(&reset[..length]));
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
    /// By the snapshot in `compiled`, whose indices it holds.
    route: Route,
    /// The snapshot that it was last decided under.
    compiled: Arc<Compiled>,
    /// What it is decided by again; None until it was allowed.
    standing: Option<Standing>,
    local_id: Option<Arc<str>>,
    /// Whose processes call and listen, where addresses alone do not tell.
    pub witnesses: Witnesses,
    /// Names for the views, which must not depend on the indices of a snapshot that is gone.
    workload: Option<Arc<str>>,
    callee: Option<Arc<str>>,
    pub state: State,
    /// Faces the caller.
    pub down: Leg,
    /// Faces the service. None until it is dialed.
    pub up: Option<Leg>,
    syn: Syn,
    /// Whether the caller's SYN has been answered.
    answered: bool,
    /// The caller reset what was not answered yet; the network cannot reach the service.
    caller_gone: bool,
    unreachable: bool,
    /// When `state` gives up, or TLS detection stops waiting, or a half-closed one is cut.
    deadline: Option<Instant>,
    accepted_at: Instant,
    request: relay::Flow,
    response: relay::Flow,
    peer: Option<Peer>,
    rule: Option<RuleId>,
    /// What a rule in shadow would have made of it.
    shadow: Option<String>,
    /// The snapshot whose verdict the TLS handshake asked for.
    tls_version: Version,
    /// Milliseconds since the epoch.
    opened_at: u64,
    ending: Option<Ending>,
    life: life::Life,
    /// Where a virtual address was called.
    pub balanced: Option<Balanced>,
    /// Why it was let in, once it was.
    admitted: Option<Admitted>,
}

/// What the worker does next with a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Step it again in this or the next turn.
    Again,
    /// Step it when a segment comes or at this time.
    Wait(Option<Instant>),
    /// The same, and when its turn for crypto comes: this turn's budget is spent.
    Queue(Option<Instant>),
    /// It is over: its memory goes back.
    Free,
}

impl Session {
    /// A captured SYN that policy lets begin. Nothing has been sent yet. `standing` is there if
    /// nothing more has to be proven.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        id: u64,
        plan: Plan,
        route: Route,
        compiled: &Arc<Compiled>,
        standing: Option<Standing>,
        rule: Option<RuleId>,
        down: Leg,
        syn: Syn,
        now: Now,
    ) -> Self {
        Self {
            id,
            plan,
            local_id: local_id(compiled, &route),
            witnesses: Witnesses::default(),
            workload: report::workload_name(compiled, &route),
            callee: report::callee(compiled, &route),
            route,
            compiled: compiled.clone(),
            standing,
            state: match plan.order {
                Order::UpFirst => State::Dialing,
                Order::DownFirst => State::Accepting,
            },
            down,
            up: None,
            syn,
            answered: false,
            caller_gone: false,
            unreachable: false,
            deadline: None,
            accepted_at: now.mono,
            request: relay::Flow::default(),
            response: relay::Flow::default(),
            peer: None,
            rule,
            shadow: None,
            tls_version: compiled.version,
            opened_at: now.unix_ms,
            ending: None,
            life: life::Life::default(),
            balanced: None,
            admitted: None,
        }
    }

    /// One IP packet of this session, already parsed. Only the TCP engine sees it here; what comes
    /// of it is [`step`](Self::step)'s. `reply` takes what has to be answered at once.
    pub fn on_segment(
        &mut self,
        leg: flow::Leg,
        packet: &[u8],
        mac: [u8; 6],
        stack: &mut Stack,
        now: Instant,
        reply: &mut Reply,
    ) {
        let answered = self.answered;
        let Some(side) = self.leg_mut(leg) else { return };
        // Only a next hop that routing does not know is taken from what we hear.
        side.mac.get_or_insert(mac);
        if leg == flow::Leg::Up || answered {
            side.conn.on_segment(stack, packet, now, reply);
        } else if resets(packet, self.syn.sequence) {
            // Its SYN again is no news; that it gave up is.
            self.caller_gone = true;
        }
    }

    pub fn leg_mut(&mut self, leg: flow::Leg) -> Option<&mut Leg> {
        match leg {
            flow::Leg::Down => Some(&mut self.down),
            flow::Leg::Up => self.up.as_mut(),
        }
    }

    pub fn leg(&self, leg: flow::Leg) -> Option<&Leg> {
        match leg {
            flow::Leg::Down => Some(&self.down),
            flow::Leg::Up => self.up.as_ref(),
        }
    }

    /// Whether its reason is known and only last segments are still to leave.
    pub fn has_ended(&self) -> bool {
        self.ending.is_some()
    }

    /// The version that it was last decided under.
    pub fn version(&self) -> Version {
        self.compiled.version
    }

    /// Takes the MACs and the MTUs that the kernel has now.
    pub fn refresh_paths(&mut self, paths: &Paths) {
        for leg in std::iter::once(&mut self.down).chain(self.up.as_mut()) {
            let hop = paths.to(leg.remote.ip()).filter(|hop| hop.port == leg.port);
            leg.mac = hop.and_then(|hop| hop.mac).or(leg.mac);
            // A port whose MTU was lowered takes no larger segments any more.
            if let Some(mtu) = hop.map(|hop| hop.mtu).or(paths.link(leg.port).map(|link| link.mtu)) {
                leg.conn.shrink_mtu(mtu);
            }
        }
    }

    /// The network says that a link on the way takes packets of `mtu` bytes at the most.
    pub fn on_too_big(&mut self, leg: flow::Leg, mtu: usize) {
        if let Some(side) = self.leg_mut(leg) {
            side.conn.shrink_mtu(mtu);
        }
    }

    /// The network says that the far side cannot be reached: fatal only while we dial (RFC 5461 §4).
    pub fn on_unreachable(&mut self, leg: flow::Leg) {
        self.unreachable |= leg == flow::Leg::Up && matches!(self.state, State::Dialing | State::Detecting);
    }
}

/// Whether an IP packet that the parser has passed takes back the SYN with this sequence number: a RST
/// of the very next one (RFC 9293 §3.10.7.3 has nothing else that a caller in SYN-SENT can send).
fn resets(packet: &[u8], syn: u32) -> bool {
    let transport = if packet[0] >> 4 == 4 { usize::from(packet[0] & 0x0f) * 4 } else { 40 };
    let sequence = u32::from_be_bytes(packet[transport + 4..transport + 8].try_into().expect("four bytes"));
    packet[transport + 13] & crate::parse::flags::RST != 0 && sequence == syn.wrapping_add(1)
}
