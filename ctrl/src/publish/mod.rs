//! Hands the state to the dataplane over the channel, and brings back what it says.
//!
//! What the dataplane should have is one value, [`Desired`]; a connection compares it with what it
//! has sent and sends the difference. So there is no queue that a stuck dataplane could fill, a
//! dataplane that comes back gets everything in the right order, and states that were overtaken
//! while it was busy are never sent at all.
//!
//! ```text
//!   Publisher ── Desired (watch) ──▶ connection ── Boot, Key, Snapshot, Network ──▶ dataplane
//!             ── Request (mpsc) ──▶            ── Query ──▶
//!             ◀── State (watch), Resolve (mpsc) ──        ◀── Hello, Ack | Nack, Resolve, Reply, Attest ──
//! ```

mod connection;
pub mod socket;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snapshot::channel::PrivateKey;
use snapshot::{
    Boot, BypassHits, Called, ConnectionReport, EndpointLoad, KeyId, Network, Query, Recorded, Reply, RuleHits,
    Snapshot, Turned, Version,
};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::attest::process::{Attestor, Overrides};
use connection::Request;
use socket::{Lock, Packets, SocketType};

/// What the dataplane should have.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    pub boot: Option<Arc<Boot>>,
    pub state: Option<Arc<Published>>,
    pub network: Option<Arc<Network>>,
    /// Where the processes of calls are looked for. Not sent: it is for what the dataplane asks.
    pub namespaces: Overrides,
}

/// A snapshot, encoded once, with the private keys that it refers to.
#[derive(Debug)]
pub struct Published {
    pub version: Version,
    bytes: Vec<u8>,
    keys: Vec<(KeyId, PrivateKey)>,
}

impl Published {
    pub fn new(snapshot: &Snapshot, keys: Vec<(KeyId, PrivateKey)>) -> Result<Self, snapshot::codec::Error> {
        Ok(Self { version: snapshot.version, bytes: snapshot::codec::to_state(snapshot)?, keys })
    }
}

/// What is known of the dataplane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub dataplane: Option<Dataplane>,
    /// The highest version that a dataplane said it has in force.
    pub in_force: Option<Version>,
    /// The last version that was acked to this process.
    pub acked: Option<Version>,
    /// The last version that was sent on this connection.
    pub sent: Option<Version>,
    /// What the dataplane that is connected was started with. None: it has not been told yet.
    pub boot: Option<Arc<Boot>>,
    /// The last refusal, until a later version is acked.
    pub nack: Option<(Version, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataplane {
    pub pid: u32,
    pub build: String,
    /// Tells one connection from the next.
    pub connection: u64,
}

/// The dataplane asks for a neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    pub interface: String,
    pub address: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("no dataplane is connected: start sluice-dataplane, or see its log")]
    NoDataplane,
    #[error("the dataplane did not answer within {0:?}")]
    Timeout(Duration),
    #[error("the dataplane went away before it answered")]
    Gone,
    #[error("the dataplane has too many queries before it")]
    Busy,
    #[error("the dataplane says: {0}")]
    Failed(String),
    #[error("the dataplane answered something else than was asked")]
    Unexpected,
}

/// The handle that the rest of the process holds.
#[derive(Debug, Clone)]
pub struct Publisher {
    desired: Arc<watch::Sender<Desired>>,
    state: watch::Receiver<State>,
    requests: Requests,
}

type Requests = Arc<Mutex<Option<mpsc::Sender<Request>>>>;

impl Publisher {
    /// Listens at the channel's socket of `admin`. Resolve messages come out of the receiver; they
    /// are hints, and those that it has no room for are dropped.
    pub fn listen(admin: &Path, lock: &Lock) -> io::Result<(Self, mpsc::Receiver<Resolve>)> {
        let path = snapshot::channel::socket_path(admin);
        let listener = socket::listen(&path, SocketType::SEQPACKET, lock)?;
        let (desired, _) = watch::channel(Desired::default());
        let (state, state_out) = watch::channel(State::default());
        let (resolve, resolve_out) = mpsc::channel(256);
        let desired = Arc::new(desired);
        let requests = Requests::default();
        let attestor = Attestor::start()?;
        let shared = Shared { desired: desired.clone(), state, resolve, requests: requests.clone(), attestor };
        tokio::spawn(accept(listener, Arc::new(shared)));
        Ok((Self { desired, state: state_out, requests }, resolve_out))
    }

    /// Sets a part of what the dataplane should have.
    pub fn set(&self, change: impl FnOnce(&mut Desired)) {
        self.desired.send_modify(change);
    }

    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    pub fn network_revision(&self) -> u64 {
        self.desired.borrow().network.as_ref().map_or(0, |network| network.revision)
    }

    /// True when the dataplane that is connected has the desired version in force.
    pub fn ready(&self) -> bool {
        let wanted = self.desired.borrow().state.as_ref().map(|s| s.version);
        let state = self.state.borrow();
        state.dataplane.is_some() && wanted.is_some() && state.in_force == wanted && self.is_up_to_date(&state)
    }

    /// Whether the dataplane runs with the ports, cores and limits that it should; else it starts anew.
    pub fn is_up_to_date(&self, state: &State) -> bool {
        state.boot.is_none() || state.boot == self.desired.borrow().boot
    }

    pub async fn query(&self, query: Query, patience: Duration) -> Result<Reply, QueryError> {
        self.query_with(query, None, patience).await
    }

    /// What recorded calls that were seen since then would come to under `other`, which has no SVIDs: their
    /// keys stay here.
    pub async fn replay(
        &self,
        other: &Snapshot,
        since: u64,
        patience: Duration,
    ) -> Result<(Recorded, Vec<Turned>), QueryError> {
        let state = snapshot::codec::to_state(other).map_err(|error| QueryError::Failed(error.to_string()))?;
        let Reply::Replayed { recorded, part, more: _ } =
            self.query_with(Query::Replay { since }, Some(state), patience).await?
        else {
            return Err(QueryError::Unexpected);
        };
        Ok((recorded, part))
    }

    async fn query_with(&self, query: Query, state: Option<Vec<u8>>, patience: Duration) -> Result<Reply, QueryError> {
        let answer = self.ask(query, state)?;
        match tokio::time::timeout(patience, answer).await {
            Ok(Ok(Answer::One(Reply::Failed(reason)))) => Err(QueryError::Failed(reason)),
            Ok(Ok(Answer::One(reply))) => Ok(reply),
            Ok(Ok(Answer::Connections(part))) => Ok(Reply::Connections { part, more: false }),
            Ok(Ok(Answer::Rules(part))) => Ok(Reply::Rules { part, more: false }),
            Ok(Ok(Answer::Callers { since, lost, part })) => Ok(Reply::Callers { since, lost, part, more: false }),
            Ok(Ok(Answer::Bypasses(part))) => Ok(Reply::Bypasses { part, more: false }),
            Ok(Ok(Answer::Replayed { recorded, part })) => Ok(Reply::Replayed { recorded, part, more: false }),
            Ok(Ok(Answer::Endpoints(part))) => Ok(Reply::Endpoints { part, more: false }),
            Ok(Err(_)) => Err(QueryError::Gone),
            Err(_) => Err(QueryError::Timeout(patience)),
        }
    }

    /// All parts of a query that answers with connections.
    pub async fn connections(&self, query: Query, patience: Duration) -> Result<Vec<ConnectionReport>, QueryError> {
        let Reply::Connections { part, .. } = self.query(query, patience).await? else {
            return Err(QueryError::Unexpected);
        };
        Ok(part)
    }

    /// The rules of policies that have decided something, and how often.
    pub async fn rules(&self, patience: Duration) -> Result<Vec<RuleHits>, QueryError> {
        let Reply::Rules { part, .. } = self.query(Query::Rules, patience).await? else {
            return Err(QueryError::Unexpected);
        };
        Ok(part)
    }

    /// All entries of `connection.bypass`, and what each has let through.
    pub async fn bypasses(&self, patience: Duration) -> Result<Vec<BypassHits>, QueryError> {
        let Reply::Bypasses { part, .. } = self.query(Query::Bypasses, patience).await? else {
            return Err(QueryError::Unexpected);
        };
        Ok(part)
    }

    /// What every core knows of endpoints behind virtual addresses.
    pub async fn endpoints(&self, patience: Duration) -> Result<Vec<EndpointLoad>, QueryError> {
        let Reply::Endpoints { part, .. } = self.query(Query::Endpoints, patience).await? else {
            return Err(QueryError::Unexpected);
        };
        Ok(part)
    }

    fn ask(&self, query: Query, state: Option<Vec<u8>>) -> Result<oneshot::Receiver<Answer>, QueryError> {
        let (answer, out) = oneshot::channel();
        let requests = self.requests.lock().expect("no holder panics").clone().ok_or(QueryError::NoDataplane)?;
        match requests.try_send(Request { query, state, answer }) {
            Ok(()) => Ok(out),
            Err(mpsc::error::TrySendError::Full(_)) => Err(QueryError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(QueryError::NoDataplane),
        }
    }
}

/// A reply with its parts put together.
#[derive(Debug)]
pub(crate) enum Answer {
    One(Reply),
    Connections(Vec<ConnectionReport>),
    Rules(Vec<RuleHits>),
    Callers { since: u64, lost: u64, part: Vec<Called> },
    Bypasses(Vec<BypassHits>),
    Replayed { recorded: Recorded, part: Vec<Turned> },
    Endpoints(Vec<EndpointLoad>),
}

#[derive(Debug)]
struct Shared {
    desired: Arc<watch::Sender<Desired>>,
    state: watch::Sender<State>,
    resolve: mpsc::Sender<Resolve>,
    requests: Requests,
    attestor: Attestor,
}

/// Takes connections for ever. Each runs by itself, so that one that says nothing holds up nobody;
/// the newest that said Hello is the dataplane, and the one before is let go.
async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    let newest = Arc::new(watch::channel(0).0);
    loop {
        match accept_one(&listener).await {
            Ok((packets, pid)) => {
                let (shared, newest) = (shared.clone(), newest.clone());
                tokio::spawn(async move {
                    match connection::run(packets, &shared, &newest).await {
                        Ok(()) => info!(pid, "the dataplane's connection ended"),
                        Err(e) => warn!(pid, error = %e, "the dataplane's connection failed"),
                    }
                });
            }
            Err(e) => {
                warn!(error = %e, "a connection to the dataplane's socket was refused");
                // Out of descriptors, for one, does not go away by asking again at once.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn accept_one(listener: &UnixListener) -> io::Result<(Packets, i32)> {
    let (socket, _) = listener.accept().await?;
    let pid = socket::peer(&socket)?;
    Ok((Packets::new(socket), pid))
}
