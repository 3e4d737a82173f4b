//! SYNs that wait until it is known which process sent them: a bounded list, oldest first.
//!
//! Nothing is spent on them yet: no session, no flow, no crypto. The caller's SYN that comes again is
//! no news. A SYN of the same 4-tuple with another sequence number is another call, whose process may
//! be another one: what is found out about the first is not about it.

use snapshot::RefuseReason;

use crate::flow::FlowKey;
use crate::io::PortId;
use crate::parse::Segment;
use crate::planted::{self, Bug};
use crate::session::Syn;
use crate::time::{Duration, Instant};

/// How many may wait on a core.
pub const HELD: usize = 256;

/// How long: less than a tenth of the second after which the caller's kernel would ask again.
pub const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct Waiting {
    key: FlowKey,
    pub token: u64,
    pub port: PortId,
    pub segment: Segment,
    pub syn: Syn,
    pub mac: [u8; 6],
    until: Instant,
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

    /// Whether this very SYN waits. One of the same name that is another call is forgotten.
    pub fn has(&mut self, key: &FlowKey, sequence: u32) -> bool {
        let Some(at) = self.waiting.iter().position(|waiting| waiting.key == *key) else { return false };
        let same = self.waiting[at].syn.sequence == sequence || planted::is(Bug::AnswerUnbound);
        if !same {
            self.waiting.remove(at);
        }
        same
    }

    /// The token that the answer has to name.
    pub fn hold(
        &mut self,
        port: PortId,
        segment: Segment,
        syn: Syn,
        mac: [u8; 6],
        now: Instant,
    ) -> Result<u64, RefuseReason> {
        if self.waiting.len() == HELD {
            return Err(RefuseReason::AttestationsFull);
        }
        let (key, token) = (FlowKey::new(port, segment.source, segment.destination), self.next_token);
        self.next_token += 1;
        self.waiting.push(Waiting { key, token, port, segment, syn, mac, until: now + PATIENCE });
        Ok(token)
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
