//! Which workload calls from an address that several have: the one whose selectors fit every process
//! that holds the flow's socket. None, or more than one, is a refusal that names them all.

use std::net::{IpAddr, SocketAddr};

use ::snapshot::{Owner, Process, ProcessSelector, RefuseReason, Side, TlsMode};

use super::Route;
use crate::planted::{self, Bug};
use crate::snapshot::{Compiled, Shared, Whose};

/// What is known of the process that calls.
#[derive(Debug, Clone, Copy)]
pub enum Proof<'p> {
    /// Nobody was asked.
    None,
    Owner(&'p Owner),
    /// For the sake of the argument it is a process of this workload's.
    Supposed(usize),
}

impl<'p> Proof<'p> {
    pub fn of(owner: Option<&'p Owner>) -> Self {
        owner.map_or(Self::None, Self::Owner)
    }
}

/// How many names a refusal lists.
const SHOWN: usize = 8;

impl Compiled {
    /// Whether a SYN from there has to wait until it is known which process sent it.
    pub fn asks(&self, side: Side, interface: &str, client: IpAddr) -> bool {
        side == Side::Inside && matches!(self.places.source(interface, client.to_canonical()), Whose::Shared(..))
    }

    /// Whether there is any such place.
    pub fn ever_asks(&self) -> bool {
        self.places.shared.iter().any(|shared| !shared.selectors.is_empty())
    }

    /// The workload that calls from an address; None: nobody's, and a refusal if it cannot be told.
    pub(super) fn caller(&self, interface: &str, client: IpAddr, proof: Proof<'_>) -> Result<Option<usize>, Route> {
        let shared = match self.places.source(interface, client) {
            Whose::Nobody => return Ok(None),
            Whose::One(index) => return Ok(Some(index)),
            Whose::Shared(_, shared) => shared,
        };
        let matched = match proof {
            Proof::None => Err(format!("{client} is an address of {}: the process decides", self.names(shared))),
            Proof::Supposed(index) if shared.members.contains(&index) => Ok(index),
            Proof::Supposed(_) => Err(format!("{client} is an address of {}", self.names(shared))),
            Proof::Owner(owner) => self.judge(shared, owner).map(|(index, _)| index),
        };
        matched.map(Some).map_err(not_attested)
    }

    /// The one member that all processes match, with the selector that the first of them does.
    fn judge<'c>(&'c self, shared: &'c Shared, owner: &Owner) -> Result<(usize, &'c ProcessSelector), String> {
        if owner.processes.is_empty() && !planted::is(Bug::NobodyIsEverybody) {
            return Err("no process holds the socket".into());
        }
        let selector = |member: usize, process: &Process| {
            let own = shared.selectors.iter().filter(|(index, _)| *index == member);
            own.map(|(_, selector)| selector).find(|selector| selector.matches(process))
        };
        // What a refusal names; what decides is all of them.
        let first = owner.processes.first();
        let by = |member: usize| first.and_then(|first| selector(member, first)).unwrap_or(&shared.selectors[0].1);
        let all = |member: &usize| owner.processes.iter().all(|process| selector(*member, process).is_some());
        let any = |member: &usize| owner.processes.iter().any(|process| selector(*member, process).is_some());
        let one_is_enough = planted::is(Bug::OneHolderEnough);
        let fits = |member: &&usize| if one_is_enough { any(member) } else { all(member) };
        let matched: Vec<usize> = shared.members.iter().filter(fits).copied().collect();
        let named =
            |member: usize| format!("{} ({}, {})", self.workloads[member].spiffe_id, by(member), by(member).place);
        match matched[..] {
            [one] => Ok((one, by(one))),
            [one, _, ..] if planted::is(Bug::FirstOfTwo) => Ok((one, by(one))),
            [] => Err(self.nobody(shared, owner, shared.members.iter().find(|member| any(member)))),
            [..] => {
                let all: Vec<_> = matched.iter().take(SHOWN).map(|member| named(*member)).collect();
                let process = first.map_or_else(String::new, ToString::to_string);
                Err(format!("{} identities for one flow: {}; it is {process}", matched.len(), all.join(" and ")))
            }
        }
    }

    fn nobody(&self, shared: &Shared, owner: &Owner, partly: Option<&usize>) -> String {
        let processes: Vec<_> = owner.processes.iter().take(SHOWN).map(ToString::to_string).collect();
        let processes = processes.join(" and ");
        match partly {
            Some(member) => format!(
                "{} processes hold the socket, and not all match {}: {processes}",
                owner.processes.len(),
                self.workloads[*member].name
            ),
            None => format!("{processes} matches no selector of {}", self.names(shared)),
        }
    }

    /// By what a caller was attested, in a sentence. None: its address was enough.
    pub fn evidence(&self, interface: &str, client: IpAddr, owner: &Owner) -> Option<String> {
        let Whose::Shared(_, shared) = self.places.source(interface, client.to_canonical()) else { return None };
        let (_, selector) = self.judge(shared, owner).ok()?;
        let processes: Vec<_> = owner.processes.iter().take(SHOWN).map(ToString::to_string).collect();
        Some(format!("{selector} ({}): {} holds socket {}", selector.place, processes.join(" and "), owner.inode))
    }

    /// Nothing tells yet which of several workloads a call is for: refused, unless none of them wants to
    /// be protected there.
    pub(super) fn ambiguous(&self, whose: Whose<'_>, server: SocketAddr) -> Option<Route> {
        let Whose::Shared(_, shared) = whose else { return None };
        let untouched = |member: &usize| self.workloads[*member].mode_of(server.port()) == TlsMode::Disable;
        if shared.members.iter().all(untouched) {
            return None;
        }
        let names = self.names(shared);
        Some(not_attested(format!("{} is an address of {names}: who listens there is not attested", server.ip())))
    }

    fn names(&self, shared: &Shared) -> String {
        let names = shared.members.iter().take(SHOWN).map(|member| &*self.workloads[*member].name);
        names.collect::<Vec<_>>().join(", ")
    }
}

pub fn not_attested(detail: String) -> Route {
    Route::Refuse { reason: RefuseReason::NotAttested, workload: None, rule: None, detail: Some(detail) }
}
