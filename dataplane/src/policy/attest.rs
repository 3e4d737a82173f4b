//! Which workload calls from, or listens at, an address that processes tell apart: the one whose selectors
//! fit every process that holds the socket. None, or more than one, is a refusal that names them all.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::snapshot::{Owner, Party, Process, ProcessSelector, RefuseReason, Side, TlsMode};

use super::Route;
use crate::planted::{self, Bug};
use crate::snapshot::{Compiled, Shared, Whose};

/// What is known of the process at one end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known<'p> {
    /// Nobody was asked.
    Nothing,
    Owner(&'p Owner),
    /// The same, found behind this inside port.
    Behind(&'p str, &'p Owner),
    /// For the sake of the argument it is a process of this workload's.
    Supposed(usize),
}

impl Known<'_> {
    /// What was found elsewhere says nothing of who is here.
    fn is_of(self, shared: &Shared) -> bool {
        match self {
            Self::Behind(port, _) => *port == *shared.interface,
            Self::Nothing => false,
            Self::Owner(_) | Self::Supposed(_) => true,
        }
    }
}

/// The same of both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof<'p> {
    pub caller: Known<'p>,
    pub listener: Known<'p>,
}

impl<'p> Proof<'p> {
    pub const NONE: Self = Self { caller: Known::Nothing, listener: Known::Nothing };

    pub const fn of_caller(caller: Known<'p>) -> Self {
        Self { caller, ..Self::NONE }
    }

    pub const fn of_listener(listener: Known<'p>) -> Self {
        Self { listener, ..Self::NONE }
    }
}

/// Who listens at an address, and behind which inside port that was found.
#[derive(Debug, Clone)]
pub struct Listener {
    pub at: SocketAddr,
    pub behind: Arc<str>,
    pub owner: Arc<Owner>,
}

/// What was found out about the ends of a call, where that was asked.
#[derive(Debug, Clone, Default)]
pub struct Witnesses {
    pub caller: Option<Arc<Owner>>,
    pub listener: Option<Listener>,
}

impl Witnesses {
    /// Of what listens at another address nothing is known: a call that is given another endpoint needs another
    /// answer.
    pub fn listener_at(&self, server: SocketAddr) -> Option<&Listener> {
        self.listener.as_ref().filter(|listener| listener.at == server || planted::is(Bug::AnyListener))
    }

    pub fn proof(&self, server: SocketAddr) -> Proof<'_> {
        let listener = self.listener_at(server);
        Proof {
            caller: self.caller.as_deref().map_or(Known::Nothing, Known::Owner),
            listener: listener.map_or(Known::Nothing, |found| Known::Behind(&found.behind, &found.owner)),
        }
    }
}

/// Whose processes have to be found before a call can be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted<'c> {
    pub caller: bool,
    /// The inside port that the listener is behind.
    pub listener: Option<&'c Arc<str>>,
}

impl Wanted<'_> {
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// How many names a refusal lists.
const SHOWN: usize = 8;

impl Compiled {
    /// What has to be asked about a SYN, beyond what is known by now.
    pub fn wanted(
        &self,
        proof: Proof<'_>,
        (side, interface): (Side, &str),
        client: IpAddr,
        server: SocketAddr,
    ) -> Wanted<'_> {
        let caller = proof.caller == Known::Nothing
            && side == Side::Inside
            && matches!(self.places.source(interface, client.to_canonical()), Whose::Shared(..));
        let unknown = |shared: &&Shared| !proof.listener.is_of(shared) && !planted::is(Bug::UnaskedIsFirst);
        Wanted { caller, listener: self.told_apart(server).filter(unknown).map(|shared| &shared.interface) }
    }

    /// Those of whom the process that listens decides which one is called.
    pub(super) fn told_apart(&self, server: SocketAddr) -> Option<&Shared> {
        match self.places.destination(server.ip()) {
            Whose::Shared(_, shared) if !self.untouched(shared, server.port()) => Some(shared),
            Whose::Shared(..) | Whose::One(_) | Whose::Nobody => None,
        }
    }

    /// Whether there is any address of which processes have to be found.
    pub fn ever_asks(&self) -> bool {
        !self.places.shared.is_empty()
    }

    /// The workload that calls from an address; None: nobody's, and a refusal if it cannot be told.
    pub(super) fn caller(&self, interface: &str, client: IpAddr, proof: Proof<'_>) -> Result<Option<usize>, Route> {
        match self.places.source(interface, client) {
            Whose::Nobody => Ok(None),
            Whose::One(index) => Ok(Some(index)),
            Whose::Shared(_, shared) => self.member(shared, client, proof.caller).map(Some),
        }
    }

    /// The workload that is called at an address; None: nobody's, or of several that all leave the port alone.
    pub(super) fn callee(&self, server: SocketAddr, proof: Proof<'_>) -> Result<Option<usize>, Route> {
        match self.places.destination(server.ip()) {
            Whose::Nobody => Ok(None),
            Whose::One(index) => Ok(Some(index)),
            Whose::Shared(_, shared) => {
                let known = if proof.listener.is_of(shared) { proof.listener } else { Known::Nothing };
                let found = self.member(shared, server.ip(), known);
                if self.untouched(shared, server.port()) {
                    return Ok(found.ok().or(shared.alone()));
                }
                found.map(Some).map_err(|refusal| refusal.about(shared.alone()))
            }
        }
    }

    /// Whether an end may be the workload of this SPIFFE ID: where nobody was asked, all that have the address
    /// may. A connection that is older than the selectors has nobody's word, and is not somebody else's for it.
    pub(super) fn may_be(&self, whose: Whose<'_>, known: Known<'_>, id: &str) -> bool {
        let is = |index: usize| &*self.workloads[index].spiffe_id == id;
        match whose {
            Whose::Nobody => false,
            Whose::One(index) => is(index),
            Whose::Shared(_, shared) if known == Known::Nothing => shared.members.iter().any(|&member| is(member)),
            Whose::Shared(_, shared) if !known.is_of(shared) => false,
            Whose::Shared(_, shared) => self.judged(shared, known).is_ok_and(is),
        }
    }

    /// Whether none of them wants to be protected there: then it does not matter who listens.
    fn untouched(&self, shared: &Shared, port: u16) -> bool {
        shared.members.iter().all(|&member| self.workloads[member].mode_of(port) == TlsMode::Disable)
    }

    fn member(&self, shared: &Shared, address: IpAddr, known: Known<'_>) -> Result<usize, Route> {
        let of_whom = || format!("{address} is an address of {}", self.names(shared));
        match known {
            Known::Nothing => self.judged(shared, known).map_err(|why| format!("{}: {why}", of_whom())),
            Known::Supposed(_) => self.judged(shared, known).map_err(|_| of_whom()),
            Known::Owner(_) | Known::Behind(..) => self.judged(shared, known),
        }
        .map_err(not_attested)
    }

    fn judged(&self, shared: &Shared, known: Known<'_>) -> Result<usize, String> {
        match known {
            Known::Nothing if planted::is(Bug::UnaskedIsFirst) => Ok(shared.members[0]),
            Known::Nothing => Err("the process decides".into()),
            Known::Supposed(index) if shared.members.contains(&index) => Ok(index),
            Known::Supposed(_) => Err("another workload's".into()),
            Known::Owner(owner) | Known::Behind(_, owner) => self.judge(shared, owner).map(|(index, _)| index),
        }
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

    /// By what the ends of a call were attested, in a sentence. None: their addresses were enough.
    pub fn evidence(
        &self,
        interface: &str,
        client: IpAddr,
        server: SocketAddr,
        witnesses: &Witnesses,
    ) -> Option<String> {
        let proof = witnesses.proof(server);
        let caller = self.sentence(self.places.source(interface, client.to_canonical()), proof.caller, "holds");
        let listener = self.sentence(self.places.destination(server.ip()), proof.listener, "listens by");
        let said: Vec<_> = caller.into_iter().chain(listener).collect();
        (!said.is_empty()).then(|| said.join("; "))
    }

    fn sentence(&self, whose: Whose<'_>, known: Known<'_>, verb: &str) -> Option<String> {
        let Whose::Shared(_, shared) = whose else { return None };
        let (Known::Owner(owner) | Known::Behind(_, owner)) = known else { return None };
        let (_, selector) = self.judge(shared, owner).ok()?;
        let processes: Vec<_> = owner.processes.iter().take(SHOWN).map(ToString::to_string).collect();
        Some(format!("{selector} ({}): {} {verb} socket {}", selector.place, processes.join(" and "), owner.inode))
    }

    fn names(&self, shared: &Shared) -> String {
        let names = shared.members.iter().take(SHOWN).map(|member| &*self.workloads[*member].name);
        names.collect::<Vec<_>>().join(", ")
    }
}

impl Compiled {
    /// The refusal of a call of which it could not be found out who calls, or who listens.
    pub fn unattested(&self, party: Party, server: SocketAddr, why: String) -> Route {
        let whom = match party {
            Party::Caller => None,
            Party::Listener => self.told_apart(server).and_then(Shared::alone),
        };
        not_attested(why).about(whom)
    }
}

fn not_attested(detail: String) -> Route {
    Route::Refuse { reason: RefuseReason::NotAttested, workload: None, rule: None, detail: Some(detail) }
}
