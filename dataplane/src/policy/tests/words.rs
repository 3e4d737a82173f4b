//! Policy read off its words, slowly: what README, ARCHITECTURE (D11) and `snapshot::rules` say, rule by
//! rule and list by list, with no table. Nothing of the compiled policy is used here, and nothing that
//! decides uses this.

use std::net::{IpAddr, SocketAddr};

use ::snapshot::RefuseReason::{self, *};
use ::snapshot::{
    Action, EgressRule, Enforcement, IdPattern, PolicyRule, RuleDirection, RuleId, Side, Snapshot, TlsMode, Unmatched,
    Workload,
};

/// A call, and what the side that is far from us proves to be, if it is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub side: Side,
    pub interface: &'static str,
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub shown: Option<String>,
}

/// What the words say of a call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// Everything that speaks against it; nothing: it is allowed.
    pub against: Vec<RefuseReason>,
    /// Rules with this action that match it: any of them may be named.
    pub denies: Vec<RuleId>,
    pub allows: Vec<RuleId>,
}

/// One reading of the policy.
pub struct Reading<'s> {
    pub snapshot: &'s Snapshot,
    /// Whether rules in shadow are read as if they were enforced.
    pub with_shadow: bool,
}

impl Reading<'_> {
    pub fn of(&self, call: &Call) -> Said {
        let owner = self.owner(call.server.ip());
        match call.side {
            Side::Outside => match owner {
                None => Said::default(),
                Some(callee) => self.to_workload(callee, call, None),
            },
            Side::Inside => {
                // A port under DISABLE is not ours to touch: the callee is like anybody elsewhere.
                let callee = owner.filter(|callee| mode_of(callee, call.server.port()) != TlsMode::Disable);
                match (self.sender(call), callee) {
                    (None, None) => self.nobody_calls(call, owner.is_some()),
                    (None, Some(callee)) if mode_of(callee, call.server.port()) == TlsMode::Mutual => {
                        Said { against: vec![NoIdentity], ..Said::default() }
                    }
                    (None, Some(callee)) => self.to_workload(callee, call, None),
                    (Some(caller), Some(callee)) => self.within_the_node(caller, callee, call),
                    (Some(caller), None) => self.to_elsewhere(caller, call),
                }
            }
        }
    }

    /// A caller without identity behind an inside port: refused at services of ours, and everywhere if
    /// unmatched calls are. What a workload of ours leaves alone passes.
    fn nobody_calls(&self, call: &Call, left_alone: bool) -> Said {
        let ours = self
            .snapshot
            .services
            .iter()
            .flat_map(|s| &s.endpoints)
            .any(|e| canonical(e.address) == canonical(call.server));
        let refused = !left_alone && (ours || self.snapshot.unmatched_egress == Unmatched::Refuse);
        Said { against: if refused { vec![NoIdentity] } else { vec![] }, ..Said::default() }
    }

    /// `attested`: the caller, where it is of this node and left to speak TLS itself.
    fn to_workload(&self, callee: &Workload, call: &Call, attested: Option<&Workload>) -> Said {
        let mut said = Said::default();
        let mode = mode_of(callee, call.server.port());
        let shown = call.shown.as_deref();
        match mode {
            TlsMode::Disable => return said,
            // Server-only TLS: the caller is anonymous.
            TlsMode::Simple => self.deny(callee, RuleDirection::Inbound, call, None, &mut said),
            TlsMode::Mutual => {
                self.deny(callee, RuleDirection::Inbound, call, shown, &mut said);
                match shown {
                    None => said.against.push(PlaintextRefused),
                    Some(id) => self.inbound_list(callee, mode, call, id, &mut said),
                }
            }
            TlsMode::Permissive => {
                self.deny(callee, RuleDirection::Inbound, call, shown, &mut said);
                if let Some(id) = shown {
                    self.inbound_list(callee, mode, call, id, &mut said);
                }
            }
        }
        if let Some(caller) = attested {
            self.deny(callee, RuleDirection::Inbound, call, Some(&caller.spiffe_id), &mut said);
        }
        said
    }

    fn within_the_node(&self, caller: &Workload, callee: &Workload, call: &Call) -> Said {
        let mut said = Said::default();
        self.deny(caller, RuleDirection::Outbound, call, Some(&callee.spiffe_id), &mut said);
        let entry = self.entry(caller, call.server);
        let mode_out = match entry {
            Some(entry) => entry.mode.unwrap_or(caller.mode),
            None if caller.unmatched_egress == Unmatched::Refuse => {
                said.against.push(UnmatchedEgress);
                self.deny(callee, RuleDirection::Inbound, call, Some(&caller.spiffe_id), &mut said);
                return said;
            }
            None => TlsMode::Permissive,
        };
        if mode_out == TlsMode::Disable {
            let inner = self.to_workload(callee, call, Some(caller));
            said.against.extend(inner.against);
            said.denies.extend(inner.denies);
            said.allows.extend(inner.allows);
            return said;
        }
        self.deny(callee, RuleDirection::Inbound, call, Some(&caller.spiffe_id), &mut said);
        if let Some(entry) = entry {
            self.outbound_lists(caller, entry, call, Some(&callee.spiffe_id), &mut said);
        }
        let mode_in = mode_of(callee, call.server.port());
        let known = mode_in == TlsMode::Mutual || (mode_in == TlsMode::Permissive && mode_out == TlsMode::Mutual);
        if known {
            self.inbound_list(callee, mode_in, call, &caller.spiffe_id, &mut said);
        }
        said
    }

    fn to_elsewhere(&self, caller: &Workload, call: &Call) -> Said {
        let mut said = Said::default();
        let Some(entry) = self.entry(caller, call.server) else {
            self.deny(caller, RuleDirection::Outbound, call, None, &mut said);
            if caller.unmatched_egress == Unmatched::Refuse {
                said.against.push(UnmatchedEgress);
            }
            return said;
        };
        match entry.mode.unwrap_or(caller.mode) {
            TlsMode::Disable => self.deny(caller, RuleDirection::Outbound, call, None, &mut said),
            TlsMode::Permissive => {
                self.deny(caller, RuleDirection::Outbound, call, None, &mut said);
                // A plain server has no SPIFFE ID that could be in a list.
                if entry.allowed.is_some() || caller.outbound.is_some() {
                    said.against.push(NotAllowedOutbound);
                }
            }
            TlsMode::Mutual | TlsMode::Simple => {
                self.deny(caller, RuleDirection::Outbound, call, call.shown.as_deref(), &mut said);
                self.outbound_lists(caller, entry, call, call.shown.as_deref(), &mut said);
            }
        }
        said
    }

    fn deny(&self, of: &Workload, direction: RuleDirection, call: &Call, id: Option<&str>, said: &mut Said) {
        let found = self.matching(of, Action::Deny, direction, call, id);
        if !found.is_empty() {
            said.against.push(DeniedByRule);
        }
        said.denies.extend(found);
    }

    /// No list under MUTUAL: nobody, but for whom an allow names. No list under PERMISSIVE: whoever proves
    /// an ID.
    fn inbound_list(&self, callee: &Workload, mode: TlsMode, call: &Call, id: &str, said: &mut Said) {
        let allows = self.matching(callee, Action::Allow, RuleDirection::Inbound, call, Some(id));
        let admitted = match &callee.inbound {
            Some(list) => list.iter().any(|pattern| under(pattern, id)),
            None => mode == TlsMode::Permissive,
        };
        if !admitted && allows.is_empty() {
            said.against.extend([NotAllowedInbound, NoInboundList]);
        }
        said.allows.extend(allows);
    }

    /// Egress AND outbound; allows add to the latter, if it is there.
    fn outbound_lists(&self, caller: &Workload, entry: &EgressRule, call: &Call, id: Option<&str>, said: &mut Said) {
        let within = |list: &[IdPattern]| id.is_some_and(|id| list.iter().any(|pattern| under(pattern, id)));
        if entry.allowed.as_ref().is_some_and(|list| !within(list)) {
            said.against.push(NotAllowedOutbound);
        }
        let allows = self.matching(caller, Action::Allow, RuleDirection::Outbound, call, id);
        if caller.outbound.as_ref().is_some_and(|list| !within(list)) && allows.is_empty() {
            said.against.push(NotAllowedOutbound);
        }
        said.allows.extend(allows);
    }

    fn matching(
        &self,
        of: &Workload,
        action: Action,
        direction: RuleDirection,
        call: &Call,
        id: Option<&str>,
    ) -> Vec<RuleId> {
        let address = match direction {
            RuleDirection::Inbound => call.client,
            RuleDirection::Outbound => call.server,
        };
        let counts = |rule: &PolicyRule| self.with_shadow || rule.enforcement == Enforcement::Enforce;
        let matches = |rule: &PolicyRule| {
            let peers = rule.peers.is_empty() || id.is_some_and(|id| rule.peers.iter().any(|peer| under(peer, id)));
            let cidrs = rule.cidrs.is_empty()
                || rule.cidrs.iter().any(|cidr| holds(cidr.address, cidr.length, canonical(address).ip()));
            let port = call.server.port();
            let ports = rule.ports.is_empty() || rule.ports.iter().any(|r| r.first() <= port && port <= r.last());
            (rule.action, rule.direction) == (action, direction) && counts(rule) && peers && cidrs && ports
        };
        let mut found = Vec::new();
        for policy in of.policies.iter().map(|&index| &self.snapshot.policies[index as usize]) {
            for (nth, _) in policy.rules.iter().enumerate().filter(|(_, rule)| matches(rule)) {
                found.push(RuleId(policy.first.0 + nth as u32));
            }
        }
        found
    }

    /// The workload of this node that an address belongs to.
    fn owner(&self, address: IpAddr) -> Option<&Workload> {
        let holds =
            |workload: &&Workload| workload.places.iter().any(|place| place.prefix.address == address.to_canonical());
        self.snapshot.workloads.iter().find(holds)
    }

    fn sender(&self, call: &Call) -> Option<&Workload> {
        let address = canonical(call.client).ip();
        let holds = |workload: &&Workload| {
            workload.places.iter().any(|place| place.interface == call.interface && place.prefix.address == address)
        };
        self.snapshot.workloads.iter().find(holds)
    }

    /// The first entry that selects the destination.
    fn entry<'w>(&self, caller: &'w Workload, server: SocketAddr) -> Option<&'w EgressRule> {
        let has = |service: u32| {
            let service = &self.snapshot.services[service as usize];
            service.endpoints.iter().any(|endpoint| canonical(endpoint.address) == canonical(server))
        };
        caller.egress.iter().find(|entry| entry.services.iter().any(|&service| has(service)))
    }
}

fn mode_of(workload: &Workload, port: u16) -> TlsMode {
    workload.ports.iter().find(|(own, _)| *own == port).map_or(workload.mode, |(_, mode)| *mode)
}

/// An ID, or everything under a path, the path itself not.
fn under(pattern: &IdPattern, id: &str) -> bool {
    match pattern {
        IdPattern::Exact(exact) => exact == id,
        IdPattern::Under(path) => id.strip_prefix(path.as_str()).is_some_and(|rest| !rest.is_empty()),
    }
}

/// Bit by bit, as RFC 4632 and RFC 4291 have it; one family holds none of the other.
fn holds(network: IpAddr, length: u8, address: IpAddr) -> bool {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (network, address) = (octets(network), octets(address));
    let bit = |octets: &[u8], nth: usize| octets[nth / 8] >> (7 - nth % 8) & 1;
    network.len() == address.len() && (0..usize::from(length)).all(|nth| bit(&network, nth) == bit(&address, nth))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
