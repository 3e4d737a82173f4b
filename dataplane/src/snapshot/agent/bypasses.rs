//! What each bypass has let through: connections that the workers relayed, and SYNs of the node's own that
//! the guard let by.

use std::net::IpAddr;

use snapshot::channel::RULES_PER_REPLY;
use snapshot::{Bypass, BypassHits, Reply, ToCtrl};

use super::Agent;
use crate::policy::captures::Bypassed;
use crate::snapshot::Workload;
use crate::time::Clock;

impl<C: Clock> Agent<C> {
    pub(super) fn reply_bypasses(&mut self, id: u64) {
        let by_guard = self.steering.bypasses();
        let mut all = Vec::new();
        for workload in self.compiled.iter().flat_map(|compiled| &compiled.workloads) {
            for (entry, connections) in workload.bypass.hits() {
                let source = self.compiled.as_ref().expect("it has the workload").rule(entry.rule);
                let rule = format!("{} ({})", source.name, source.place);
                let from_node = by_guard.iter().filter(|(call, _)| is_of(workload, entry, call));
                all.push(BypassHits { rule, connections, from_node: from_node.map(|(_, syns)| syns).sum() });
            }
        }
        let mut parts = all.chunks(RULES_PER_REPLY).map(<[_]>::to_vec).collect::<Vec<_>>();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.send(ToCtrl::Reply { id, reply: Reply::Bypasses { part, more: true } });
        }
        self.send(ToCtrl::Reply { id, reply: Reply::Bypasses { part: last, more: false } });
    }
}

fn is_of(workload: &Workload, entry: &Bypass, call: &Bypassed) -> bool {
    let is_at = |address: IpAddr| workload.places.iter().any(|place| place.prefix.contains(address));
    // As with a worker: the first entry that holds it is the one that counts.
    workload.bypass.of_node(call.source, call.server.port()) == Some(entry.rule) && is_at(call.server.ip())
}
