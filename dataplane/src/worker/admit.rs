//! A captured SYN: refused at once, or the beginning of a session.
//!
//! Everything that can be known from addresses alone is decided here, before memory for the
//! connection or any crypto is spent.

use std::sync::Arc;

use snapshot::{DropReason, RefuseReason, Side};

use super::Worker;
use crate::flow::{FlowKey, FlowRef, Leg as Side2};
use crate::io::{PacketIo, PortId};
use crate::parse::Segment;
use crate::policy::{Route, Standing, Verdict, Why, decide, why_not};
use crate::session::{Leg, Plan, Session, Syn, refused_at_once};
use crate::snapshot::Compiled;
use crate::stats::{Report, Total};
use crate::time::Clock;
use crate::tls::Refusal;

impl<P: PacketIo, C: Clock> Worker<P, C> {
    pub(super) fn admit(&mut self, port: PortId, segment: Segment, syn: Syn, mac: [u8; 6]) {
        let key = FlowKey::new(port, segment.source, segment.destination);
        self.clear_remains(&key);
        if self.stopping.is_some() {
            return self.refuse_at_once(port, &segment, &syn, mac, None, RefuseReason::Draining.into());
        }
        let Some(compiled) = self.compiled.clone() else {
            return self.refuse_at_once(port, &segment, &syn, mac, None, RefuseReason::NoSnapshot.into());
        };
        let spec = self.port(port);
        let side = spec.side;
        let route = compiled.route(side, &spec.interface, segment.source, segment.destination, self.now.unix());
        // Steering knows of a workload that we do not (yet): its SYN comes again, and we will.
        if side == Side::Outside && matches!(route, Route::Plain { why: Why::NotOurs, .. }) {
            return self.mailbox.counters.drop(DropReason::NotOurs);
        }
        match self.begin(port, side, &segment, &syn, mac, &compiled, route.clone()) {
            Ok(index) => self.sessions.mark(index),
            Err(refusal) => self.refuse_at_once(port, &segment, &syn, mac, Some((&compiled, &route)), refusal),
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
    ) -> Result<u32, Refusal> {
        if let Route::Refuse { reason, rule, detail, .. } = route {
            return Err(Refusal { reason, rule, detail });
        }
        let plan = Plan::of(&route, side).expect("every route but Refuse has a plan");
        let (standing, rule) = match &route {
            Route::Local { .. } | Route::Plain { .. } => match decide(compiled, &route, None) {
                Verdict::Allow(rule) => (Some(Standing::new(compiled, &route, false, None)), rule),
                Verdict::Refuse(reason, rule) => {
                    return Err(Refusal { reason, rule, detail: why_not(compiled, &route, (reason, rule), None) });
                }
            },
            Route::Inbound { .. } | Route::Egress { .. } | Route::Refuse { .. } => (None, None),
        };
        let index = self.sessions.vacant().ok_or(RefuseReason::SessionsFull)?;
        // A flood from the wire leaves the workloads their share.
        let handshakes = self.settings.limits.handshakes as usize;
        let share = match side {
            Side::Inside => handshakes,
            Side::Outside => handshakes - handshakes / 4,
        };
        if self.sessions.opening() >= share {
            return Err(RefuseReason::HandshakesFull.into());
        }
        let (client, server) = (segment.source, segment.destination);
        self.claim_flow(port, client, server)?;
        let Some(conn) = self.pool.take() else {
            self.io.unsteer(port, client, server);
            return Err(RefuseReason::SessionsFull.into());
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

    fn refuse_at_once(
        &mut self,
        port: PortId,
        segment: &Segment,
        syn: &Syn,
        mac: [u8; 6],
        compiled: Option<(&Compiled, &Route)>,
        refusal: Refusal,
    ) {
        self.mailbox.counters.refuse(refusal.reason);
        let (core, side) = (self.settings.core, self.side(port));
        let report =
            refused_at_once(self.next_id, core, side, segment.source, segment.destination, compiled, refusal, self.now);
        self.next_id += 1;
        self.mailbox.report(Report::Ended(Box::new(report)));
        self.reset(port, mac, syn.packet());
    }
}
