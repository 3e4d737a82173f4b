//! What a simulation came to: each call judged, what was reported of it, and nothing left behind.

use snapshot::ConnectionReport;

use super::call::{Call, CallId, Side};
use super::end::End;
use super::gateway::Gateway;
use super::oracle::Oracle;
use super::world::{Broken, World};

impl World {
    /// Until every call is over, all are judged and everything is free again. Panics with `name` otherwise.
    pub fn finish(&mut self, limit: i64, name: &str) {
        self.run_until_over(limit).unwrap_or_else(|broken| panic!("{name}: {broken}"));
        self.judge().unwrap_or_else(|broken| panic!("{name}: {broken}"));
        self.drain().unwrap_or_else(|broken| panic!("{name}: {broken}"));
    }

    /// The one report of a gateway about a call that has ended.
    pub fn report(&self, node: usize, id: CallId) -> ConnectionReport {
        let client = self.calls[id.0].client;
        let mut all = self.gateways[node].ended.iter().filter(|report| report.client == client);
        let only = all.next().unwrap_or_else(|| panic!("{} reported nothing", self.gateways[node].name)).clone();
        assert!(all.next().is_none(), "one connection, one report");
        only
    }

    /// Judges every call.
    pub fn judge(&self) -> Result<(), Broken> {
        for (at, call) in self.calls.iter().enumerate() {
            Oracle::judge(CallId(at), call, &self.hosts)
                .map_err(|what| self.broken(format!("{what}; {}", self.said_about(call))))?;
        }
        match self.hosts.iter().find_map(|host| host.strangers.first().map(|pair| (host.name, pair))) {
            Some((name, (client, server))) => {
                Err(self.broken(format!("{name}: {client} came to {server}, and nobody called so")))
            }
            None => Ok(()),
        }
    }

    /// What the gateways reported about a call.
    fn said_about(&self, call: &Call) -> String {
        let about = |gateway: &Gateway| {
            let of_call = gateway.ended.iter().filter(|report| report.client == call.client);
            let ends: Vec<_> = of_call.map(|r| format!("{:?} {:?} {:?}", r.refused, r.closed, r.detail)).collect();
            format!("{}: {}", gateway.name, ends.join(", "))
        };
        format!("{}; {}", about(&self.gateways[0]), about(&self.gateways[1]))
    }

    /// Lets TIME-WAIT pass, and asks for everything to be free again.
    pub fn drain(&mut self) -> Result<(), Broken> {
        self.run(self.clock.micros() + 150_000_000, |_| false)?;
        let left = self.gateways.iter_mut().find_map(Gateway::leftovers);
        left.map_or(Ok(()), |what| Err(self.broken(what)))
    }

    /// One end of a call, once it is there.
    pub fn end(&self, id: CallId, side: Side) -> Option<&End> {
        self.hosts.iter().flat_map(|host| &host.ends).find(|end| end.call == id && end.side == side)
    }
}
