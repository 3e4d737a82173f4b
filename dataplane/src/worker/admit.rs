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
use crate::policy::{Route, Standing, Verdict, Why, Witnesses, at_once, shadow, why_not};
use crate::session::{AtOnce, Balanced, Leg, Plan, Session, Syn, choose, count, refused_at_once};
use crate::snapshot::{Compiled, Virtual};
use crate::stats::{Report, Total};
use crate::time::Clock;

/// Where a call goes.
struct Aim<'c> {
    /// The virtual address that is called, and of its endpoints the one that is given it.
    of: Option<&'c Virtual>,
    endpoint: Option<SocketAddr>,
    /// That endpoint, else what is called.
    given: SocketAddr,
}

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
        let aim = self.aim(&compiled, &arrived, &heard);
        let (from, client) = ((arrived.side, &*self.port(arrived.port).interface), arrived.segment.source.ip());
        let wanted = compiled.wanted(heard.witnesses.proof(aim.given), from, client, aim.given);
        let hopeless = match wanted.is_nothing() {
            true => None,
            false => compiled.hopeless(from.0, from.1, client, aim.given),
        };
        if !wanted.is_nothing() && hopeless.is_none() {
            return self.hold(arrived, wanted, heard, aim.given);
        }
        let witnesses = heard.witnesses;
        let route = hopeless.unwrap_or_else(|| self.route(&compiled, &arrived, &aim, &witnesses));
        // Steering knows of a workload that we do not (yet): its SYN comes again, and we will.
        if arrived.side == Side::Outside && matches!(route, Route::Plain { why: Why::NotOurs, .. }) {
            return self.mailbox.counters.drop(DropReason::NotOurs);
        }
        self.settle(&arrived, &compiled, &route, &aim, witnesses);
    }

    /// The endpoint whose listener was asked for is the one that it is given.
    fn aim<'c>(&mut self, compiled: &'c Compiled, arrived: &Arrived, heard: &Heard) -> Aim<'c> {
        let (client, server) = (arrived.segment.source, arrived.segment.destination);
        let of = compiled.virtuals.find(server).filter(|_| arrived.side == Side::Inside);
        let asked = heard.witnesses.listener.as_ref().map(|listener| listener.at);
        let asked = asked.filter(|at| of.is_some_and(|of| of.endpoints.contains(at)));
        let choose = |of| choose(&mut self.balancer, of, client.ip(), heard.tried, self.now.mono);
        let endpoint = asked.or_else(|| of.and_then(choose));
        Aim { of, endpoint, given: endpoint.unwrap_or(server) }
    }

    fn route(&self, compiled: &Compiled, arrived: &Arrived, aim: &Aim<'_>, witnesses: &Witnesses) -> Route {
        let (client, interface) = (arrived.segment.source, &self.port(arrived.port).interface);
        let proof = witnesses.proof(aim.given);
        if let Some(nowhere) = aim.of.filter(|_| aim.endpoint.is_none()) {
            return compiled.leads_nowhere(nowhere, interface, client, proof);
        }
        let decides = aim.of.filter(|_| planted::is(Bug::FirstEndpointDecides)).map(|of| of.endpoints[0]);
        let server = decides.unwrap_or(aim.given);
        compiled.route_of(proof, arrived.side, interface, client, server, self.now.unix())
    }

    /// Refuses it if addresses are enough for that, else begins a session.
    fn settle(
        &mut self,
        arrived: &Arrived,
        compiled: &Arc<Compiled>,
        route: &Route,
        aim: &Aim<'_>,
        witnesses: Witnesses,
    ) {
        let (endpoint, verdict) = (aim.endpoint, at_once(compiled, route));
        let evidence = |worker: &Self, witnesses: &Witnesses| {
            let interface = &worker.port(arrived.port).interface;
            compiled.evidence(interface, arrived.segment.source.ip(), aim.given, witnesses)
        };
        if let Some(Verdict::Refuse(reason, rule)) = verdict {
            let mut known = self.refused_by_policy(compiled, route, reason, rule);
            known.attested = evidence(self, &witnesses);
            known.endpoint = endpoint;
            return self.refuse_arrived(arrived, Some(known), reason);
        }
        match self.begin(arrived, compiled, route.clone(), verdict) {
            Ok(index) => self.begun(index, endpoint, witnesses, verdict),
            Err(reason) => {
                let attested = evidence(self, &witnesses);
                let (rule, detail, shadow) = (None, None, None);
                let known = AtOnce { compiled, route, rule, detail, shadow, attested, endpoint };
                self.refuse_arrived(arrived, Some(known), reason);
            }
        }
    }

    fn begun(&mut self, index: u32, endpoint: Option<SocketAddr>, witnesses: Witnesses, verdict: Option<Verdict>) {
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

    fn begin(
        &mut self,
        arrived: &Arrived,
        compiled: &Arc<Compiled>,
        route: Route,
        verdict: Option<Verdict>,
    ) -> Result<u32, RefuseReason> {
        let Arrived { port, side, ref segment, ref syn, mac } = *arrived;
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
