//! A captured SYN: refused at once, or the beginning of a session.
//!
//! Everything that can be known from addresses alone is decided here, before memory for the
//! connection or any crypto is spent.

use std::net::SocketAddr;
use std::sync::Arc;

use snapshot::{DropReason, RefuseReason, RuleId, Side};

use super::Worker;
use super::held::{Arrived, Heard};
use crate::flow::{FlowKey, FlowRef, Leg as Side2};
use crate::io::{PacketIo, PortId};
use crate::parse::Segment;
use crate::planted::{self, Bug};
use crate::policy::{Route, Standing, Verdict, Why, at_once, shadow, why_not};
use crate::session::{AtOnce, Balanced, Leg, Plan, Session, Syn, choose, count, refused_at_once};
use crate::snapshot::Compiled;
use crate::stats::{Report, Total};
use crate::time::Clock;

impl<P: PacketIo, C: Clock> Worker<P, C> {
    pub(super) fn admit(&mut self, port: PortId, segment: Segment, syn: Syn, mac: [u8; 6]) {
        let side = self.side(port);
        let arrived = Arrived { port, side, segment, syn, mac };
        if !self.held.has(&arrived.key(), arrived.syn.sequence) {
            self.admit_as(arrived, Heard::default());
        }
    }

    /// `heard`: whose processes are at its ends, where that was asked.
    pub(super) fn admit_as(&mut self, arrived: Arrived, heard: Heard) {
        self.clear_remains(&arrived.key());
        if self.stopping.is_some() {
            return self.refuse_arrived(&arrived, None, RefuseReason::Draining);
        }
        let Some(compiled) = self.compiled.clone() else {
            return self.refuse_arrived(&arrived, None, RefuseReason::NoSnapshot);
        };
        let Arrived { port, side, ref segment, ref syn, mac } = arrived;
        let (client, server, now) = (segment.source, segment.destination, self.now.unix());
        let of = compiled.virtuals.find(server).filter(|_| side == Side::Inside);
        // The endpoint whose listener was asked for is the one that it is given.
        let asked = heard.witnesses.listener.as_ref().map(|listener| listener.at);
        let asked = asked.filter(|at| of.is_some_and(|of| of.endpoints.contains(at)));
        let choose = |of| choose(&mut self.balancer, of, client.ip(), heard.tried, self.now.mono);
        let endpoint = asked.or_else(|| of.and_then(choose));
        let interface = &self.settings.ports[usize::from(port.0)].interface;
        let given = endpoint.unwrap_or(server);
        let wanted = compiled.wanted(heard.witnesses.proof(given), (side, interface), client.ip(), given);
        let hopeless = match wanted.is_nothing() {
            true => None,
            false => compiled.hopeless(side, interface, client.ip(), given),
        };
        if !wanted.is_nothing() && hopeless.is_none() {
            return self.hold(arrived, wanted, heard, given);
        }
        let witnesses = heard.witnesses;
        let proof = witnesses.proof(given);
        let route = match (hopeless, of.filter(|_| endpoint.is_none())) {
            (Some(refusal), _) => refusal,
            (None, Some(nowhere)) => compiled.leads_nowhere(nowhere, interface, client, proof),
            (None, None) => {
                let decides = of.filter(|_| planted::is(Bug::FirstEndpointDecides)).map(|of| of.endpoints[0]);
                let server = decides.unwrap_or(given);
                compiled.route_of(proof, side, interface, client, server, now)
            }
        };
        // Steering knows of a workload that we do not (yet): its SYN comes again, and we will.
        if side == Side::Outside && matches!(route, Route::Plain { why: Why::NotOurs, .. }) {
            return self.mailbox.counters.drop(DropReason::NotOurs);
        }
        let verdict = at_once(&compiled, &route);
        if let Some(Verdict::Refuse(reason, rule)) = verdict {
            let mut known = self.refused_by_policy(&compiled, &route, reason, rule);
            known.attested = compiled.evidence(interface, client.ip(), given, &witnesses);
            known.endpoint = endpoint;
            return self.refuse_arrived(&arrived, Some(known), reason);
        }
        match self.begin(port, side, segment, syn, mac, &compiled, route.clone(), verdict) {
            Ok(index) => {
                let balanced = endpoint.map(|endpoint| self.give(endpoint));
                if let Some(session) = self.sessions.find(index) {
                    session.witnesses = witnesses;
                    session.balanced = balanced;
                }
                if let Some(verdict) = verdict {
                    self.with_session(index, &mut 0, |session, cx| session.note_verdict(verdict, cx));
                }
                self.sessions.mark(index);
            }
            Err(reason) => {
                let attested = compiled.evidence(&self.port(port).interface, client.ip(), given, &witnesses);
                let (rule, detail, shadow) = (None, None, None);
                let known = AtOnce { compiled: &compiled, route: &route, rule, detail, shadow, attested, endpoint };
                self.refuse_arrived(&arrived, Some(known), reason);
            }
        }
    }

    /// Counts a call that begins with those of its endpoint.
    fn give(&mut self, endpoint: SocketAddr) -> Balanced {
        let balanced = Balanced::new(endpoint, &mut self.balancer, self.now.mono);
        self.mailbox.counters.add(Total::Balanced, 1);
        self.mailbox.counters.add(Total::EndpointsForgotten, u64::from(!balanced.is_counted()));
        balanced
    }

    /// Counts what has refused it, and what would not have.
    pub(super) fn refused_by_policy<'a>(
        &self,
        compiled: &'a Compiled,
        route: &'a Route,
        reason: RefuseReason,
        rule: Option<RuleId>,
    ) -> AtOnce<'a> {
        if let Some(rule) = rule {
            compiled.hit(rule);
        }
        let found = shadow(compiled, route, None, Verdict::Refuse(reason, rule));
        if let Some(found) = found {
            count(compiled, found, &self.mailbox.counters);
        }
        let detail = match route {
            Route::Refuse { detail, .. } => detail.clone(),
            Route::Inbound { .. } | Route::Egress { .. } | Route::Local { .. } | Route::Plain { .. } => {
                why_not(compiled, route, (reason, rule), None)
            }
        };
        AtOnce {
            compiled,
            route,
            rule,
            detail,
            shadow: found.map(|found| found.told(compiled)),
            attested: None,
            endpoint: None,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn begin(
        &mut self,
        port: PortId,
        side: Side,
        segment: &Segment,
        syn: &Syn,
        mac: [u8; 6],
        compiled: &Arc<Compiled>,
        route: Route,
        verdict: Option<Verdict>,
    ) -> Result<u32, RefuseReason> {
        let plan = Plan::of(&route, side).expect("every route but Refuse has a plan");
        let standing = verdict.map(|_| Standing::new(compiled, &route, false, None));
        let rule = verdict.and_then(Verdict::rule);
        let index = self.sessions.vacant().ok_or(RefuseReason::SessionsFull)?;
        // A flood from the wire leaves the workloads their share.
        let handshakes = self.settings.limits.handshakes as usize;
        let share = match side {
            Side::Inside => handshakes,
            Side::Outside => handshakes - handshakes / 4,
        };
        if self.sessions.opening() >= share {
            return Err(RefuseReason::HandshakesFull);
        }
        let (client, server) = (segment.source, segment.destination);
        self.claim_flow(port, client, server)?;
        let Some(conn) = self.pool.take() else {
            self.io.unsteer(port, client, server);
            return Err(RefuseReason::SessionsFull);
        };
        // Inside, the kernel knows the workload; outside, the answer goes where the SYN came from.
        let known = match side {
            Side::Inside => self.paths.neighbour(port, client.ip()),
            Side::Outside => None,
        };
        let mtu = self.paths.link(port).map_or(1500, |link| link.mtu);
        let down = Leg::new(port, server, client, conn, known.or(Some(mac)), mtu);
        let session = Session::new(self.next_id, plan, route, compiled, standing, rule, down, syn.clone(), self.now);
        self.next_id += 1;
        self.flows.insert(FlowKey::new(port, client, server), FlowRef::Live { session: index, leg: Side2::Down });
        self.mailbox.counters.add(Total::SessionsOpened, 1);
        Ok(self.sessions.insert(session))
    }

    /// Room in the table and in steering, if need be at the cost of flows that are over anyway.
    fn claim_flow(
        &mut self,
        port: PortId,
        client: std::net::SocketAddr,
        server: std::net::SocketAddr,
    ) -> Result<(), RefuseReason> {
        // Every session that opens will want a second place, for the leg that it has yet to dial.
        while !self.flows.has_room(2 + self.sessions.opening()) {
            let oldest = self.spent.oldest().ok_or(RefuseReason::FlowsFull)?;
            self.forget(oldest);
        }
        while !self.io.steer(port, client, server) {
            let oldest = self.spent.oldest().ok_or(RefuseReason::FlowsFull)?;
            self.forget(oldest);
        }
        Ok(())
    }

    /// Frees a session of the same 4-tuple that has ended. Its keys rest like any others, and are
    /// overwritten if this call is admitted.
    fn clear_remains(&mut self, key: &FlowKey) {
        match self.flows.find(key) {
            Some(FlowRef::Live { session, .. }) => self.free(session),
            Some(FlowRef::Spent { .. } | FlowRef::Dead { .. }) | None => {}
        }
    }

    pub(super) fn refuse_arrived(&mut self, arrived: &Arrived, known: Option<AtOnce<'_>>, reason: RefuseReason) {
        self.mailbox.counters.refuse(reason);
        let Arrived { port, side, segment, syn, mac } = arrived;
        let (client, server) = (segment.source, segment.destination);
        let report = refused_at_once(self.next_id, self.settings.core, *side, client, server, known, reason, self.now);
        self.next_id += 1;
        self.mailbox.report(Report::Ended(Box::new(report)));
        self.reset(*port, *mac, syn.packet());
    }
}
