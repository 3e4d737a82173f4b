//! The decision about a call, in sentences: the same tables and functions, asked for a caller that
//! may not exist yet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::snapshot::report::Caller;
use ::snapshot::{
    Direction, Explanation, PolicyRule, RefuseReason, RuleDirection, RuleId, Side, SourceAddress, TlsMode,
};

use super::explain_behind::{explain_shared, explain_virtual};
use super::explain_caller::explain_undecided;
use super::rules::Ends;
use super::{Known, Proof, Route, Verdict, decide, miss, why_not};
use crate::snapshot::{Compiled, Whose};
use crate::tls::{Peer, Root, SpiffeId};

/// How many entries of a list are shown.
pub(super) const SHOWN: usize = 8;

/// What would happen to a new connection of `caller` to `to` at `now`.
pub fn explain(compiled: &Compiled, caller: &Caller, to: SocketAddr, now: u64) -> Explanation {
    let mut story = Story::new(compiled);
    let Some(position) = place_of(compiled, caller, to, &mut story) else {
        story.refuse(RefuseReason::NoIdentity, None, None);
        return story.told;
    };
    if let Whose::Shared(_, shared) = position.unproven(compiled) {
        return explain_undecided(shared, to, &position, story);
    }
    if let Some(of) = compiled.virtuals.find(to).filter(|_| position.side == Side::Inside) {
        return explain_virtual(compiled, of, &position, story, now);
    }
    if let Some(shared) = compiled.told_apart(to).filter(|shared| shared.alone().is_none()) {
        return explain_shared(shared, to, &position, story, now);
    }
    let proof = Proof { caller: position.caller, listener: story.suppose_listener(to) };
    let client = SocketAddr::new(position.address, 0);
    let route = compiled.route_of(proof, position.side, &position.interface, client, to, now);
    story.tell_route(&route, to, position.id.as_deref());
    story.told
}

/// Where the call would enter, and with which identity, as far as the question tells.
pub(super) struct Position {
    pub side: Side,
    pub interface: String,
    pub address: IpAddr,
    pub id: Option<String>,
    /// Of an address of several workloads: the one that was named.
    pub caller: Known<'static>,
}

impl Position {
    /// Whose the caller's address is, where only that was named.
    fn unproven<'c>(&self, compiled: &'c Compiled) -> Whose<'c> {
        match (self.side, self.caller) {
            (Side::Inside, Known::Nothing) => compiled.places.source(&self.interface, self.address),
            (Side::Inside | Side::Outside, _) => Whose::Nobody,
        }
    }
}

fn place_of(compiled: &Compiled, caller: &Caller, to: SocketAddr, story: &mut Story<'_>) -> Option<Position> {
    let local = compiled.is_ours(to.ip().to_canonical());
    let unspecified = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let (nothing, nowhere) = (Known::Nothing, String::new);
    let outside = |address, id| Position { side: Side::Outside, interface: nowhere(), address, id, caller: nothing };
    match caller {
        Caller::Id(id) | Caller::IdAt(id, _) => {
            let from = match caller {
                Caller::IdAt(_, address) => Some(address.to_canonical()),
                Caller::Id(_) | Caller::Address(_) => None,
            };
            let mut named = compiled.workloads.iter().enumerate();
            match named.find(|(_, w)| *w.spiffe_id == **id && !w.places.is_empty()) {
                Some((index, workload)) => {
                    let holds = |place: &&::snapshot::Place| from.is_none_or(|from| place.prefix.contains(from));
                    let Some(place) = workload.places.iter().find(holds) else {
                        story.say(format!("{id} is workload {}, which is not at that address.", workload.name));
                        return None;
                    };
                    story
                        .say(format!("{id} is workload {} at {} on {}.", workload.name, place.prefix, place.interface));
                    let (interface, address) = (place.interface.clone(), from.unwrap_or(place.prefix.address));
                    Some(Position { side: Side::Inside, interface, address, id: None, caller: Known::Supposed(index) })
                }
                None if local => {
                    story.say(format!("{id} is no workload of this node: it calls from the wire."));
                    Some(outside(from.unwrap_or(unspecified), Some(id.clone())))
                }
                None => {
                    story.say(format!("{id} is no workload of this node, and {to} is none either."));
                    None
                }
            }
        }
        Caller::Address(address) => {
            let address = address.to_canonical();
            let mut places = compiled.workloads.iter().flat_map(|w| &w.places);
            let at = |place: &::snapshot::Place| compiled.places.source(&place.interface, address);
            let found = places.find(|place| place.prefix.contains(address) && !matches!(at(place), Whose::Nobody));
            match found {
                Some(place) => {
                    let interface = place.interface.clone();
                    if let Some(source) = at(place).one().map(|index| &compiled.workloads[index]) {
                        story.say(format!(
                            "{address} on {interface} is workload {}, {}.",
                            source.name, source.spiffe_id
                        ));
                    }
                    Some(Position { side: Side::Inside, interface, address, id: None, caller: nothing })
                }
                None if local => {
                    story.say(format!("{address} is no workload of this node: it calls from the wire."));
                    Some(outside(address, None))
                }
                None => {
                    story.say(format!("{address} has no WorkloadIdentity on this node."));
                    let interface = String::new();
                    Some(Position { side: Side::Inside, interface, address, id: None, caller: nothing })
                }
            }
        }
    }
}

pub(super) struct Story<'a> {
    pub compiled: &'a Compiled,
    pub told: Explanation,
}

impl<'a> Story<'a> {
    pub fn new(compiled: &'a Compiled) -> Self {
        let told = Explanation {
            direction: None,
            allowed: false,
            only_with: None,
            passed: false,
            mode: None,
            refused: None,
            rule: None,
            version: compiled.version,
            steps: Vec::new(),
            undecided: Vec::new(),
        };
        Self { compiled, told }
    }

    pub fn say(&mut self, sentence: String) {
        self.told.steps.push(sentence);
    }

    /// Of an address that is one workload's for its processes, that such a one listens.
    pub fn suppose_listener(&mut self, to: SocketAddr) -> Known<'static> {
        let compiled = self.compiled;
        let Some(shared) = compiled.told_apart(to) else { return Known::Nothing };
        let Some(alone) = shared.alone() else { return Known::Nothing };
        let (name, by) = (&compiled.workloads[alone].name, shared.selectors.iter().map(|(_, by)| by.to_string()));
        let by = by.collect::<Vec<_>>().join(", or ");
        self.say(format!("{} is workload {name} where a process with {by} listens.", to.ip()));
        Known::Supposed(alone)
    }

    pub fn name_rule(&self, rule: Option<RuleId>) -> Option<String> {
        rule.map(|id| self.compiled.rule(id)).map(|rule| format!("{} ({})", rule.name, rule.place))
    }

    pub fn allow(&mut self, rule: Option<RuleId>) {
        self.told.allowed = true;
        self.told.rule = self.name_rule(rule);
        let with = if self.told.only_with.is_some() { " with such a certificate" } else { "" };
        let by = self.told.rule.clone().map_or(String::new(), |rule| format!(" by {rule}"));
        self.say(format!("Allowed{with}{by}."));
    }

    pub fn refuse(&mut self, reason: RefuseReason, rule: Option<RuleId>, detail: Option<String>) {
        self.told.refused = Some(reason);
        self.told.rule = self.name_rule(rule);
        if let Some(detail) = detail {
            self.say(format!("{detail}."));
        }
        let by = self.told.rule.clone().map_or(String::new(), |rule| format!(", by {rule}"));
        self.say(format!("Refused: {} ({}){by}; {}.", reason.meaning(), reason.name(), reason.remedy()));
    }

    pub fn verdict(&mut self, route: &Route, peer: Option<&Peer>) {
        let verdict = decide(self.compiled, route, peer);
        match verdict {
            Verdict::Allow(rule) => self.allow(rule),
            Verdict::Refuse(reason, rule) => {
                let id = peer.map(|peer| &*peer.spiffe_id);
                let detail = why_not(self.compiled, route, (reason, rule), id);
                self.refuse(reason, rule, detail);
            }
        }
        self.tell_shadow(route, peer, verdict);
    }

    pub fn tell_route(&mut self, route: &Route, to: SocketAddr, id: Option<&str>) {
        match route {
            Route::Inbound { workload, mode, ends, .. } => {
                self.tell_inbound(route, (*workload, *mode, *ends), to, id);
            }
            Route::Egress { .. } => self.tell_egress(route, to),
            Route::Local { from, to: callee, mode_in, .. } => {
                let (from, callee) = (&self.compiled.workloads[*from], &self.compiled.workloads[*callee]);
                self.told.direction = Some(Direction::Local);
                self.told.mode = Some(*mode_in);
                let (mode, from, callee) =
                    (mode_in.name(), from.spiffe_id.clone(), (callee.name.clone(), callee.spiffe_id.clone()));
                self.say(format!("{to} is workload {} of this node, {}, mode {mode}.", callee.0, callee.1));
                let caller = hypothetical(&from);
                self.verdict(route, Some(&caller));
            }
            Route::Plain { why, rule, workload, source, .. } => {
                self.told.allowed = true;
                self.told.passed = true;
                self.told.rule = self.name_rule(*rule);
                self.told.mode = match why {
                    super::Why::Disabled => Some(TlsMode::Disable),
                    super::Why::PermissiveEgress => Some(TlsMode::Permissive),
                    super::Why::NotOurs | super::Why::UnmatchedEgress | super::Why::NoIdentity => None,
                };
                self.told.direction = workload.map(|index| self.direction_of(index, to));
                self.say(why.meaning().to_owned());
                self.tell_source(*source);
                self.tell_shadow(route, None, Verdict::Allow(*rule));
            }
            Route::Refuse { reason, workload, rule, detail } => {
                self.told.direction = workload.map(|index| self.direction_of(index, to));
                self.refuse(*reason, *rule, detail.clone());
            }
        }
    }

    fn direction_of(&self, workload: usize, to: SocketAddr) -> Direction {
        let address = to.ip().to_canonical();
        if self.compiled.destinations(address).any(|index| index == workload) {
            Direction::Inbound
        } else if self.compiled.is_ours(address) {
            Direction::Local
        } else {
            Direction::Egress
        }
    }

    fn tell_inbound(
        &mut self,
        route: &Route,
        (workload, mode, ends): (usize, TlsMode, Ends),
        to: SocketAddr,
        id: Option<&str>,
    ) {
        let callee = &self.compiled.workloads[workload];
        self.told.direction = Some(Direction::Inbound);
        self.told.mode = Some(mode);
        self.say(format!("{to} is workload {}, {}, mode {}.", callee.name, callee.spiffe_id, mode.name()));
        match (id, mode) {
            (_, TlsMode::Simple | TlsMode::Disable) | (None, TlsMode::Permissive) => self.verdict(route, None),
            (Some(id), TlsMode::Mutual | TlsMode::Permissive) => match SpiffeId::parse(id) {
                None => {
                    let detail = format!("{id} is no SPIFFE ID");
                    self.refuse(RefuseReason::PeerNoSpiffeId, None, Some(detail));
                }
                Some(parsed) if self.compiled.roots(parsed.trust_domain).is_none() => {
                    let detail = format!("there is no bundle for trust domain {}", parsed.trust_domain);
                    self.refuse(RefuseReason::PeerTrustDomainUnknown, None, Some(detail));
                }
                Some(_) => {
                    self.verdict(route, Some(&hypothetical(id)));
                    if ends.client.is_unspecified() {
                        let seen = ends.seen(RuleDirection::Inbound, Some(id));
                        let fits = |rule: &PolicyRule| !rule.cidrs.is_empty() && miss::names(rule, &seen);
                        self.tell_rules("From where it calls matters (--at)", workload, &seen, fits);
                    }
                }
            },
            (None, TlsMode::Mutual) if matches!(route, Route::Inbound { bypass: Some(_), .. }) => {
                self.say(
                    "From there the port may be called plain (connection.bypass); a caller that offers TLS is one like \
                     any other."
                        .into(),
                );
                self.verdict(route, None);
            }
            (None, TlsMode::Mutual) => {
                self.say("The caller's certificate decides, not its address.".into());
                self.tell_admitted(route, workload, ends);
            }
        }
    }

    /// That the caller's own address is kept goes without saying.
    pub fn tell_source(&mut self, source: SourceAddress) {
        match source {
            SourceAddress::Preserve => {}
            SourceAddress::Node => {
                self.say("The far side sees an address of this node, not the caller's (source: node).".into());
            }
        }
    }
}

impl super::Why {
    /// One sentence.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::NotOurs => "The destination is no workload of this node: relayed plain.",
            Self::Disabled => "The mode is DISABLE: untouched.",
            Self::PermissiveEgress => "The egress mode is PERMISSIVE: relayed plain, and counted.",
            Self::UnmatchedEgress => "No egress entry of the caller matches, and unmatchedEgress is pass: plain.",
            Self::NoIdentity => "The caller has no identity, the destination is no Service of ours: plain.",
        }
    }
}

pub(super) fn hypothetical(id: &str) -> Peer {
    Peer {
        spiffe_id: id.into(),
        serial: "".into(),
        not_after: u64::MAX,
        root: Root::of_nobody(),
        issued: Arc::default(),
    }
}
