//! Which process calls: the SYN is held while the agent has ctrl find out, and goes on or is refused.
//!
//! ```text
//!   SYN ─▶ held ── Asked ──▶ agent ──▶ ctrl
//!            ◀──── Told ─── agent ◀── (late, gone, nobody: refused)
//!            └─▶ admit, as if it came now
//! ```

use std::sync::Arc;

use snapshot::{Owner, RefuseReason};

use super::Worker;
use super::held::{PATIENCE, Waiting};
use crate::io::{PacketIo, PortId};
use crate::parse::Segment;
use crate::policy::not_attested;
use crate::session::Syn;
use crate::time::Clock;

/// A worker's question: which process sent this SYN?
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub token: u64,
    pub port: PortId,
    pub client: std::net::SocketAddr,
    pub server: std::net::SocketAddr,
}

/// The answer to it.
#[derive(Debug, Clone)]
pub struct Told {
    pub token: u64,
    pub found: Result<Arc<Owner>, Arc<str>>,
}

impl<P: PacketIo, C: Clock> Worker<P, C> {
    pub(super) fn hold(&mut self, port: PortId, segment: Segment, syn: Syn, mac: [u8; 6]) {
        let (client, server) = (segment.source, segment.destination);
        let held = self.held.hold(port, segment, syn.clone(), mac, self.now.mono);
        let asked = held.and_then(|token| {
            let full = self.mailbox.asked.push(Asked { token, port, client, server }).is_err();
            if full {
                self.held.take(token);
            }
            if full { Err(RefuseReason::AttestationsFull) } else { Ok(()) }
        });
        if let Err(reason) = asked {
            self.refuse_at_once(port, &segment, &syn, mac, None, reason);
        }
    }

    /// What the agent has found out since the last turn.
    pub(super) fn hear(&mut self) {
        while let Some(told) = self.mailbox.told.pop() {
            // Late, or about a SYN that was overtaken.
            let Some(waiting) = self.held.take(told.token) else { continue };
            match told.found {
                Ok(owner) => self.admit_as(waiting.port, waiting.segment, waiting.syn, waiting.mac, Some(owner)),
                Err(why) => self.refuse_unattested(&waiting, why.to_string()),
            }
        }
    }

    /// Those that have waited long enough.
    pub(super) fn refuse_late(&mut self) {
        while let Some(waiting) = self.held.take_late(self.now.mono) {
            self.refuse_unattested(&waiting, format!("nobody said within {PATIENCE} who calls: see sluice-ctrl"));
        }
    }

    fn refuse_unattested(&mut self, waiting: &Waiting, why: String) {
        let Some(compiled) = self.compiled.clone() else { return };
        let route = not_attested(why);
        let known = self.refused_by_policy(&compiled, &route, RefuseReason::NotAttested, None);
        let Waiting { port, segment, syn, mac, .. } = waiting;
        self.refuse_at_once(*port, segment, syn, *mac, Some(known), RefuseReason::NotAttested);
    }
}
