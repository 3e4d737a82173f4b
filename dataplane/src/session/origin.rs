//! Where the up leg calls from, and whether it leads to whom it is for. From: the caller's own address and port, or the node's (`source: node`).
//!
//! The caller's are what makes us transparent (D1). A far side that cannot route back to the caller is
//! called from the address that the kernel would use, and from a port of a range that is ours. Which
//! ports are taken is what the flow table says, TIME-WAIT included; a port is taken only towards the
//! server that it calls. Of several cores each takes ports whose 4-tuple it owns, so that both legs
//! stay on one core, and no two cores can take the same.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use snapshot::{PortRange, RefuseReason, SourceAddress};

use super::{Context, Session};
use crate::flow::{FlowKey, FlowTable};
use crate::io::{PacketIo, PortId};
use crate::planted::{self, Bug};
use crate::policy::{Listener, Route};
use crate::time::Instant;
use crate::worker::handoff::Handoff;

/// What the up leg's SYN says about where it comes from.
pub(super) struct Origin {
    pub local: SocketAddr,
    pub isn: u32,
}

/// Ports that are looked at without asking what else this turn has to do; each is a hash and a look-up.
/// All the others count as one of the turn's flights of crypto, so that callers who meet a full range
/// cannot stall the loop.
const GLANCE: u32 = 256;

impl Session {
    /// None: a free port has yet to be looked for, in a turn that has the time.
    pub(super) fn origin<P: PacketIo>(
        &self,
        port: PortId,
        cx: &mut Context<'_, P>,
    ) -> Result<Option<Origin>, RefuseReason> {
        match self.plan.source {
            // The far side's TIME-WAIT takes a reused port back only for a higher sequence number,
            // which the caller's own kernel has chosen.
            SourceAddress::Preserve if self.balanced.is_some() => self.beside_callers(port, cx),
            SourceAddress::Preserve => Ok(Some(Origin { local: self.down.remote, isn: self.syn.sequence })),
            SourceAddress::Node => {
                let server = self.destination();
                let address = cx.paths.own_address(server.ip()).ok_or(RefuseReason::NoNodeAddress)?;
                let Some(local) = self.free_port(port, address, cx)? else { return Ok(None) };
                // The caller's number is of another 4-tuple, and may be below the last one of this.
                Ok(Some(Origin { local, isn: cx.stack.isn(local, server, cx.now.mono) }))
            }
        }
    }

    /// What is for a workload of this node goes out in clear, so only where that workload is attested.
    /// Its route may lead elsewhere by now: over the wire, say, when its own port has just gone.
    pub(super) fn leads_to_callee(&self, interface: &str) -> bool {
        let callee = match self.route {
            Route::Inbound { workload, .. } => workload,
            Route::Local { to, .. } => to,
            Route::Egress { .. } | Route::Plain { .. } | Route::Refuse { .. } => return true,
        };
        // Where processes decide, only behind the port where the one that listens was found.
        let elsewhere = |listener: &Listener| *listener.behind != *interface;
        let told = self.witnesses.listener_at(self.destination());
        !told.is_some_and(elsewhere)
            && self.compiled.workloads[callee].places.iter().any(|place| place.interface == interface)
    }

    /// Behind a virtual address the 4-tuple is none that the caller's kernel knows of: its number is not for it,
    /// its port may be in use towards the endpoint, and the packets that come back may be another core's. Then
    /// another port of the caller's address is taken, of those that no kernel gives out. A caller that is given
    /// itself takes no packet from its own address, so that one is from the node's.
    fn beside_callers<P: PacketIo>(
        &self,
        port: PortId,
        cx: &mut Context<'_, P>,
    ) -> Result<Option<Origin>, RefuseReason> {
        let (caller, server) = (self.down.remote, self.destination());
        let itself = caller.ip().to_canonical() == server.ip();
        let search = Search { port, server, address: caller.ip(), handoff: cx.handoff, flows: cx.flows };
        let local = if !itself && search.is_free(caller) {
            caller
        } else {
            let node = || cx.paths.own_address(server.ip()).ok_or(RefuseReason::NoNodeAddress);
            let address = if itself { node()? } else { caller.ip() };
            let Some(local) = self.free_port(port, address, cx)? else { return Ok(None) };
            local
        };
        let isn = match planted::is(Bug::CallersNumberKept) {
            true => self.syn.sequence,
            false => cx.stack.isn(local, server, cx.now.mono),
        };
        Ok(Some(Origin { local, isn }))
    }

    fn free_port<P: PacketIo>(
        &self,
        port: PortId,
        address: IpAddr,
        cx: &mut Context<'_, P>,
    ) -> Result<Option<SocketAddr>, RefuseReason> {
        let (server, range) = (self.destination(), cx.source_ports);
        // RFC 6056 §3.3.3: from a place that the worker's secret gives for this destination, one on with
        // each session: not to be guessed, and what was used last is used again last.
        let start = u64::from(cx.stack.isn(SocketAddr::new(address, 0), server, Instant::ZERO)) + self.id;
        let search = Search { port, server, address, handoff: cx.handoff, flows: cx.flows };
        let glance = GLANCE.min(range.count());
        if let Some(found) = search.first_free(around(range, start, 0..glance)) {
            return Ok(Some(found));
        }
        if glance == range.count() {
            return Err(RefuseReason::NodePortsFull);
        }
        if *cx.handshakes == 0 {
            return Ok(None);
        }
        let found = search.first_free(around(range, start, glance..range.count()));
        *cx.handshakes -= 1;
        found.map(Some).ok_or(RefuseReason::NodePortsFull)
    }
}

/// What a port has to be free for.
struct Search<'a> {
    port: PortId,
    server: SocketAddr,
    address: IpAddr,
    handoff: &'a Handoff,
    flows: &'a FlowTable,
}

impl Search<'_> {
    fn first_free(&self, mut ports: impl Iterator<Item = u16>) -> Option<SocketAddr> {
        ports.find_map(|port| Some(SocketAddr::new(self.address, port)).filter(|from| self.is_free(*from)))
    }

    /// Its packets come to this core, and no flow of that name lives or rests.
    fn is_free(&self, from: SocketAddr) -> bool {
        self.handoff.other_owner(self.server, from).is_none()
            && self.flows.find(&FlowKey::new(self.port, self.server, from)).is_none()
    }
}

/// The ports so many steps after `start`, on the ring that the range is.
fn around(range: PortRange, start: u64, steps: Range<u32>) -> impl Iterator<Item = u16> {
    steps.map(move |step| range.nth(start + u64::from(step)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{FlowRef, Leg};
    use crate::worker::handoff::Wake;

    #[test]
    fn all_ports_are_looked_at_once_wherever_the_search_starts() {
        let range: PortRange = "61000-61006".parse().unwrap();
        for start in [0, 5, u64::from(u32::MAX) + 9] {
            let mut seen: Vec<u16> = around(range, start, 0..3).chain(around(range, start, 3..7)).collect();
            assert_eq!(seen[0], 61_000 + (start % 7) as u16);
            seen.sort_unstable();
            assert_eq!(seen, (61_000..=61_006).collect::<Vec<_>>());
        }
    }

    #[test]
    fn two_cores_share_the_ports_each_what_it_owns_and_a_flow_that_rests_keeps_its_own() {
        const SEED: u64 = 7;
        let wakes = || vec![Box::new(|| ()) as Wake];
        let cores = Handoff::between(2, SEED, 100, vec![wakes(), wakes()]);
        let range: PortRange = "61000-61299".parse().unwrap();
        let [server, other]: [SocketAddr; 2] = ["198.18.2.2:3000", "198.18.2.3:3000"].map(|at| at.parse().unwrap());
        let (port, address) = (PortId(1), IpAddr::from([198, 18, 10, 1]));
        let mut taken = Vec::new();
        for (core, handoff) in cores.iter().enumerate() {
            let mut flows = FlowTable::new(1_000, 1);
            let next = |flows: &FlowTable, server| {
                let search = Search { port, server, address, handoff, flows };
                search.first_free(around(range, 90, 0..range.count()))
            };
            while let Some(local) = next(&flows, server) {
                for (source, destination) in [(server, local), (local, server)] {
                    assert_eq!(crate::flow::owner(source, destination, SEED, 2), core, "{local}");
                }
                taken.push(local.port());
                flows.insert(FlowKey::new(port, server, local), FlowRef::Live { session: 0, leg: Leg::Up });
            }
            assert!(next(&flows, other).is_some(), "a port is taken towards one server only");
            let resting = SocketAddr::new(address, *taken.last().expect("each core owns some"));
            let key = FlowKey::new(port, server, resting);
            flows.insert(key, FlowRef::Spent { until: Instant::from_secs(10) });
            assert_eq!(next(&flows, server), None, "TIME-WAIT keeps it");
            flows.remove(&key);
            assert_eq!(next(&flows, server), Some(resting));
        }
        taken.sort_unstable();
        assert_eq!(taken, range.ports().collect::<Vec<_>>(), "together they have all, and none twice");
    }
}
