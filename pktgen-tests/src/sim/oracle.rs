//! The judge: looks at every frame and every end, from outside, and says which promise was broken.

use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::call::{Call, CallId, Expect, Side};
use super::host::Host;
use super::topology::Segment;
use super::wire::{Map, Wire, see};

#[derive(Debug, Default)]
pub struct Oracle {
    wire: Wire,
    by_tuple: Map<(SocketAddr, SocketAddr), CallId>,
    /// Calls that the version in force does not allow (any more).
    forbidden: HashSet<CallId, FixedState>,
    /// Servers that nodes call plainly in their own names, so that no tuple says whose call it is.
    in_clear: HashSet<SocketAddr, FixedState>,
    /// The sequence number of the last SYN of each 4-tuple.
    pub syns: Map<(SocketAddr, SocketAddr), u32>,
    /// Payload bytes in frames towards services.
    pub carried: u64,
}

impl Oracle {
    pub fn know(&mut self, id: CallId, call: &Call) {
        self.by_tuple.insert((call.client, call.server), id);
        if call.expect == Expect::Refused {
            self.forbidden.insert(id);
        }
    }

    /// From now on no byte of the call may reach its service.
    pub fn forbid(&mut self, id: CallId) {
        self.forbidden.insert(id);
    }

    /// Whatever goes to `server` and back may be in clear on the outside link.
    pub fn in_clear(&mut self, server: SocketAddr) {
        self.in_clear.insert(server);
    }

    /// A frame that `segment` is about to carry; `gateway`: a gateway sends it.
    pub fn sent(&mut self, segment: Segment, gateway: bool, frame: &[u8], calls: &[Call]) -> Result<(), String> {
        let Some(seen) = see(frame) else { return Ok(()) };
        if seen.syn {
            self.syns.insert((seen.source, seen.destination), seen.sequence);
        }
        let from_client = self.by_tuple.get(&(seen.source, seen.destination)).copied();
        let call = from_client.or_else(|| self.by_tuple.get(&(seen.destination, seen.source)).copied());
        let plain = call.is_some_and(|id| calls[id.0].plain)
            || [seen.source, seen.destination].iter().any(|end| self.in_clear.contains(end));
        if segment == Segment::Wire && !plain {
            self.wire.sealed(&seen)?;
        }
        if let (Some(id), true) = (from_client, gateway && segment != Segment::Wire && !seen.payload.is_empty()) {
            self.carried += seen.payload.len() as u64;
            if self.forbidden.contains(&id) {
                let Call { client, server, from, .. } = &calls[id.0];
                return Err(format!("payload without an Allow in force: {from} {client} to {server} ({id:?})"));
            }
        }
        Ok(())
    }

    pub fn records(&self) -> u64 {
        self.wire.records
    }

    /// Whether both ends of the call have come to an end.
    pub fn is_over(id: CallId, hosts: &[Host]) -> bool {
        let end = |side| find(hosts, id, side);
        match (end(Side::Client), end(Side::Server)) {
            (Some(client), server) => client.progress.over && server.is_none_or(|server| server.progress.over),
            (None, _) => false,
        }
    }

    /// At the end: what each side was left with against what it should have been.
    pub fn judge(id: CallId, call: &Call, hosts: &[Host]) -> Result<(), String> {
        let client = &find(hosts, id, Side::Client).ok_or("the call was never made")?.progress;
        let server = find(hosts, id, Side::Server).map(|end| &end.progress);
        let fail = |what: &str| {
            Err(format!(
                "{id:?} {} {} to {}, {:?}: {what}; client {client:?}, server {server:?}",
                call.from, call.client, call.server, call.expect
            ))
        };
        let complete = |progress: &super::call::Progress, side: Side| {
            progress.received == call.script(side.other()).send && progress.sent == call.script(side).send
        };
        match (call.expect, server) {
            (Expect::Delivered, None) => fail("the service never saw it"),
            (Expect::Delivered, Some(server)) => {
                if !complete(client, Side::Client) || !complete(server, Side::Server) {
                    fail("bytes are missing")
                } else if client.aborted || server.aborted || !client.ended || !server.ended {
                    fail("it did not end in order")
                } else {
                    Ok(())
                }
            }
            // A client that gives up at once may be gone before its service is called.
            (Expect::AbortedBy(Side::Client), None) if client.received == 0 => Ok(()),
            (Expect::AbortedBy(_), None) => fail("the service never saw it"),
            (Expect::AbortedBy(side), Some(server)) => {
                let victim = if side == Side::Client { server } else { client };
                match (victim.ended, victim.aborted) {
                    (true, _) => fail("an abort was told as an orderly end"),
                    (false, false) => fail("the abort was never told"),
                    (false, true) => Ok(()),
                }
            }
            (Expect::Refused, server) => {
                if server.is_some_and(|server| server.received > 0) {
                    fail("the service got bytes of a refused call")
                } else if client.received > 0 || client.ended || !client.aborted {
                    fail("the client was not refused")
                } else {
                    Ok(())
                }
            }
            (Expect::Cut, Some(server)) if complete(client, Side::Client) && complete(server, Side::Server) => Ok(()),
            (Expect::Cut, None) => Ok(()),
            (Expect::Cut, Some(server)) => {
                let orderly =
                    |progress: &super::call::Progress, side: Side| progress.ended && !complete(progress, side);
                if orderly(client, Side::Client) || orderly(server, Side::Server) {
                    fail("a cut was told as an orderly end")
                } else {
                    Ok(())
                }
            }
            (Expect::GivenUp, server) => {
                if client.ended || !client.aborted || server.is_some_and(|server| server.ended || !server.aborted) {
                    fail("giving up was not told as an abort")
                } else {
                    Ok(())
                }
            }
        }
    }
}

fn find(hosts: &[Host], id: CallId, side: Side) -> Option<&super::end::End> {
    hosts.iter().flat_map(|host| &host.ends).find(|end| end.call == id && end.side == side)
}
