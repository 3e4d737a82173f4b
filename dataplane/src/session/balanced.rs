//! A call to a virtual address: the endpoint that it was given, and one other if that cannot be connected.
//!
//! The caller's leg keeps the virtual address as its peer; the other leg goes to the endpoint, by whose address
//! policy decides. As long as the caller's SYN is held, nothing has been promised: an endpoint that refuses, is
//! out of reach, or says nothing for a quarter of the time that a handshake may take, is left, and the call
//! begins anew with another, once. Who shows the wrong identity is not left for another: that is to be seen.

use std::net::{IpAddr, SocketAddr};

use snapshot::RefuseReason;

use super::step::Progress;
use super::{Context, Order, Plan, Session, State, local_id, report};
use crate::balance::Balancer;
use crate::flow::{FlowKey, FlowRef};
use crate::io::PacketIo;
use crate::planted::{self, Bug};
use crate::policy::{Standing, Verdict, at_once};
use crate::snapshot::Virtual;
use crate::stats::Total;
use crate::time::{Duration, Instant};

/// Of the time that a handshake may take, what the first endpoint has to answer our SYN, where there is
/// another: one of so many. With 10 s, a SYN that was lost once is still answered.
const PATIENCE: u32 = 4;

pub struct Balanced {
    /// The one that the call goes to.
    pub endpoint: SocketAddr,
    /// Whether it is counted with the endpoint's calls.
    counted: bool,
    /// The one that it went to before.
    before: Option<Left>,
    /// When the endpoint is left for another one. None: it is not.
    patience: Option<Instant>,
}

/// An endpoint that could not be connected, and the flow that was begun to it.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    endpoint: SocketAddr,
    /// With the time that the flow table has for it.
    pub flow: Option<(FlowKey, Instant)>,
}

/// An endpoint for a call of `caller`: its own address only if there is no other, since a call that comes back
/// to where it is from has to leave from the node's.
pub fn choose(
    balancer: &mut Balancer,
    of: &Virtual,
    caller: IpAddr,
    not: Option<SocketAddr>,
    now: Instant,
) -> Option<SocketAddr> {
    let other = |endpoint| Some(endpoint) != not;
    let elsewhere = |endpoint: SocketAddr| other(endpoint) && endpoint.ip() != caller.to_canonical();
    balancer.choose(&of.endpoints, now, elsewhere).or_else(|| balancer.choose(&of.endpoints, now, other))
}

impl Balanced {
    /// A call that begins.
    pub fn new(endpoint: SocketAddr, balancer: &mut Balancer, now: Instant) -> Self {
        Self { endpoint, counted: balancer.begun(endpoint, now), before: None, patience: None }
    }

    /// The call is over. What is left of an endpoint before has to rest.
    pub fn over(&self, balancer: &mut Balancer) -> Option<Left> {
        if self.counted {
            balancer.ended(self.endpoint);
        }
        self.before
    }

    pub fn is_counted(&self) -> bool {
        self.counted
    }

    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.patience
    }
}

impl Session {
    /// Where the up leg goes: what was called, or the endpoint that stands for it.
    pub fn destination(&self) -> SocketAddr {
        self.balanced.as_ref().map_or(self.down.local, |balanced| balanced.endpoint)
    }

    /// The up leg's SYN is about to leave.
    pub(super) fn begin_patience<P: PacketIo>(&mut self, cx: &Context<'_, P>) {
        if let Some(balanced) = &mut self.balanced {
            let patience = Duration::from(cx.timeouts.handshake) / PATIENCE;
            balanced.patience = balanced.before.is_none().then_some(cx.now.mono + patience);
        }
    }

    /// The endpoint answers nothing. Without another one, it is waited for as any service is.
    pub(super) fn has_waited<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> bool {
        let Some(balanced) = &mut self.balanced else { return false };
        if balanced.patience.is_none_or(|until| cx.now.mono < until) {
            return false;
        }
        balanced.patience = None;
        self.try_another(cx)
    }

    /// It stands, as far as connecting goes.
    pub(super) fn has_connected<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) {
        if let Some(balanced) = &mut self.balanced {
            balanced.patience = None;
            cx.balancer.stood(balanced.endpoint);
        }
    }

    /// The far side could not be connected: that ends the call, unless another endpoint may be tried.
    pub(super) fn fail_connect<P: PacketIo>(
        &mut self,
        reason: RefuseReason,
        detail: Option<&str>,
        cx: &mut Context<'_, P>,
    ) -> Progress {
        if self.try_another(cx) {
            return Progress::Moved;
        }
        self.note_failure(cx);
        let before = self.balanced.as_ref().and_then(|balanced| balanced.before);
        match before {
            Some(Left { endpoint, .. }) => {
                let said = detail.map(|said| format!("{said}; ")).unwrap_or_default();
                let detail = format!("{said}it was the second endpoint: {endpoint} could not be connected before");
                self.refuse(reason, Some(&detail), cx);
            }
            None => self.refuse(reason, detail, cx),
        }
        Progress::Moved
    }

    fn note_failure<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) {
        let Some(balanced) = &self.balanced else { return };
        let of = cx.compiled.virtuals.find(self.down.local).map_or(&[][..], |of| &of.endpoints);
        cx.counters().add(Total::EndpointsFailed, 1);
        if cx.balancer.failed(balanced.endpoint, of, cx.now.mono) {
            cx.counters().add(Total::EndpointEjections, 1);
        }
    }

    /// Begins the call anew with another endpoint. False: there is none, or it is too late, or the other one
    /// would be another call: in another's name, or answered before it is connected.
    fn try_another<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> bool {
        let Some(balanced) = &self.balanced else { return false };
        let (tried, compiled) = (balanced.endpoint, cx.compiled.clone());
        if balanced.before.is_some() || self.answered || self.has_ended() {
            return false;
        }
        let Some(of) = compiled.virtuals.find(self.down.local) else { return false };
        let (caller, now) = (self.down.remote, cx.now.mono);
        let next = match planted::is(Bug::SameEndpointAgain) {
            true => Some(tried),
            false => choose(cx.balancer, of, caller.ip(), Some(tried), now),
        };
        let Some(next) = next else { return false };
        let port = &cx.ports[usize::from(self.down.port.0)];
        let proof = self.witnesses.proof(next);
        let route = compiled.route_of(proof, port.side, &port.interface, caller, next, cx.now.unix());
        let Some(plan) = Plan::of(&route, port.side).filter(|plan| plan.order == Order::UpFirst) else { return false };
        let verdict = at_once(&compiled, &route);
        if matches!(verdict, Some(Verdict::Refuse(..))) || local_id(&compiled, &route) != self.local_id {
            return false;
        }
        self.note_failure(cx);
        let flow = self.leave_endpoint(cx);
        let balanced = self.balanced.as_mut().expect("asked above");
        balanced.over(cx.balancer);
        *balanced = Balanced { before: Some(Left { endpoint: tried, flow }), ..Balanced::new(next, cx.balancer, now) };
        (self.plan, self.callee, self.route, self.compiled) =
            (plan, report::callee(&compiled, &route), route, compiled.clone());
        self.standing = verdict.map(|_| Standing::new(&compiled, &self.route, false, None));
        self.rule = verdict.and_then(Verdict::rule);
        if let Some(verdict) = verdict {
            self.note_verdict(verdict, cx);
        }
        (self.unreachable, self.peer) = (false, None);
        cx.counters().add(Total::ConnectsRetried, 1);
        self.enter(State::Dialing, cx);
        true
    }

    /// What still comes of the leg that is given up is answered with RST, like all that is of no session.
    fn leave_endpoint<P: PacketIo>(&mut self, cx: &mut Context<'_, P>) -> Option<(FlowKey, Instant)> {
        let mut up = self.up.take()?;
        // One that stands has to hear of it: a service that hangs would else collect them.
        up.conn.abort();
        let source_mac = cx.paths.link(up.port).map(|link| link.mac);
        up.transmit(cx.io, cx.stack, source_mac, &cx.mailbox.counters, cx.now.mono);
        let (key, until) = (up.key(), cx.now.mono);
        cx.flows.insert(key, FlowRef::Dead { until });
        cx.pool.give(up.conn);
        Some((key, until))
    }
}
