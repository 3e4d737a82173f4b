//! One connection of a dataplane: Hello first, then both directions until either ends.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapshot::channel::{MAX_MESSAGE, PrivateKey};
use snapshot::codec::{from_message, to_message, to_message_in, to_state};
use snapshot::{
    BypassHits, Called, ConnectionReport, EndpointLoad, Found, KeyId, Query, Reply, RuleHits, SCHEMA, ToCtrl,
    ToDataplane, Turned, Version,
};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::socket::{Packets, sealed};
use super::{Answer as Whole, Dataplane, Desired, Published, Resolve, Shared};
use crate::attest::process::Answer;

/// How long a peer may take to say Hello.
const HELLO: Duration = Duration::from_secs(5);
/// Queries that wait for their reply.
const PENDING: usize = 64;
/// Answers about processes that wait for room on the socket.
const TOLD: usize = 1_024;
/// Most connections that are put together for one query.
const CONNECTIONS: usize = 1 << 20;
/// The same of rules.
const RULES: usize = 1 << 20;
/// The same of flows: the dataplane records fewer.
const TURNED: usize = 1 << 20;
/// The same of workloads that were called.
const CALLED: usize = 1 << 20;
/// The same of endpoints, which every core lists.
const ENDPOINTS: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Request {
    pub query: Query,
    /// What goes with it in a memfd.
    pub state: Option<Vec<u8>>,
    pub answer: oneshot::Sender<Whole>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Codec(#[from] snapshot::codec::Error),
    #[error("no Hello within {HELLO:?}")]
    Silent,
    #[error("the first message is not Hello")]
    NotHello,
    #[error("Hello came twice")]
    HelloTwice,
    #[error("the dataplane (build {build}) speaks schema {schema}, this ctrl {SCHEMA}: run both of one build")]
    Schema { schema: u32, build: String },
}

/// Until the peer closes, breaks the protocol, or a newer dataplane says Hello.
pub(super) async fn run(packets: Packets, shared: &Shared, newest: &watch::Sender<u64>) -> Result<(), Error> {
    let first = tokio::time::timeout(HELLO, packets.receive()).await.map_err(|_| Error::Silent)??;
    let Some(first) = first else { return Ok(()) };
    let ToCtrl::Hello { schema, pid, build, in_force } = from_message(&first)? else { return Err(Error::NotHello) };
    if schema != SCHEMA {
        return Err(Error::Schema { schema, build });
    }
    let mut superseded = newest.subscribe();
    let mut number = 0;
    newest.send_modify(|n| {
        *n += 1;
        number = *n;
    });
    info!(pid, build, in_force = in_force.map(|v| v.0), "the dataplane is connected");
    let (requests, requests_out) = mpsc::channel(PENDING);
    *shared.requests.lock().expect("no holder panics") = Some(requests.clone());
    shared.state.send_modify(|state| {
        state.dataplane = Some(Dataplane { pid, build, connection: number });
        state.in_force = in_force;
        state.sent = None;
        state.boot = None;
    });

    let (told, told_out) = mpsc::channel(TOLD);
    let link = Link { packets, pending: Mutex::default(), forget_keys: Mutex::new(false) };
    let ended = tokio::select! {
        ended = read(&link, number, shared, &told) => ended,
        ended = write(&link, shared.desired.subscribe(), (requests_out, told_out), number, shared) => ended,
        _ = superseded.wait_for(|&n| n > number) => {
            info!(pid, "a newer dataplane has taken over");
            Ok(())
        }
    };
    let mut current = shared.requests.lock().expect("no holder panics");
    if current.as_ref().is_some_and(|now| now.same_channel(&requests)) {
        *current = None;
        shared.state.send_modify(|state| state.dataplane = None);
    }
    ended
}

/// What both directions share.
#[derive(Debug)]
struct Link {
    packets: Packets,
    pending: Mutex<HashMap<u64, Pending>>,
    /// After a refusal it is not known which keys the dataplane kept.
    forget_keys: Mutex<bool>,
}

#[derive(Debug)]
struct Pending {
    answer: oneshot::Sender<Whole>,
    parts: Vec<ConnectionReport>,
    rules: Vec<RuleHits>,
    callers: Vec<Called>,
    bypasses: Vec<BypassHits>,
    turned: Vec<Turned>,
    endpoints: Vec<EndpointLoad>,
}

/// A workload with many callers comes in parts, one after the other.
fn join(all: &mut Vec<Called>, called: Called) {
    match all.last_mut().filter(|last| last.workload == called.workload) {
        Some(last) => last.callers.extend(called.callers),
        None => all.push(called),
    }
}

async fn read(link: &Link, number: u64, shared: &Shared, told: &mpsc::Sender<(u64, Found)>) -> Result<(), Error> {
    while let Some(bytes) = link.packets.receive().await? {
        match from_message(&bytes)? {
            ToCtrl::Hello { .. } => return Err(Error::HelloTwice),
            ToCtrl::Ack { version } => {
                info!(version = version.0, "in force on all cores");
                update(shared, number, |state| {
                    state.in_force = state.in_force.max(Some(version));
                    state.acked = state.acked.max(Some(version));
                    if state.nack.as_ref().is_some_and(|(refused, _)| *refused < version) {
                        state.nack = None;
                    }
                });
            }
            ToCtrl::Nack { version, reason } => {
                warn!(version = version.0, reason, "the dataplane refused a snapshot; the one before stays in force");
                *link.forget_keys.lock().expect("no holder panics") = true;
                update(shared, number, |state| state.nack = Some((version, reason)));
            }
            ToCtrl::Resolve { interface, address } => {
                if shared.resolve.try_send(Resolve { interface, address }).is_err() {
                    debug!(%address, "too many neighbours to resolve at once");
                }
            }
            ToCtrl::Reply { id, reply } => answer(link, id, reply),
            ToCtrl::Attest { id, question } => {
                let (told, namespaces) = (told.clone(), shared.desired.borrow().namespaces.clone());
                // Without room the dataplane does not read: it refuses the call by itself, in time.
                let answer = Answer::new(move |found| drop(told.try_send((id, found))));
                shared.attestor.ask(question, namespaces, answer);
            }
        }
    }
    Ok(())
}

/// Changes what is known of the dataplane, if it is still this one. Who watches hears of differences
/// only: it may answer each with a new wish, whose carrying out ends here again.
fn update(shared: &Shared, number: u64, change: impl FnOnce(&mut super::State)) {
    shared.state.send_if_modified(|state| {
        if state.dataplane.as_ref().is_none_or(|d| d.connection != number) {
            return false;
        }
        let before = state.clone();
        change(state);
        *state != before
    });
}

fn answer(link: &Link, id: u64, reply: Reply) {
    let mut pending = link.pending.lock().expect("no holder panics");
    // Whoever asked may have lost patience.
    let Some(mut waiting) = pending.remove(&id) else { return };
    let whole = match reply {
        Reply::Connections { part, more } => {
            waiting.parts.extend(part);
            if more && waiting.parts.len() < CONNECTIONS {
                pending.insert(id, waiting);
                return;
            }
            Whole::Connections(std::mem::take(&mut waiting.parts))
        }
        Reply::Rules { part, more } => {
            waiting.rules.extend(part);
            if more && waiting.rules.len() < RULES {
                pending.insert(id, waiting);
                return;
            }
            Whole::Rules(std::mem::take(&mut waiting.rules))
        }
        Reply::Bypasses { part, more } => {
            waiting.bypasses.extend(part);
            if more && waiting.bypasses.len() < RULES {
                pending.insert(id, waiting);
                return;
            }
            Whole::Bypasses(std::mem::take(&mut waiting.bypasses))
        }
        Reply::Callers { since, lost, part, more } => {
            part.into_iter().for_each(|called| join(&mut waiting.callers, called));
            if more && waiting.callers.len() < CALLED {
                pending.insert(id, waiting);
                return;
            }
            Whole::Callers { since, lost, part: std::mem::take(&mut waiting.callers) }
        }
        Reply::Replayed { recorded, part, more } => {
            waiting.turned.extend(part);
            if more && waiting.turned.len() < TURNED {
                pending.insert(id, waiting);
                return;
            }
            Whole::Replayed { recorded, part: std::mem::take(&mut waiting.turned) }
        }
        Reply::Endpoints { part, more } => {
            waiting.endpoints.extend(part);
            if more && waiting.endpoints.len() < ENDPOINTS {
                pending.insert(id, waiting);
                return;
            }
            Whole::Endpoints(std::mem::take(&mut waiting.endpoints))
        }
        one @ (Reply::Status(_) | Reply::Counters(_) | Reply::Explanation(_) | Reply::Failed(_)) => Whole::One(one),
    };
    // An error means the same: nobody waits any more.
    let _ = waiting.answer.send(whole);
}

async fn write(
    link: &Link,
    mut desired: watch::Receiver<Desired>,
    (mut requests, mut told): (mpsc::Receiver<Request>, mpsc::Receiver<(u64, Found)>),
    number: u64,
    shared: &Shared,
) -> Result<(), Error> {
    let mut sent = Sent::default();
    desired.mark_changed();
    for id in 1.. {
        tokio::select! {
            changed = desired.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let wanted = desired.borrow_and_update().clone();
                sent.bring_up_to(&wanted, link).await?;
                update(shared, number, |state| {
                    state.sent = sent.version;
                    // Told of another one later, it ends: this is still what it runs with.
                    state.boot = state.boot.take().or_else(|| sent.boot.clone());
                });
            }
            Some(request) = requests.recv() => ask(link, id, request).await?,
            Some((id, found)) = told.recv() => {
                let message = to_message(&ToDataplane::Attested { id, found })?;
                link.packets.send(&message, None).await?;
            }
        }
    }
    Ok(())
}

async fn ask(link: &Link, id: u64, request: Request) -> Result<(), Error> {
    {
        let mut pending = link.pending.lock().expect("no holder panics");
        pending.retain(|_, p| !p.answer.is_closed());
        if pending.len() >= PENDING {
            let _ = request.answer.send(Whole::One(Reply::Failed("too many queries wait for a reply".into())));
            return Ok(());
        }
        let (answer, parts, rules, callers) = (request.answer, vec![], vec![], vec![]);
        let (bypasses, turned, endpoints) = (vec![], vec![], vec![]);
        pending.insert(id, Pending { answer, parts, rules, callers, bypasses, turned, endpoints });
    }
    let message = to_message(&ToDataplane::Query { id, query: request.query })?;
    let memfd = request.state.map(|bytes| sealed("sluice-trial", &bytes)).transpose()?;
    Ok(link.packets.send(&message, memfd.as_ref().map(AsFd::as_fd)).await?)
}

/// What this connection has carried.
#[derive(Debug, Default)]
struct Sent {
    boot: Option<Arc<snapshot::Boot>>,
    version: Option<Version>,
    keys: HashSet<KeyId>,
    revision: Option<u64>,
}

impl Sent {
    async fn bring_up_to(&mut self, wanted: &Desired, link: &Link) -> Result<(), Error> {
        let Some(boot) = &wanted.boot else { return Ok(()) };
        if self.boot.as_ref() != Some(boot) {
            let message = to_message(&ToDataplane::Boot((**boot).clone()))?;
            link.packets.send(&message, None).await?;
            self.boot = Some(boot.clone());
        }
        if let Some(state) = wanted.state.as_ref().filter(|s| self.version != Some(s.version)) {
            self.publish(state, link).await?;
        }
        // The first snapshot says what the network is for.
        let news = wanted.network.as_ref().filter(|n| self.version.is_some() && self.revision != Some(n.revision));
        if let Some(network) = news {
            let memfd = sealed("sluice-network", &to_state(&**network)?)?;
            let message = to_message(&ToDataplane::Network { revision: network.revision })?;
            link.packets.send(&message, Some(memfd.as_fd())).await?;
            self.revision = Some(network.revision);
        }
        Ok(())
    }

    /// Keys that the dataplane does not have yet, then the snapshot that needs them.
    async fn publish(&mut self, state: &Published, link: &Link) -> Result<(), Error> {
        if std::mem::take(&mut *link.forget_keys.lock().expect("no holder panics")) {
            self.keys.clear();
        }
        for (id, key) in state.keys.iter().filter(|(id, _)| !self.keys.contains(id)) {
            send_key(link, *id, key).await?;
        }
        // What no snapshot refers to any more is forgotten over there.
        self.keys = state.keys.iter().map(|(id, _)| *id).collect();
        let memfd = sealed("sluice-snapshot", &state.bytes)?;
        let message = to_message(&ToDataplane::Snapshot { version: state.version })?;
        link.packets.send(&message, Some(memfd.as_fd())).await?;
        self.version = Some(state.version);
        info!(version = state.version.0, bytes = state.bytes.len(), "snapshot sent");
        Ok(())
    }
}

async fn send_key(link: &Link, id: KeyId, key: &PrivateKey) -> Result<(), Error> {
    let mut buffer = Zeroizing::new([0; 16 * 1024]);
    const { assert!(16 * 1024 <= MAX_MESSAGE) };
    let message = to_message_in(&ToDataplane::Key { id, key: key.clone() }, &mut *buffer)?;
    Ok(link.packets.send(message, None).await?)
}
