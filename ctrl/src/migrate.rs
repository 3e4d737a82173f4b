//! Whether a workload is ready for MUTUAL, by who has called it: what `sluice migrate status` shows, and what
//! `sluice apply` asks before it switches one.

use serde::{Deserialize, Serialize};
use snapshot::callers::{COUNTS_FOR, Caller};
use snapshot::{Called, CallerName, TlsMode};

use crate::config::{Loaded, WorkloadIdentity};
use crate::view::{Failure, IdentityRow};

/// `GET /v1/callers?of=NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callers {
    /// When the dataplane began to look, in seconds since the epoch.
    pub since: u64,
    /// Connections since then that nothing is known of.
    pub lost: u64,
    pub workloads: Vec<Row>,
}

impl Callers {
    /// Why the gateway should not go over to `then` unasked. None: nobody is shut out by it.
    pub fn refusal(&self, then: &Loaded, at: u64) -> Option<Failure> {
        refusal(&shut_out(self.workloads.iter().map(|row| &row.called), then, at))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    #[serde(flatten)]
    pub called: Called,
    pub ready: bool,
    /// One sentence each; why it is ready, if it is.
    pub because: Vec<String>,
}

impl Row {
    pub fn of(called: Called, now: u64) -> Self {
        let why_not = why_not(&called, now);
        let because = match (why_not.is_empty(), called.mode) {
            (false, _) => why_not.clone(),
            (true, TlsMode::Mutual) => vec!["it is MUTUAL".into()],
            (true, TlsMode::Permissive | TlsMode::Simple | TlsMode::Disable) => {
                vec!["all that called in the last 24h called by mTLS".into()]
            }
        };
        Self { ready: why_not.is_empty(), called, because }
    }
}

/// Empty: nothing speaks against MUTUAL.
fn why_not(called: &Called, now: u64) -> Vec<String> {
    match called.mode {
        TlsMode::Mutual => return vec![],
        TlsMode::Disable => {
            return vec!["its mode is DISABLE: who calls it is not seen; make it PERMISSIVE first".into()];
        }
        TlsMode::Simple => {
            return vec![
                "its mode is SIMPLE: callers are not asked for a certificate; make it PERMISSIVE first".into(),
            ];
        }
        TlsMode::Permissive => {}
    }
    let mut why = Vec::new();
    if !called.admits {
        why.push("it has no allowedSPIFFEIDs.inbound: under MUTUAL nobody may call it".into());
    }
    let recent = |caller: &&Caller| now.saturating_sub(caller.last_seen) < COUNTS_FOR;
    if called.callers.iter().filter(recent).count() == 0 {
        why.push("nobody was seen to call it in the last 24h: there is nothing to judge by".into());
    }
    why.extend(called.callers.iter().filter(|caller| caller.would_be_refused(now)).map(sentence));
    why
}

fn sentence(caller: &Caller) -> String {
    let port = caller.port.map(|port| format!(" on port {port}")).unwrap_or_default();
    let times = match caller.connections {
        1 => "once".into(),
        n => format!("{n} times"),
    };
    match &caller.name {
        CallerName::Address(address) => format!("{address} called plain{port}, {times}"),
        CallerName::Id(id) => format!("{id} called plain{port}, {times}"),
        CallerName::Others => format!("others, whom the table has no room for, called plain, {times}"),
    }
}

/// Whether `then` takes anything from PERMISSIVE to what refuses plain callers: only then are they asked for,
/// since a dataplane that does not answer should hold up no other change.
pub fn is_stricter(now: &[IdentityRow], then: &Loaded) -> bool {
    let permissive = |mode: &String| mode == TlsMode::Permissive.name();
    let stricter = |row: &IdentityRow, then: &WorkloadIdentity| {
        let ports = row.ports.keys().chain(then.ports.keys());
        let one = |port: &u16| permissive(row.ports.get(port).unwrap_or(&row.mode)) && refuses_plain(then, Some(*port));
        permissive(&row.mode) && refuses_plain(then, None) || ports.into_iter().any(one)
    };
    let then = |row: &IdentityRow| {
        then.identities.binary_search_by(|identity| identity.name.cmp(&row.name)).ok().map(|at| &then.identities[at])
    };
    now.iter().any(|row| then(row).is_some_and(|then| stricter(row, then)))
}

/// Callers that are served plain now, and that `then` would refuse, by workload.
fn shut_out<'c>(now: impl Iterator<Item = &'c Called>, then: &Loaded, at: u64) -> Vec<(&'c str, &'c Caller)> {
    let mut found = Vec::new();
    for called in now {
        let Ok(index) = then.identities.binary_search_by(|identity| identity.name.cmp(&called.workload)) else {
            continue;
        };
        let identity = &then.identities[index];
        let plain = called.callers.iter().filter(|caller| caller.would_be_refused(at));
        let shut = plain.filter(|caller| {
            caller.mode == TlsMode::Permissive && refuses_plain(identity, caller.port) && !lets_by(identity, caller)
        });
        found.extend(shut.map(|caller| (&*called.workload, caller)));
    }
    found
}

/// None: on whatever port.
fn refuses_plain(identity: &WorkloadIdentity, port: Option<u16>) -> bool {
    match port.and_then(|port| identity.ports.get(&port)).unwrap_or(&identity.mode) {
        TlsMode::Mutual | TlsMode::Simple => true,
        TlsMode::Permissive | TlsMode::Disable => false,
    }
}

/// Whether its configuration lets this one in plain all the same.
fn lets_by(identity: &WorkloadIdentity, caller: &Caller) -> bool {
    match (&caller.name, caller.port) {
        (CallerName::Address(address), Some(port)) => {
            identity.bypass.iter().any(|entry| entry.sources.contains(address) && entry.ports.contains(&port))
        }
        (CallerName::Address(_) | CallerName::Id(_) | CallerName::Others, _) => false,
    }
}

/// What is said instead of doing it. None: nobody is shut out.
fn refusal(shut: &[(&str, &Caller)]) -> Option<Failure> {
    let (callers, they) = if shut.len() == 1 { ("caller", "it") } else { ("callers", "they") };
    let error = format!(
        "{} {callers} spoke plain in the last 24h to what would no longer be PERMISSIVE, and {they} would be refused; \
         nothing was changed. See `sluice migrate status`; use --force if that is meant",
        shut.len()
    );
    let details = shut.iter().map(|(workload, caller)| format!("{workload}: {}", sentence(caller)));
    (!shut.is_empty()).then(|| Failure { error, details: details.collect() })
}
