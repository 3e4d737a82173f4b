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

use snapshot::{Owner, Party, RefuseReason};

use super::Worker;
use super::held::{Arrived, Missing, PATIENCE, Waiting};
use crate::io::{PacketIo, PortId};
use crate::policy::{Wanted, Witnesses, not_attested};
use crate::time::{Clock, Instant};

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
    pub found: Result<Arc<Owner>, Arc<str>>,
}

/// What was found out about a call, and until when it may wait for more.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub witnesses: Witnesses,
    pub until: Option<Instant>,
}

impl<P: PacketIo, C: Clock> Worker<P, C> {
    /// `server`: where the call goes, which may be an endpoint that it is given.
    pub(super) fn hold(&mut self, arrived: Arrived, wanted: Wanted<'_>, heard: Heard, server: SocketAddr) {
        let behind = |name: &str| self.settings.ports.iter().position(|port| port.interface == name);
        let listener = wanted.listener.and_then(behind).map(|at| PortId(at as u16));
        let (client, port) = (arrived.segment.source, arrived.port);
        let questions =
            [wanted.caller.then_some((Party::Caller, port)), listener.map(|behind| (Party::Listener, behind))];
        let missing =
            Missing { caller: wanted.caller, listener: wanted.listener.is_some(), server, witnesses: heard.witnesses };
        let until = heard.until.unwrap_or(self.now.mono + PATIENCE);
        let token = match self.held.hold(arrived.clone(), missing, until) {
            Ok(token) => token,
            Err(reason) => return self.refuse_arrived(&arrived, None, reason),
        };
        for (party, port) in questions.into_iter().flatten() {
            let asked = Asked { token, party, port, client, server };
            if self.mailbox.asked.push(asked).is_err() {
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
                    let Some(waiting) = self.held.tell(told.token, told.party, owner) else { continue };
                    let heard = Heard { witnesses: waiting.missing.witnesses, until: Some(waiting.until) };
                    self.admit_as(waiting.arrived, heard);
                }
                Err(why) => {
                    let Some(waiting) = self.held.take(told.token) else { continue };
                    self.refuse_unattested(&waiting, why.to_string());
                }
            }
        }
    }

    /// Those that have waited long enough.
    pub(super) fn refuse_late(&mut self) {
        while let Some(waiting) = self.held.take_late(self.now.mono) {
            let who = if waiting.missing.caller { "calls" } else { "listens" };
            self.refuse_unattested(&waiting, format!("nobody said within {PATIENCE} who {who}: see sluice-ctrl"));
        }
    }

    fn refuse_unattested(&mut self, waiting: &Waiting, why: String) {
        let Some(compiled) = self.compiled.clone() else { return };
        let route = not_attested(why);
        let known = self.refused_by_policy(&compiled, &route, RefuseReason::NotAttested, None);
        self.refuse_arrived(&waiting.arrived, Some(known), RefuseReason::NotAttested);
    }
}
