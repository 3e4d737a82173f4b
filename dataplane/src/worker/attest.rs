//! Which process calls, and which listens: the SYN is held while the agent has ctrl find out, and goes on or
//! is refused.
//!
//! ```text
//!   SYN ─▶ held ── Asked ──▶ agent ──▶ ctrl      (once or twice: for the caller, for the listener)
//!            ◀──── Told ─── agent ◀── (late, gone, nobody: refused)
//!            └─▶ admit, as if it came now
//! ```

use std::net::SocketAddr;
use std::sync::Arc;

use snapshot::{Owner, Party, RefuseReason, Unfound};

use super::Worker;
use super::held::{Arrived, Heard, Missing, PATIENCE, Waiting};
use crate::io::{PacketIo, PortId};
use crate::policy::Wanted;
use crate::session::{Balanced, choose};
use crate::stats::Total;
use crate::time::Clock;

/// A worker's question: which process is at this end of the call?
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub token: u64,
    pub party: Party,
    /// The inside port that it is behind.
    pub port: PortId,
    pub client: SocketAddr,
    pub server: SocketAddr,
}

/// The answer to it.
#[derive(Debug, Clone)]
pub struct Told {
    pub token: u64,
    pub party: Party,
    pub found: Result<Arc<Owner>, Arc<Unfound>>,
}

impl<P: PacketIo, C: Clock> Worker<P, C> {
    /// `server`: where the call goes, which may be an endpoint that it is given.
    pub(super) fn hold(&mut self, arrived: Arrived, wanted: Wanted<'_>, heard: Heard, server: SocketAddr) {
        let named = |name: &Arc<str>| self.settings.ports.iter().position(|port| *port.interface == **name);
        let listener = wanted.listener.and_then(named).map(|at| (Party::Listener, PortId(at as u16)));
        let caller = wanted.caller.then_some((Party::Caller, arrived.port));
        let (client, until) = (arrived.segment.source, heard.until.unwrap_or(self.now.mono + PATIENCE));
        let behind = wanted.listener.cloned();
        let missing = Missing { caller: wanted.caller, listener: behind.is_some(), server, behind, heard };
        let token = match self.held.hold(arrived.clone(), missing, until) {
            Ok(token) => token,
            Err(reason) => return self.refuse_arrived(&arrived, None, reason),
        };
        for (party, port) in caller.into_iter().chain(listener) {
            if self.mailbox.asked.push(Asked { token, party, port, client, server }).is_err() {
                self.held.take(token);
                return self.refuse_arrived(&arrived, None, RefuseReason::AttestationsFull);
            }
        }
    }

    /// What the agent has found out since the last turn.
    pub(super) fn hear(&mut self) {
        while let Some(told) = self.mailbox.told.pop() {
            // Late, or about a SYN that was overtaken, or not yet all that it waits for.
            match told.found {
                Ok(owner) => {
                    let Some(Waiting { arrived, missing, until, .. }) = self.held.tell(told.token, told.party, owner)
                    else {
                        continue;
                    };
                    self.admit_as(arrived, Heard { until: Some(until), ..missing.heard });
                }
                Err(why) => {
                    let Some(waiting) = self.held.take(told.token) else { continue };
                    let nobody = told.party == Party::Listener && matches!(*why, Unfound::Nobody(_));
                    if !nobody || !self.try_another(&waiting) {
                        self.refuse_unattested(&waiting, told.party, why.to_string());
                    }
                }
            }
        }
    }

    /// Where nobody listens, nobody would answer: like an endpoint that cannot be connected, it is left for
    /// another one, once.
    fn try_another(&mut self, waiting: &Waiting) -> bool {
        let Waiting { arrived, missing, until, .. } = waiting;
        let (Some(compiled), tried) = (self.compiled.clone(), missing.server) else { return false };
        let Some(of) = compiled.virtuals.find(arrived.segment.destination) else { return false };
        let (client, now) = (arrived.segment.source.ip(), self.now.mono);
        self.note_absence(tried, &of.endpoints);
        if missing.heard.tried.is_some() || choose(&mut self.balancer, of, client, Some(tried), now).is_none() {
            return false;
        }
        self.mailbox.counters.add(Total::ConnectsRetried, 1);
        self.admit_as(arrived.clone(), Heard { until: Some(*until), tried: Some(tried), ..missing.heard.clone() });
        true
    }

    fn note_absence(&mut self, endpoint: SocketAddr, of: &[SocketAddr]) {
        let call = Balanced::new(endpoint, &mut self.balancer, self.now.mono);
        let ejected = self.balancer.failed(endpoint, of, self.now.mono);
        call.over(&mut self.balancer);
        self.mailbox.counters.add(Total::EndpointsFailed, 1);
        self.mailbox.counters.add(Total::EndpointEjections, u64::from(ejected));
    }

    /// Those that have waited long enough.
    pub(super) fn refuse_late(&mut self) {
        while let Some(waiting) = self.held.take_late(self.now.mono) {
            let (party, who) = match waiting.missing.caller {
                true => (Party::Caller, "calls"),
                false => (Party::Listener, "listens"),
            };
            self.refuse_unattested(
                &waiting,
                party,
                format!("nobody said within {PATIENCE} who {who}: see sluice-ctrl"),
            );
        }
    }

    fn refuse_unattested(&mut self, waiting: &Waiting, party: Party, why: String) {
        let Some(compiled) = self.compiled.clone() else { return };
        let Waiting { arrived, missing, .. } = waiting;
        let route = compiled.unattested(party, missing.server, why);
        let mut known = self.refused_by_policy(&compiled, &route, RefuseReason::NotAttested, None);
        known.endpoint = Some(missing.server).filter(|at| *at != arrived.segment.destination);
        self.refuse_arrived(arrived, Some(known), RefuseReason::NotAttested);
    }
}
