//! Between the workers and ctrl: whose processes are at the ends of the SYNs that are held.
//!
//! Nothing waits here: what cannot be asked now is answered at once that it cannot be. An id on the
//! channel is a worker's token, which end of the call is meant, and that worker's number.

use std::sync::Arc;

use snapshot::{Found, Party, Question, ToCtrl};

use super::Agent;
use crate::time::Clock;
use crate::worker::{Asked, Told};

/// Messages to ctrl that wait for room on the socket, beyond which no question is put behind them: one
/// that waits so long is answered too late anyway.
const MOST_WAITING: usize = 512;

/// Bits of an id that say whose question it is: cores are fewer than 1024.
const WORKER_BITS: u32 = 10;

impl<C: Clock> Agent<C> {
    pub(super) fn pass_questions(&mut self) {
        for at in 0..self.workers.len() {
            while let Some(asked) = self.workers[at].mailbox.asked.pop() {
                self.ask(at, asked);
            }
        }
    }

    fn ask(&mut self, at: usize, asked: Asked) {
        let Asked { token, party, port, client, server } = asked;
        let id = (token << 1 | u64::from(party == Party::Listener)) << WORKER_BITS | at as u64;
        let interface = self.boot.ports[usize::from(port.0)].interface.clone();
        if self.channel.is_none() {
            self.told(id, Err("sluice-ctrl, which finds out who calls or listens, is not there".into()));
        } else if self.outbox.len() >= MOST_WAITING {
            self.told(id, Err("sluice-ctrl, which finds out who calls or listens, does not read its questions".into()));
        } else {
            self.send(ToCtrl::Attest { id, question: Question { interface, client, server, party } });
        }
    }

    /// An answer that the worker has no room for is late, and the SYN is refused as such.
    pub(super) fn told(&self, id: u64, found: Found) {
        let Some(worker) = self.workers.get((id & ((1 << WORKER_BITS) - 1)) as usize) else { return };
        let found = found.map(Arc::new).map_err(Arc::new);
        let of = id >> WORKER_BITS;
        let party = if of & 1 == 1 { Party::Listener } else { Party::Caller };
        let _ = worker.mailbox.told.push(Told { token: of >> 1, party, found });
        worker.waker.wake();
    }
}
