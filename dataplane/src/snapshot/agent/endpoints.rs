//! Lists of endpoints behind virtual addresses: asked of every core, told when the last has answered.

use ::snapshot::channel::ENDPOINTS_PER_REPLY;
use snapshot::{EndpointLoad, Reply, ToCtrl};

use super::Agent;
use crate::time::Clock;
use crate::worker::Command;

/// A query, while cores still list theirs.
pub(super) struct Listing {
    query: u64,
    waiting: usize,
    found: Vec<EndpointLoad>,
}

impl<C: Clock> Agent<C> {
    pub(super) fn list_endpoints(&mut self, query: u64) {
        let mut waiting = 0;
        for worker in &self.workers {
            waiting += usize::from(worker.mailbox.commands.push(Command::ListEndpoints { query }).is_ok());
            worker.waker.wake();
        }
        match waiting {
            0 => self.send(ToCtrl::Reply { id: query, reply: Reply::Failed("the workers are busy".into()) }),
            _ => self.endpoints.push(Listing { query, waiting, found: Vec::new() }),
        }
    }

    pub(super) fn on_endpoint(&mut self, query: u64, endpoint: EndpointLoad) {
        if let Some(listing) = self.endpoints.iter_mut().find(|listing| listing.query == query) {
            listing.found.push(endpoint);
        }
    }

    pub(super) fn on_endpoints_end(&mut self, query: u64) {
        let Some(at) = self.endpoints.iter().position(|listing| listing.query == query) else { return };
        self.endpoints[at].waiting -= 1;
        if self.endpoints[at].waiting > 0 {
            return;
        }
        let found = self.endpoints.swap_remove(at).found;
        let mut parts = found.chunks(ENDPOINTS_PER_REPLY).map(<[_]>::to_vec).collect::<Vec<_>>();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.send(ToCtrl::Reply { id: query, reply: Reply::Endpoints { part, more: true } });
        }
        self.send(ToCtrl::Reply { id: query, reply: Reply::Endpoints { part: last, more: false } });
    }
}
