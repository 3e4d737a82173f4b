//! A SPIRE agent, as far as a client can tell: the Workload API, the Delegated Identity API and the SPIFFE Broker
//! API, saying what the test has it say, be it true or not. No registry ships the real one.
//!
//! What changes is pushed at once, the whole set, as SPIRE does it. Its messages are not ctrl's: they are made
//! of the same .proto files by this package.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod broker;
pub mod ca;
pub mod rig;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ca::Svid;
use futures_util::Stream;
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

mod proto {
    include!(concat!(env!("OUT_DIR"), "/apis.rs"));
}

use proto::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};
use proto::spire::api::agent::delegatedidentity::v1 as delegated;
use proto::spire::api::types;
use proto::{X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse};

use delegated::delegated_identity_server::{DelegatedIdentity, DelegatedIdentityServer};

/// What it says to whoever asks for SVIDs.
#[derive(Debug, Clone)]
pub enum Answer {
    /// No entry has reached it.
    Denied,
    Svids(Vec<Svid>),
    /// It takes the call, and then nothing happens.
    Silence,
    /// A message with so many bytes of nothing.
    Huge(usize),
}

/// All that it knows.
#[derive(Debug, Clone)]
pub struct World {
    /// For the process that asks.
    pub own: Answer,
    /// Whether that process may ask for others.
    pub delegate: bool,
    /// By selectors, as `type:value` each.
    pub workloads: HashMap<Vec<String>, Answer>,
    pub federates_with: Vec<String>,
    /// DER, one behind the other.
    pub bundles: BTreeMap<String, Vec<u8>>,
    /// Of these, it does not tell by the Workload API.
    pub untold: Vec<String>,
    /// How often somebody has asked for SVIDs.
    pub asked: u64,
    /// Of that, how often by the Workload API.
    pub asked_own: u64,
    /// What it shows at the broker endpoint. None: it serves nobody there.
    pub agent: Option<Svid>,
    pub brokers: Vec<broker::Broker>,
    /// By what they are asked about: `serviceaccounts.core shop/backend`, `pod UID shop/backend-1`.
    pub objects: HashMap<String, Answer>,
    /// Certificates of brokers that it took, in DER.
    pub shown: Vec<Vec<u8>>,
    /// Connections of theirs that are open.
    pub open: usize,
    /// It does not know brokers by what they show.
    pub unauthenticated: bool,
}

impl Default for World {
    fn default() -> Self {
        Self {
            own: Answer::Denied,
            delegate: true,
            workloads: HashMap::new(),
            federates_with: vec![],
            bundles: BTreeMap::new(),
            untold: vec![],
            asked: 0,
            asked_own: 0,
            agent: None,
            brokers: vec![],
            objects: HashMap::new(),
            shown: vec![],
            open: 0,
            unauthenticated: false,
        }
    }
}

pub struct Agent {
    directory: PathBuf,
    state: State,
    /// With all its connections; they end with it.
    runtime: Option<Runtime>,
    /// Of the broker endpoint, beside its socket.
    port: Option<SocketAddr>,
}

#[derive(Clone)]
struct State {
    world: Arc<Mutex<World>>,
    changes: watch::Sender<u64>,
    /// Something was asked of it.
    deeds: watch::Sender<u64>,
}

impl Agent {
    pub fn start(directory: &Path) -> Self {
        let state = State { world: Arc::default(), changes: watch::channel(0).0, deeds: watch::channel(0).0 };
        let mut agent = Self { directory: directory.to_owned(), state, runtime: None, port: None };
        agent.serve();
        agent
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("api.sock")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    pub fn broker_socket(&self) -> PathBuf {
        self.directory.join("broker.sock")
    }

    pub fn broker_port(&self) -> SocketAddr {
        self.port.expect("it has served")
    }

    /// The certificates of brokers that it took, as the serials of these SVIDs.
    pub fn shown(&self, of: &[&Svid]) -> Vec<String> {
        let shown = self.state.world.lock().unwrap().shown.clone();
        let serial = |leaf: &Vec<u8>| of.iter().find(|svid| svid.chain[0] == *leaf).map(|svid| svid.serial.clone());
        shown.iter().map(|leaf| serial(leaf).unwrap_or_else(|| "another".into())).collect()
    }

    /// Changes what it knows, and tells everybody whom it concerns.
    pub fn tell(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.state.world.lock().unwrap());
        self.state.changes.send_modify(|count| *count += 1);
    }

    /// What has come to it is so.
    pub async fn until(&self, what: &str, is: impl Fn(&World) -> bool) {
        let mut deeds = self.state.deeds.subscribe();
        let come = async {
            while !is(&self.state.world.lock().unwrap()) {
                deeds.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(rig::PATIENCE, come).await.is_err() {
            let World { asked, asked_own, shown, open, .. } = self.state.world.lock().unwrap().clone();
            panic!("{what}: asked {asked} times, {asked_own} for ourselves; {} brokers, {open} open", shown.len());
        }
    }

    pub fn asked(&self) -> u64 {
        self.state.world.lock().unwrap().asked
    }

    /// Ends, with every connection; the sockets stay behind, as a killed process leaves them.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // On a thread of its own: a test may itself be in a runtime, where nothing may wait.
            std::thread::spawn(|| runtime.shutdown_timeout(Duration::from_secs(5))).join().unwrap();
        }
    }

    pub fn serve(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inside = runtime.enter();
        let workload = SpiffeWorkloadApiServer::new(self.state.clone());
        runtime.spawn(Server::builder().serve_with_incoming(workload, incoming(&self.socket())));
        let admin = DelegatedIdentityServer::new(self.state.clone());
        runtime.spawn(Server::builder().serve_with_incoming(admin, incoming(&self.admin_socket())));
        self.port = Some(broker::serve(&self.state, &self.broker_socket()));
        drop(inside);
        self.runtime = Some(runtime);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

fn incoming(path: &Path) -> impl Stream<Item = std::io::Result<UnixStream>> + use<> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).unwrap();
    let next = |listener: UnixListener| async { Some((listener.accept().await.map(|(stream, _)| stream), listener)) };
    futures_util::stream::unfold(listener, next)
}

type Told<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;
type Pushed<M> = Result<Response<Told<M>>, Status>;

impl State {
    /// The message that there is now, and then each that is another one. None: silence.
    fn push<M: Clone + PartialEq + Send + Sync + 'static>(
        &self,
        pick: impl Fn(&World) -> Result<Option<M>, Status> + Send + 'static,
    ) -> Pushed<M> {
        let mut changes = self.changes.subscribe();
        let world = self.world.clone();
        // Refused without headers, as gRPC for Go does it.
        pick(&world.lock().unwrap())?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut last = None;
            loop {
                let picked = pick(&world.lock().unwrap());
                let told = match picked {
                    Ok(Some(message)) if last.as_ref() != Some(&message) => {
                        last = Some(message.clone());
                        sender.send(Ok(message)).await
                    }
                    Ok(_) => Ok(()),
                    Err(status) => return drop(sender.send(Err(status)).await),
                };
                tokio::select! {
                    changed = changes.changed(), if told.is_ok() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        let next = |mut receiver: mpsc::Receiver<_>| async { receiver.recv().await.map(|said| (said, receiver)) };
        Ok(Response::new(Box::pin(futures_util::stream::unfold(receiver, next))))
    }

    fn count(&self) {
        self.note(|world| world.asked += 1);
    }

    fn note(&self, deed: impl FnOnce(&mut World)) {
        deed(&mut self.world.lock().unwrap());
        self.deeds.send_modify(|count| *count += 1);
    }
}

fn joined(ders: &[Vec<u8>]) -> Vec<u8> {
    ders.concat()
}

fn own(svid: &Svid) -> X509svid {
    X509svid {
        spiffe_id: svid.id.clone(),
        x509_svid: joined(&svid.chain),
        x509_svid_key: svid.key.clone(),
        ..X509svid::default()
    }
}

fn of_workload(svid: &Svid) -> delegated::X509svidWithKey {
    let (trust_domain, path) = svid.id.trim_start_matches("spiffe://").split_once('/').unwrap();
    let id = types::Spiffeid { trust_domain: trust_domain.into(), path: format!("/{path}") };
    let x509_svid = types::X509svid { cert_chain: svid.chain.clone(), id: Some(id), ..types::X509svid::default() };
    delegated::X509svidWithKey { x509_svid: Some(x509_svid), x509_svid_key: svid.key.clone() }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for State {
    type FetchX509SVIDStream = Told<X509svidResponse>;
    type FetchX509BundlesStream = Told<X509BundlesResponse>;

    async fn fetch_x509svid(&self, request: Request<X509svidRequest>) -> Pushed<X509svidResponse> {
        check_header(&request)?;
        self.note(|world| world.asked_own += 1);
        self.count();
        self.push(|world| match &world.own {
            Answer::Denied => Err(Status::permission_denied("no identity issued")),
            Answer::Svids(svids) => {
                Ok(Some(X509svidResponse { svids: svids.iter().map(own).collect(), ..X509svidResponse::default() }))
            }
            Answer::Silence => Ok(None),
            Answer::Huge(bytes) => {
                Ok(Some(X509svidResponse { crl: vec![vec![0; *bytes]], ..X509svidResponse::default() }))
            }
        })
    }

    /// By the SPIFFE ID of the trust domain.
    async fn fetch_x509_bundles(&self, request: Request<X509BundlesRequest>) -> Pushed<X509BundlesResponse> {
        check_header(&request)?;
        self.push(|world| {
            let told = world.bundles.iter().filter(|(domain, _)| !world.untold.contains(domain));
            let named = told.map(|(domain, ders)| (format!("spiffe://{domain}"), ders.clone()));
            Ok(Some(X509BundlesResponse { bundles: named.collect(), ..X509BundlesResponse::default() }))
        })
    }
}

/// SPIFFE Workload Endpoint §3.
fn check_header<T>(request: &Request<T>) -> Result<(), Status> {
    match request.metadata().get("workload.spiffe.io") {
        Some(value) if value == "true" => Ok(()),
        _ => Err(Status::invalid_argument("security header missing from request")),
    }
}

#[tonic::async_trait]
impl DelegatedIdentity for State {
    type SubscribeToX509SVIDsStream = Told<delegated::SubscribeToX509sviDsResponse>;
    type SubscribeToX509BundlesStream = Told<delegated::SubscribeToX509BundlesResponse>;

    async fn subscribe_to_x509svi_ds(
        &self,
        request: Request<delegated::SubscribeToX509sviDsRequest>,
    ) -> Pushed<delegated::SubscribeToX509sviDsResponse> {
        self.count();
        let selectors = request.into_inner().selectors.into_iter();
        let selectors: Vec<_> = selectors.map(|selector| format!("{}:{}", selector.r#type, selector.value)).collect();
        self.push(move |world| {
            check_delegate(world)?;
            let said = |svids: &[Svid]| delegated::SubscribeToX509sviDsResponse {
                x509_svids: svids.iter().map(of_workload).collect(),
                federates_with: world.federates_with.clone(),
            };
            Ok(match world.workloads.get(&selectors) {
                // No entry is an empty set here.
                None | Some(Answer::Denied) => Some(said(&[])),
                Some(Answer::Svids(svids)) => Some(said(svids)),
                Some(Answer::Silence) => None,
                Some(Answer::Huge(bytes)) => {
                    let federates_with = vec!["x".repeat(*bytes)];
                    Some(delegated::SubscribeToX509sviDsResponse { federates_with, ..said(&[]) })
                }
            })
        })
    }

    async fn subscribe_to_x509_bundles(
        &self,
        _: Request<delegated::SubscribeToX509BundlesRequest>,
    ) -> Pushed<delegated::SubscribeToX509BundlesResponse> {
        self.push(|world| {
            check_delegate(world)?;
            let ca_certificates = world.bundles.clone().into_iter().collect();
            Ok(Some(delegated::SubscribeToX509BundlesResponse { ca_certificates }))
        })
    }
}

fn check_delegate(world: &World) -> Result<(), Status> {
    match world.delegate {
        true => Ok(()),
        false => Err(Status::permission_denied("caller not configured as an authorized delegate")),
    }
}
