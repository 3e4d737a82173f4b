//! SYNs that wait until it is known which processes call and listen: a bounded list, oldest first.
//!
//! Nothing is spent on them yet: no session, no flow, no crypto. The caller's SYN that comes again is
//! no news. A SYN of the same 4-tuple with another sequence number is another call, whose process may
//! be another one: what is found out about the first is not about it.

use std::net::SocketAddr;
use std::sync::Arc;

use snapshot::{Owner, Party, RefuseReason, Side};

use crate::flow::FlowKey;
use crate::io::PortId;
use crate::parse::Segment;
use crate::planted::{self, Bug};
use crate::policy::{Listener, Witnesses};
use crate::session::Syn;
use crate::time::{Duration, Instant};

/// How many may wait on a core.
pub const HELD: usize = 256;

/// How many of them may have come from the wire: a flood leaves the workloads their share.
pub const FROM_WIRE: usize = HELD / 2;

/// How long: less than a tenth of the second after which the caller's kernel would ask again.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// What was found out about a call, and until when it may wait for more.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    pub witnesses: Witnesses,
    pub until: Option<Instant>,
    /// The endpoint behind a virtual address where nobody listens.
    pub tried: Option<SocketAddr>,
}

/// A SYN, and how it came in.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub port: PortId,
    pub side: Side,
    pub segment: Segment,
    pub syn: Syn,
    pub mac: [u8; 6],
}

impl Arrived {
    pub fn key(&self) -> FlowKey {
        FlowKey::new(self.port, self.segment.source, self.segment.destination)
    }
}

/// What a SYN waits for.
#[derive(Debug, Clone)]
pub struct Missing {
    pub caller: bool,
    pub listener: bool,
    /// Where it goes: behind a virtual address, the endpoint that it is given.
    pub server: SocketAddr,
    /// The inside port that whoever listens there is behind.
    pub behind: Option<Arc<str>>,
    /// What is known by now.
    pub heard: Heard,
}

#[derive(Debug, Clone)]
pub struct Waiting {
    key: FlowKey,
    pub token: u64,
    pub arrived: Arrived,
    pub missing: Missing,
    pub until: Instant,
}

#[derive(Debug)]
pub struct Held {
    waiting: Vec<Waiting>,
    next_token: u64,
}

impl Held {
    pub fn new() -> Self {
        Self { waiting: Vec::with_capacity(HELD), next_token: 1 }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether this very SYN waits. One of the same name that is another call is forgotten.
    pub fn has(&mut self, key: &FlowKey, sequence: u32) -> bool {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.key == *key) else { return false };
        let same = self.waiting[at].arrived.syn.sequence == sequence || planted::is(Bug::AnswerUnbound);
        if !same {
            self.waiting.remove(at);
        }
        same
    }

    /// The token that the answers have to name.
    pub fn hold(&mut self, arrived: Arrived, missing: Missing, until: Instant) -> Result<u64, RefuseReason> {
        let of_wire = |waiting: &&Waiting| waiting.arrived.side == Side::Outside;
        let crowded = arrived.side == Side::Outside
            && self.waiting.iter().filter(of_wire).count() >= FROM_WIRE
            && !planted::is(Bug::WireHoldsAll);
        if crowded || self.waiting.len() == HELD {
            return Err(RefuseReason::AttestationsFull);
        }
        let token = self.next_token;
        self.next_token += 1;
        let at = self.waiting.partition_point(|waiting| waiting.until <= until);
        self.waiting.insert(at, Waiting { key: arrived.key(), token, arrived, missing, until });
        Ok(token)
    }

    /// One answer. The SYN goes on when it was the last.
    pub fn tell(&mut self, token: u64, party: Party, owner: Arc<Owner>) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.token == token)?;
        let missing = &mut self.waiting[at].missing;
        match party {
            Party::Caller => {
                missing.caller = false;
                missing.heard.witnesses.caller = Some(owner);
            }
            Party::Listener => {
                missing.listener = false;
                let at = missing.server;
                missing.heard.witnesses.listener = missing.behind.clone().map(|behind| Listener { at, behind, owner });
            }
        }
        (!missing.caller && !missing.listener).then(|| self.waiting.remove(at))
    }

    /// None: nobody waits for that any more.
    pub fn take(&mut self, token: u64) -> Option<Waiting> {
        let at = self.waiting.iter().position(|waiting| waiting.token == token)?;
        Some(self.waiting.remove(at))
    }

    pub fn take_late(&mut self, now: Instant) -> Option<Waiting> {
        let late = self.next().is_some_and(|until| until <= now) && !planted::is(Bug::HeldTooLong);
        late.then(|| self.waiting.remove(0))
    }

    /// When the first of them has waited long enough.
    pub fn next(&self) -> Option<Instant> {
        self.waiting.first().map(|waiting| waiting.until)
    }
}
