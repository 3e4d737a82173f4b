//! The control process at work: what changed goes into one state, the state becomes a snapshot.
//!
//! ```text
//!   files ─────────▶ ┐
//!   kernel ────────▶ │                                ┌─▶ publisher ─▶ dataplane
//!   resolver ──────▶ ├─▶ Core: refresh ─ assemble ────┤
//!   sources, clock ▶ │        (only if it differs)    └─▶ view ─▶ admin, metrics
//!   dataplane ─────▶ ┘
//! ```
//! One task owns [`Core`]. A change of the files applies whole or not at all: what does not load or
//! does not assemble leaves everything as it was, and is shown until the files are mended.

mod cluster;
mod describing;
mod emptied;
mod fetching;
mod publishing;
mod reload;
mod show;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use snapshot::{Network, Snapshot, Version};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::at_stake::Dropped;
use crate::clock::Jumps;
use crate::config::{Admin, Diagnostic, Known, Loaded};
use crate::describe::{Asked, Since};
use crate::fetch::Fetches;
use crate::named::Named;
use crate::publish::{Publisher, socket};
use crate::remembered::{Memory, Remembered, boot_id};
use crate::resolve::{Dns, Lookups, Resolved};
use crate::rotate::Identities;
use crate::running::Running;
use crate::source::{News, Opened, Sources};
use crate::version::Versions;
use crate::{admin, assemble, attest, bundles, clock, crls, kubernetes, metrics, netlink, services, version, view};
use cluster::Cluster;
use emptied::Emptied;
use publishing::{Inputs, Pace};
use reload::{Files, load};

/// How long the first snapshot waits for names that are new. Those that are late come when they come.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(3);
/// How long the first snapshot waits for sources that look at files; what is slower comes with a later one.
const SOURCES_PATIENCE: Duration = Duration::from_secs(1);
/// So do changes of the network that move a workload.
const SETTLE: Duration = Duration::from_millis(50);

/// Everything about the process that the admin socket and the metrics show.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub status: view::Status,
    pub resources: Arc<view::Resources>,
    pub bundles: Vec<bundles::Row>,
    pub kubernetes: kubernetes::Live,
    pub services: Arc<Vec<services::Row>>,
    /// What has to be there beside what the network holds.
    pub named: Vec<Named>,
    /// The Gateway in force.
    pub running: Option<Running>,
}

/// Runs until `stop` completes.
pub async fn run(directory: &Path, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let directory = std::path::absolute(directory)?;
    // Watched before it is read: a change in between is seen twice rather than never.
    let mut changes = crate::watch::watch(&directory)
        .with_context(|| format!("cannot watch the configuration directory {}", directory.display()))?;
    let known: Arc<Mutex<Known>> = Arc::default();
    let loaded =
        load(&directory, &known, Files::Newest).await.map_err(|faults| anyhow::anyhow!(text(&faults).join("\n")))?;
    known.lock().expect("no holder panics").is_good();
    let admin = loaded.gateway.admin.clone();
    let lock = socket::lock(&admin.socket).context("admin.socket")?;
    if let Some(directory) = admin.state.parent().filter(|_| admin.state != admin.socket) {
        version::keep_directory(directory).context("admin.stateDirectory")?;
    }
    let (publisher, asked) =
        Publisher::listen(&admin.socket, &lock).context("cannot listen for the dataplane beside admin.socket")?;
    let (ports, ports_out) = watch::channel(port_names(&loaded));
    let (mut network, handle) = netlink::mirror(ports_out, clock::now_ms()).await?;
    let (destinations, destinations_out) = watch::channel(BTreeSet::new());
    tokio::spawn(netlink::resolve::keep(handle, network.clone(), destinations_out, asked));
    let news = News::default();
    let mut identities = open_sources(&loaded, &news)?;
    let (remembered, Memory { trusted, crls, pods, services, fetched }) = Remembered::open(&admin.state, &boot_id());
    identities.remember(trusted);
    let running = Some(Running::of(&loaded.gateway, &admin));
    let (view, view_out) = watch::channel(Arc::new(View { running, ..View::default() }));
    let mut core = Core {
        directory,
        resources: Arc::new(view::Resources::of(&loaded)),
        cluster: Cluster::of(&loaded, pods, services, &news),
        loaded,
        loaded_at: clock::now(),
        faults: vec![],
        emptied: Emptied::default(),
        warnings: vec![],
        problems: vec![],
        unassembled: None,
        known,
        inputs: Inputs::default(),
        pace: Pace::default(),
        resolved: Resolved::default(),
        held: attest::held::Held::default(),
        identities,
        crls: crls.into(),
        fetches: Fetches::new(fetched, news.clone()),
        remembered,
        versions: Versions::open(&admin.state),
        last: None,
        since: Since::default(),
        started_at: clock::now(),
        publisher: publisher.clone(),
        admin: admin.clone(),
        ports,
        destinations,
        view,
    };
    let (wishes, wished) = mpsc::channel(8);
    let mut lookups = Lookups::new(Dns::new(&core.loaded.gateway.dns_servers));
    let app = admin::App {
        publisher: publisher.clone(),
        view: view_out.clone(),
        known: core.known.clone(),
        wishes,
        lookups: lookups.counts().clone(),
    };
    admin::serve(&admin.socket, &lock, app.clone())?;
    if let Some(address) = admin.metrics {
        metrics::serve(address, app).await?;
    }
    core.keep_fetching();
    core.fetches.got().fill(&mut core.loaded);
    lookups.want(&core.loaded);
    lookups.await_first(&core.loaded, RESOLVE_PATIENCE).await;
    core.learn(&lookups);
    core.network_changed(network.borrow_and_update().clone());
    // Those of the process before, until the API has a list.
    core.cluster.fill(&mut core.loaded);
    let now = core.attested_by(&network.borrow().clone());
    core.await_kubernetes(&now, &mut lookups, &news).await;
    core.await_sources(&now, &news).await;
    core.renew_and_publish(&now);
    tokio::select! {
        done = turns(&mut core, lookups, &mut changes.count, wished, network, news) => done,
        () = stop => {
            info!("stopping; the dataplane goes on with what it has");
            Ok(())
        }
    }
}

async fn turns(
    core: &mut Core,
    mut lookups: Lookups,
    changes: &mut watch::Receiver<u64>,
    mut wished: mpsc::Receiver<Wish>,
    mut network: watch::Receiver<Arc<Network>>,
    news: News,
) -> anyhow::Result<()> {
    let mut dataplane = core.publisher.state();
    let mut jumps = Jumps::watch();
    loop {
        tokio::select! {
            changed = changes.changed() => {
                changed.context("the configuration directory is no longer watched")?;
                let now = core.attested_by(&network.borrow().clone());
                core.reload(&now, &mut lookups).await;
            }
            Some(wish) = wished.recv() => {
                let now = core.attested_by(&network.borrow().clone());
                let answer = match wish {
                    Wish::Reload(answer) => answer,
                    Wish::Assemble(loaded, answer) => {
                        let _ = answer.send(core.would_be(&loaded, &now, &lookups));
                        continue;
                    }
                    Wish::Drop(loaded, answer) => {
                        let _ = answer.send(core.would_drop(*loaded));
                        continue;
                    }
                    Wish::Describe(asked) => {
                        core.describe(asked, &lookups);
                        continue;
                    }
                };
                core.reload(&now, &mut lookups).await;
                core.renew_and_publish(&now);
                // Who asked may have gone.
                let _ = answer.send(core.outcome());
                continue;
            }
            changed = network.changed() => {
                changed.context("routes and neighbours are no longer followed")?;
                core.network_changed(network.borrow_and_update().clone());
                sleep(SETTLE).await;
            }
            () = sleep(core.until_due()) => {}
            () = news.notified() => {}
            () = jumps.woken() => {}
            () = lookups.changed() => core.learn(&lookups),
            changed = dataplane.changed() => {
                changed.context("the channel to the dataplane is closed")?;
                let seen = dataplane.borrow_and_update().clone();
                core.dataplane_said(&seen);
            }
        }
        if jumps.seen().is_some() {
            core.identities.clock_jumped(clock::now());
            core.fetches.clock_jumped();
            // What is valid now may be something else, whichever way it was set.
            core.inputs.changed();
        }
        let now = core.attested_by(&network.borrow().clone());
        if core.hear_kubernetes(&now) {
            core.reload(&now, &mut lookups).await;
        }
        core.fetch(&now);
        core.renew_and_publish(&now);
        core.say_kubernetes();
    }
}

/// Sources that do not open stand aside, but not all of them: that would be a gateway for nobody.
fn open_sources(loaded: &Loaded, news: &News) -> anyhow::Result<Identities> {
    let Opened { sources, none } = Sources::open(&loaded.gateway, news, clock::now());
    match none {
        Some(error) => Err(error.into()),
        None => Ok(Identities::new(sources, seed(&loaded.gateway.name))),
    }
}

/// What decides about the next snapshot, and the last one.
#[derive(Debug)]
struct Core {
    directory: PathBuf,
    loaded: Loaded,
    /// The same as people name it.
    resources: Arc<view::Resources>,
    loaded_at: u64,
    /// Of the files as they are now, if they are not what is in force.
    faults: Vec<Diagnostic>,
    emptied: Emptied,
    /// Of assembling what is in force.
    warnings: Vec<Diagnostic>,
    problems: Vec<String>,
    /// Why what is configured does not make a snapshot.
    unassembled: Option<String>,
    /// What the files came to when they were last read.
    known: Arc<Mutex<Known>>,
    /// What the last snapshot was made of.
    inputs: Inputs,
    pace: Pace,
    resolved: Resolved,
    /// Routes of ports that lost theirs a moment ago.
    held: attest::held::Held,
    identities: Identities,
    crls: crls::Held,
    fetches: Fetches,
    remembered: Remembered,
    versions: Versions,
    last: Option<Snapshot>,
    since: Since,
    started_at: u64,
    publisher: Publisher,
    /// What this process was started with.
    admin: Admin,
    ports: watch::Sender<Vec<String>>,
    destinations: watch::Sender<BTreeSet<IpAddr>>,
    view: watch::Sender<Arc<View>>,
    cluster: Cluster,
}

impl Core {
    /// The network that workloads are attested by.
    fn attested_by(&mut self, network: &Network) -> Network {
        self.held.view(network, &port_names(&self.loaded), clock::now())
    }

    fn network_changed(&mut self, network: Arc<Network>) {
        self.publisher.set(|desired| desired.network = Some(network));
    }

    /// A dataplane that has a later version in force than we know of would refuse ours as stale.
    fn dataplane_said(&mut self, said: &crate::publish::State) {
        let Some(in_force) = said.in_force else { return };
        let ours = self.last.as_ref().map(|s| s.version);
        if Some(in_force) >= ours && said.acked != Some(in_force) {
            self.versions.raise(in_force);
            self.last = None;
        }
        self.pace.acked(said.acked, Instant::now());
    }

    /// What asking for a reload came to: the version that holds what is in the directory now.
    fn outcome(&self) -> Outcome {
        match (self.faults.as_slice(), &self.unassembled, &self.last) {
            ([], None, Some(last)) => Ok(last.version),
            ([], why, _) => Err(why.iter().cloned().collect()),
            (faults, _, _) => Err(text(faults)),
        }
    }

    /// A restart does not take an SVID away for the moment that reading it again takes.
    async fn await_sources(&mut self, network: &Network, news: &News) {
        self.inputs.wanted = assemble::wanted(&self.loaded, network, &self.resolved);
        self.identities.refresh(&self.inputs.wanted, clock::now());
        let settled = async {
            while !self.identities.settled() {
                news.notified().await;
            }
        };
        if tokio::time::timeout(SOURCES_PATIENCE, settled).await.is_err() {
            warn!("not all identity sources have answered yet; what they give comes when it comes");
        }
    }
}

/// What somebody asks for, and where the answer goes.
#[derive(Debug)]
pub enum Wish {
    /// That the directory is read now.
    Reload(oneshot::Sender<Outcome>),
    /// The snapshot that this would be, without SVIDs, or why it would be none.
    Assemble(Box<Loaded>, oneshot::Sender<Result<Snapshot, Vec<String>>>),
    /// The roots that this would drop, or why it would not be taken.
    Drop(Box<Loaded>, oneshot::Sender<Result<Vec<Dropped>, Vec<String>>>),
    /// One thing in all its parts.
    Describe(Asked),
}

/// The version of the snapshot that the files came to, or why they were refused.
pub type Outcome = Result<Version, Vec<String>>;

fn port_names(loaded: &Loaded) -> Vec<String> {
    loaded.gateway.ports.iter().map(|p| p.interface.clone()).collect()
}

fn text<'a>(faults: impl IntoIterator<Item = &'a Diagnostic>) -> Vec<String> {
    faults.into_iter().map(ToString::to_string).collect()
}

/// Spreads renewals of different nodes.
fn seed(node: &str) -> u64 {
    node.bytes().fold(u64::from(std::process::id()), |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
}
