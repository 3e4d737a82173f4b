//! Where a captured SYN goes, and under which mode: from addresses alone, before any cryptography.
//!
//! ```text
//!   outside ─▶ destination is ours? ── no ──▶ Plain(NotOurs)
//!                └ yes: mode of its port ──▶ Inbound | Plain(Disabled) | Refuse(NoSvid)
//!   inside ──▶ destination is ours, and its port not DISABLE? ─▶ Local | Inbound | Refuse
//!                └ no: egress rule of the caller ─▶ Egress | Plain | Refuse
//! ```

use std::net::SocketAddr;

use ::snapshot::{Action, RefuseReason, RuleDirection, RuleId, Side, SourceAddress, TlsMode, Unmatched};

use super::attest::Proof;
use super::rules::{Ends, Trial};
use crate::planted::{self, Bug};
use crate::snapshot::{Compiled, EndpointId};

/// What a captured SYN is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// To a workload of this node; `mode` is that of its port. Comes from the wire, or from an
    /// inside port when the caller has no identity here or is left to speak TLS itself.
    Inbound {
        workload: usize,
        mode: TlsMode,
        ends: Ends,
        /// The caller, if it is a workload of this node that is left to speak TLS itself.
        from: Option<usize>,
        /// What lets the caller in if it speaks plain, although the mode does not.
        bypass: Option<RuleId>,
    },
    /// From a workload to a service elsewhere, over TLS: `mode` is MUTUAL or SIMPLE.
    Egress {
        workload: usize,
        endpoint: EndpointId,
        rule: usize,
        mode: TlsMode,
        source: SourceAddress,
        ends: Ends,
    },
    /// Between two workloads of this node, both attested here: decided like a wire call, relayed
    /// plain. `rule`: None where no egress rule matched and unmatched calls pass.
    Local {
        from: usize,
        to: usize,
        rule: Option<usize>,
        mode_in: TlsMode,
        mode_out: TlsMode,
        ends: Ends,
    },
    /// Relayed plain, and counted.
    Plain {
        workload: Option<usize>,
        why: Why,
        rule: Option<RuleId>,
        source: SourceAddress,
        /// Of a call that the workload makes: its outbound rules speak about it.
        outbound: Option<Ends>,
    },
    Refuse {
        reason: RefuseReason,
        workload: Option<usize>,
        rule: Option<RuleId>,
        detail: Option<String>,
    },
}

impl Route {
    /// Relayed plain, with the caller's own address.
    const fn plain(workload: Option<usize>, why: Why, rule: Option<RuleId>) -> Self {
        Self::Plain { workload, why, rule, source: SourceAddress::Preserve, outbound: None }
    }

    /// The same for a call of the workload's own.
    const fn plain_outbound(workload: usize, why: Why, rule: Option<RuleId>, ends: Ends) -> Self {
        let source = SourceAddress::Preserve;
        Self::Plain { workload: Some(workload), why, rule, source, outbound: Some(ends) }
    }

    /// The same refusal, if it is one, of this workload's call.
    pub(super) fn about(self, whom: Option<usize>) -> Self {
        match self {
            Self::Refuse { reason, workload, rule, detail } => {
                Self::Refuse { reason, workload: workload.or(whom), rule, detail }
            }
            other => other,
        }
    }

    /// Which address the far side sees.
    pub const fn source(&self) -> SourceAddress {
        match *self {
            Self::Egress { source, .. } | Self::Plain { source, .. } => source,
            Self::Inbound { .. } | Self::Local { .. } | Self::Refuse { .. } => SourceAddress::Preserve,
        }
    }
}

/// Why a call is relayed plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// From the wire to an address that is no workload's (any more).
    NotOurs,
    /// The mode is DISABLE: not ours to touch.
    Disabled,
    /// The egress mode is PERMISSIVE.
    PermissiveEgress,
    /// No egress rule matched, and unmatched calls pass.
    UnmatchedEgress,
    /// The caller has no identity, the destination is no service of ours, and that passes.
    NoIdentity,
}

impl Why {
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotOurs => "NotOurs",
            Self::Disabled => "Disabled",
            Self::PermissiveEgress => "PermissiveEgress",
            Self::UnmatchedEgress => "UnmatchedEgress",
            Self::NoIdentity => "NoIdentity",
        }
    }
}

/// Whether SVIDs are asked to be valid: for new connections they are; living ones outlast theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Svids {
    ValidAt(u64),
    AsTheyAre,
}

impl Compiled {
    /// `interface` is the name of the port that the SYN came in on, `side` that port's side.
    pub fn route(&self, side: Side, interface: &str, client: SocketAddr, server: SocketAddr, now: u64) -> Route {
        self.route_of(Proof::NONE, side, interface, client, server, now)
    }

    /// The same, where it was asked which processes call and listen.
    pub fn route_of(
        &self,
        proof: Proof<'_>,
        side: Side,
        interface: &str,
        client: SocketAddr,
        server: SocketAddr,
        now: u64,
    ) -> Route {
        self.route_with(Svids::ValidAt(now), proof, side, interface, client, server)
    }

    pub(super) fn route_with(
        &self,
        svids: Svids,
        proof: Proof<'_>,
        side: Side,
        interface: &str,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Route {
        let (client, server) = (canonical(client), canonical(server));
        let ends = Ends { client: client.ip(), server };
        let callee = self.callee(server, proof);
        match side {
            Side::Outside => match callee {
                Ok(Some(to)) => self.inbound(svids, None, to, ends, self.bypass(to, ends)),
                Ok(None) => Route::plain(None, Why::NotOurs, None),
                Err(refusal) => refusal,
            },
            Side::Inside => {
                let from = match self.caller(interface, client.ip(), proof) {
                    Ok(from) => from,
                    Err(refusal) => return refusal,
                };
                // What is denied to anyone is denied before anything else is asked.
                if let Some(refusal) = from.and_then(|from| self.denied(from, RuleDirection::Outbound, ends)) {
                    return refusal;
                }
                let to = match callee {
                    Ok(to) => to.filter(|&to| self.workloads[to].mode_of(server.port()) != TlsMode::Disable),
                    Err(refusal) => return refusal,
                };
                match (from, to) {
                    (Some(from), Some(to)) => self.local(svids, from, to, ends),
                    (Some(from), None) => self.outbound(svids, from, ends),
                    (None, Some(to)) => self.unidentified_local(svids, to, ends),
                    (None, None) => self.unidentified(client, server),
                }
            }
        }
    }

    fn inbound(&self, svids: Svids, from: Option<usize>, workload: usize, ends: Ends, bypass: Option<RuleId>) -> Route {
        let mode = self.workloads[workload].mode_of(ends.server.port());
        if mode == TlsMode::Disable {
            let rule = self.workloads[workload].mode_rule(ends.server.port());
            return Route::plain(Some(workload), Why::Disabled, rule.or(Some(self.workloads[workload].inbound_rule)));
        }
        let lacking = match mode {
            TlsMode::Mutual if bypass.is_some() => None,
            // A plain caller needs no SVID of ours; one that offers TLS will find it missing.
            TlsMode::Permissive | TlsMode::Disable => None,
            TlsMode::Mutual | TlsMode::Simple => self.lacks_svid(svids, workload),
        };
        let denied = self.denied(workload, RuleDirection::Inbound, ends);
        denied.or(lacking).unwrap_or(Route::Inbound { workload, mode, ends, from, bypass })
    }

    /// What lets in a plain caller from the wire, where the mode does not.
    fn bypass(&self, workload: usize, ends: Ends) -> Option<RuleId> {
        let callee = &self.workloads[workload];
        let port = ends.server.port();
        (callee.mode_of(port) == TlsMode::Mutual).then(|| callee.bypass.find(ends.client, port)).flatten()
    }

    /// By a rule that names no peers: that is known before who the other side is.
    pub(super) fn denied(&self, workload: usize, direction: RuleDirection, ends: Ends) -> Option<Route> {
        let rule = self.first_rule(workload, Action::Deny, Trial::Enforced, &ends.seen(direction, None))?;
        Some(Route::Refuse {
            reason: RefuseReason::DeniedByRule,
            workload: Some(workload),
            rule: Some(rule),
            detail: self.policy_rule(rule).map(|rule| format!("the rule is: {rule}")),
        })
    }

    fn outbound(&self, svids: Svids, workload: usize, ends: Ends) -> Route {
        let caller = &self.workloads[workload];
        let Some((rule, endpoint)) = self.egress(workload, ends.server) else { return self.unmatched(workload, ends) };
        let entry = &caller.egress[rule];
        let source = entry.source;
        let wire = Route::Egress { workload, endpoint, rule, mode: entry.mode, source, ends };
        match entry.mode {
            TlsMode::Mutual => match self.lacks_svid(svids, workload) {
                Some(refusal) => refusal,
                None => wire,
            },
            TlsMode::Simple => wire,
            TlsMode::Permissive if caller.outbound.is_some() || entry.allowed.is_some() => Route::Refuse {
                reason: RefuseReason::NotAllowedOutbound,
                workload: Some(workload),
                rule: Some(if entry.allowed.is_some() { entry.id } else { caller.outbound_rule }),
                detail: Some(
                    "the call would be plain (mode PERMISSIVE), and a server that shows no SPIFFE ID is in no list"
                        .into(),
                ),
            },
            TlsMode::Permissive => Route::Plain {
                workload: Some(workload),
                why: Why::PermissiveEgress,
                rule: Some(entry.id),
                source,
                outbound: Some(ends),
            },
            // Not ours to touch, so its address is not either.
            TlsMode::Disable => Route::plain_outbound(workload, Why::Disabled, Some(entry.id), ends),
        }
    }

    fn unmatched(&self, workload: usize, ends: Ends) -> Route {
        let (caller, server) = (&self.workloads[workload], ends.server);
        match caller.unmatched_egress {
            Unmatched::Pass => Route::plain_outbound(workload, Why::UnmatchedEgress, caller.unmatched_rule, ends),
            Unmatched::Refuse => Route::Refuse {
                reason: RefuseReason::UnmatchedEgress,
                workload: Some(workload),
                rule: caller.unmatched_rule,
                detail: Some(match self.endpoints(server).first() {
                    Some(&id) => format!(
                        "{server} is service {}, which no egress entry of {} selects",
                        self.service_name(id),
                        caller.name
                    ),
                    None => format!("{server} is no endpoint of any Service"),
                }),
            },
        }
    }

    fn local(&self, svids: Svids, from: usize, to: usize, ends: Ends) -> Route {
        let (caller, server) = (&self.workloads[from], ends.server);
        if let Some(refusal) = self.denied(to, RuleDirection::Inbound, ends) {
            return refusal;
        }
        let mode_in = self.workloads[to].mode_of(server.port());
        let matched = self.egress(from, server).map(|(rule, _)| rule);
        let mode_out = match matched {
            Some(rule) => caller.egress[rule].mode,
            None if caller.unmatched_egress == Unmatched::Refuse => return self.unmatched(from, ends),
            None => TlsMode::Permissive,
        };
        if mode_out == TlsMode::Disable {
            // The caller does its own TLS: it is for the destination's port like any stranger.
            return self.inbound(svids, Some(from), to, ends, None);
        }
        let needs = |mode| matches!((mode_in, mode_out), (a, b) if a == mode || b == mode);
        let lacking = if needs(TlsMode::Mutual) {
            self.lacks_svid(svids, from).or_else(|| self.lacks_svid(svids, to))
        } else if needs(TlsMode::Simple) {
            self.lacks_svid(svids, to)
        } else {
            None
        };
        lacking.unwrap_or(Route::Local { from, to, rule: matched, mode_in, mode_out, ends })
    }

    /// A caller behind an inside port that is nobody, to a workload of this node.
    pub(super) fn unidentified_local(&self, svids: Svids, to: usize, ends: Ends) -> Route {
        match self.workloads[to].mode_of(ends.server.port()) {
            TlsMode::Mutual if planted::is(Bug::BypassInside) => {
                self.inbound(svids, None, to, ends, self.bypass(to, ends))
            }
            TlsMode::Mutual => Route::Refuse {
                reason: RefuseReason::NoIdentity,
                workload: Some(to),
                rule: Some(self.workloads[to].inbound_rule),
                detail: Some(format!("{} admits callers of this node by their identity only", self.workloads[to].name)),
            },
            TlsMode::Permissive | TlsMode::Simple | TlsMode::Disable => self.inbound(svids, None, to, ends, None),
        }
    }

    /// The same, to elsewhere. To a service of ours it fails closed.
    fn unidentified(&self, client: SocketAddr, server: SocketAddr) -> Route {
        let refuse = |detail| Route::Refuse {
            reason: RefuseReason::NoIdentity,
            workload: None,
            rule: None,
            detail: Some(detail),
        };
        // A port that its own workload set to DISABLE asks nothing of its callers.
        let untouched = self.is_ours(server.ip());
        match (self.endpoints(server).first(), self.unmatched_egress) {
            (Some(&id), _) if !untouched => {
                refuse(format!("{} calls service {} without an identity", client.ip(), self.service_name(id)))
            }
            (_, Unmatched::Refuse) if !untouched => {
                refuse(format!("{} has no identity, and unmatchedEgress is refuse", client.ip()))
            }
            (_, Unmatched::Pass | Unmatched::Refuse) => {
                let why = if untouched { Why::Disabled } else { Why::NoIdentity };
                Route::plain(None, why, None)
            }
        }
    }

    fn lacks_svid(&self, svids: Svids, workload: usize) -> Option<Route> {
        let holder = &self.workloads[workload];
        let Svids::ValidAt(now) = svids else { return None };
        if holder.valid_credentials(now).is_some() {
            return None;
        }
        let state = match &holder.credentials {
            Some(credentials) => format!("valid until {} only, it is {now}", credentials.not_after()),
            None => "not there".to_owned(),
        };
        Some(Route::Refuse {
            reason: RefuseReason::NoSvid,
            workload: Some(workload),
            rule: None,
            detail: Some(format!("the SVID of {} is {state}", holder.name)),
        })
    }
}

/// An IPv4 address in IPv6 clothes is the IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
