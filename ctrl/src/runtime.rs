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

mod show;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use snapshot::{Network, Snapshot, Version};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use crate::clock::Jumps;
use crate::config::{self, Diagnostic, IdentitySource, Loaded};
use crate::publish::{Published, Publisher, socket};
use crate::resolve::{self, Resolved};
use crate::rotate::Identities;
use crate::source::{News, Opened, Reopened, Sources};
use crate::version::Versions;
use crate::{admin, assemble, attest, bundles, clock, metrics, netlink, view};

/// Names are looked up again this often, each with so much patience.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);
const RESOLVE_PATIENCE: Duration = Duration::from_secs(3);
/// A change does not wait long for names; those that are late come with the next look-up.
const RELOAD_PATIENCE: Duration = Duration::from_secs(1);
/// Renewals that fall due together go out together.
const COALESCE: Duration = Duration::from_secs(1);
/// How long the first snapshot waits for sources that look at files; what is slower comes with a later one.
const SOURCES_PATIENCE: Duration = Duration::from_secs(1);
/// So do changes of the network that move a workload.
const SETTLE: Duration = Duration::from_millis(50);

/// Everything about the process that the admin socket and the metrics show.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub status: view::Status,
    pub resources: view::Resources,
    pub bundles: Vec<bundles::Row>,
}

/// Runs until `stop` completes.
pub async fn run(directory: &Path, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let directory = std::path::absolute(directory)?;
    // Watched before it is read: a change in between is seen twice rather than never.
    let mut changes = crate::watch::watch(&directory)
        .with_context(|| format!("cannot watch the configuration directory {}", directory.display()))?;
    let loaded = load(&directory).await.map_err(|faults| anyhow::anyhow!(text(&faults).join("\n")))?;
    let admin = loaded.gateway.admin.clone();
    let lock = socket::lock(&admin.socket).context("admin.socket")?;
    let (publisher, asked) =
        Publisher::listen(&admin.socket, &lock).context("cannot listen for the dataplane beside admin.socket")?;
    let (ports, ports_out) = watch::channel(port_names(&loaded));
    let (mut network, handle) = netlink::mirror(ports_out, clock::now_ms()).await?;
    let (destinations, destinations_out) = watch::channel(BTreeSet::new());
    tokio::spawn(netlink::resolve::keep(handle, network.clone(), destinations_out, asked));
    let news = News::default();
    let identities = open_sources(&loaded, &news)?;
    let (view, view_out) = watch::channel(Arc::new(View::default()));
    let mut core = Core {
        directory,
        loaded,
        loaded_at: clock::now(),
        faults: vec![],
        warnings: vec![],
        problems: vec![],
        resolved: Resolved::default(),
        held: attest::held::Held::default(),
        identities,
        versions: Versions::open(&admin.socket),
        last: None,
        started_at: clock::now(),
        publisher: publisher.clone(),
        ports,
        destinations,
        view,
    };
    admin::serve(&admin.socket, &lock, admin::App { publisher: publisher.clone(), view: view_out.clone() })?;
    if let Some(address) = admin.metrics {
        metrics::serve(address, publisher.clone(), view_out).await?;
    }
    core.resolved = resolve::resolve(&core.loaded, &core.resolved, RESOLVE_PATIENCE, clock::now()).await;
    core.network_changed(network.borrow_and_update().clone());
    let now = core.attested_by(&network.borrow().clone());
    core.await_sources(&now, &news).await;
    core.renew_and_publish(&now);
    tokio::select! {
        done = turns(&mut core, &mut changes.count, network, publisher, news) => done,
        () = stop => {
            info!("stopping; the dataplane goes on with what it has");
            Ok(())
        }
    }
}

async fn turns(
    core: &mut Core,
    changes: &mut watch::Receiver<u64>,
    mut network: watch::Receiver<Arc<Network>>,
    publisher: Publisher,
    news: News,
) -> anyhow::Result<()> {
    let mut dataplane = publisher.state();
    let mut jumps = Jumps::watch();
    let mut resolve_at = Instant::now() + RESOLVE_EVERY;
    let mut looking_up: Option<tokio::task::JoinHandle<Resolved>> = None;
    loop {
        tokio::select! {
            changed = changes.changed() => {
                changed.context("the configuration directory is no longer watched")?;
                let now = core.attested_by(&network.borrow().clone());
                core.reload(&now).await;
            }
            changed = network.changed() => {
                changed.context("routes and neighbours are no longer followed")?;
                core.network_changed(network.borrow_and_update().clone());
                sleep(SETTLE).await;
            }
            () = sleep(core.until_renewal()) => {}
            () = news.notified() => {}
            () = jumps.woken() => {}
            () = sleep_until(resolve_at), if looking_up.is_none() => {
                resolve_at = Instant::now() + RESOLVE_EVERY;
                let (loaded, before) = (core.loaded.clone(), core.resolved.clone());
                looking_up = Some(tokio::spawn(async move {
                    resolve::resolve(&loaded, &before, RESOLVE_PATIENCE, clock::now()).await
                }));
                continue;
            }
            found = async { looking_up.as_mut().expect("guarded").await }, if looking_up.is_some() => {
                looking_up = None;
                core.resolved = found.context("the resolver's task failed")?;
            }
            changed = dataplane.changed() => {
                changed.context("the channel to the dataplane is closed")?;
                let seen = dataplane.borrow_and_update().clone();
                core.dataplane_said(&seen);
            }
        }
        if jumps.seen().is_some() {
            core.identities.clock_jumped(clock::now());
        }
        let now = core.attested_by(&network.borrow().clone());
        core.renew_and_publish(&now);
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
    loaded_at: u64,
    /// Of the files as they are now, if they are not what is in force.
    faults: Vec<Diagnostic>,
    /// Of assembling what is in force.
    warnings: Vec<Diagnostic>,
    problems: Vec<String>,
    resolved: Resolved,
    /// Routes of ports that lost theirs a moment ago.
    held: attest::held::Held,
    identities: Identities,
    versions: Versions,
    last: Option<Snapshot>,
    started_at: u64,
    publisher: Publisher,
    ports: watch::Sender<Vec<String>>,
    destinations: watch::Sender<BTreeSet<IpAddr>>,
    view: watch::Sender<Arc<View>>,
}

impl Core {
    /// Reads the directory again. Only what loads, whose source opens, and which assembles is taken.
    async fn reload(&mut self, network: &Network) {
        match self.candidate(network).await {
            Ok(candidate) => self.take(candidate),
            Err(faults) => {
                for fault in &faults {
                    error!("{fault}");
                }
                error!("the configuration is refused whole; the one before stays in force");
                self.faults = faults;
            }
        }
    }

    async fn candidate(&self, network: &Network) -> Result<Candidate, Vec<Diagnostic>> {
        let loaded = load(&self.directory).await?;
        // Opened again in any case: its own files may be what changed.
        let sources = self
            .identities
            .reopen(&loaded.gateway)
            .map_err(|e| vec![Diagnostic::error(&loaded.gateway.place, "spec.identity", e.to_string())])?;
        let now = clock::now();
        let resolved = resolve::resolve(&loaded, &self.resolved, RELOAD_PATIENCE, now).await;
        assemble::assemble(&loaded, network, &resolved, &self.identities, Version(0), now)?;
        Ok(Candidate { loaded, sources, resolved })
    }

    fn take(&mut self, Candidate { loaded, sources, resolved }: Candidate) {
        self.faults.clear();
        self.identities.replace_sources(&loaded.gateway, sources);
        self.resolved = resolved;
        if loaded == self.loaded {
            return;
        }
        if loaded.gateway.admin != self.loaded.gateway.admin {
            warn!("spec.admin changed: that takes effect when sluice-ctrl is restarted");
        }
        self.ports.send_if_modified(|ports| {
            let now = port_names(&loaded);
            std::mem::replace(ports, now.clone()) != now
        });
        self.loaded = loaded;
        self.loaded_at = clock::now();
        info!(directory = %self.directory.display(), "the configuration was read again");
    }

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
    }

    fn until_renewal(&self) -> Duration {
        let lives = self.loaded.gateway.identity.iter().filter_map(|named| match named.source {
            IdentitySource::Embedded { ttl, .. } => Some(ttl / 10),
            IdentitySource::Files(_) => None,
        });
        let coalesce = lives.chain([COALESCE]).min().unwrap_or(COALESCE);
        // A root that ends is taken out of the bundle then.
        let root_ends = config::trust::next_end(&self.loaded.bundles, clock::now()).map(|end| end + 1);
        match self.identities.next_due().into_iter().chain(root_ends).min() {
            Some(due) => Duration::from_millis((due * 1000).saturating_sub(clock::now_ms())) + coalesce,
            None => Duration::from_secs(3600),
        }
    }

    /// A restart does not take an SVID away for the moment that reading it again takes.
    async fn await_sources(&mut self, network: &Network, news: &News) {
        let wanted = assemble::wanted(&self.loaded, network, &self.resolved);
        self.identities.refresh(&wanted, clock::now());
        let settled = async {
            while !self.identities.settled() {
                news.notified().await;
            }
        };
        if tokio::time::timeout(SOURCES_PATIENCE, settled).await.is_err() {
            warn!("not all identity sources have answered yet; what they give comes when it comes");
        }
    }

    /// Renews what is due, assembles, and publishes if the result differs from the last.
    fn renew_and_publish(&mut self, network: &Network) {
        let now = clock::now();
        let wanted = assemble::wanted(&self.loaded, network, &self.resolved);
        self.identities.refresh(&wanted, now);
        if let Err(fault) = self.publish(network, now) {
            error!(error = %fault, "no new snapshot; the last one stays in force");
            self.problems.push(fault.to_string());
        }
        self.show(network);
    }

    fn publish(&mut self, network: &Network, now: u64) -> anyhow::Result<()> {
        let known = self.known_problems(now);
        let before = std::mem::replace(&mut self.problems, known);
        for new in self.problems.iter().filter(|problem| !before.contains(problem)) {
            warn!(problem = new, "something is not as it should be");
        }
        let before = self.last.as_ref().map_or(Version(0), |s| s.version);
        let (mut snapshot, keys, warnings) =
            assemble::assemble(&self.loaded, network, &self.resolved, &self.identities, before, now)
                .map_err(|faults| anyhow::anyhow!(text(&faults).join("\n")))?;
        self.warnings = warnings;
        self.publisher.set(|desired| {
            desired.namespaces = self.loaded.gateway.namespaces.clone();
            let boot = assemble::boot(&self.loaded.gateway);
            if desired.boot.as_deref() != Some(&boot) {
                desired.boot = Some(Arc::new(boot));
            }
        });
        if self.last.as_ref().is_some_and(|last| same(last, &snapshot)) {
            return Ok(());
        }
        snapshot.version = self.versions.advance().context("cannot write the version beside admin.socket")?;
        snapshot::check::check(&snapshot)?;
        let published = Arc::new(Published::new(&snapshot, keys)?);
        info!(version = snapshot.version.0, workloads = snapshot.workloads.len(), "publishing");
        self.destinations.send_if_modified(|known| {
            let now = destinations(&snapshot);
            std::mem::replace(known, now.clone()) != now
        });
        self.publisher.set(|desired| desired.state = Some(published));
        self.last = Some(snapshot);
        Ok(())
    }
}

/// A configuration that would work.
struct Candidate {
    loaded: Loaded,
    sources: Vec<Reopened>,
    resolved: Resolved,
}

async fn load(directory: &Path) -> Result<Loaded, Vec<Diagnostic>> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || config::load_dir(&directory)).await.expect("loading does not panic")
}

/// Equal but for the number and the time.
fn same(last: &Snapshot, now: &Snapshot) -> bool {
    let now = Snapshot { version: last.version, assembled_at: last.assembled_at, ..now.clone() };
    *last == now
}

/// The addresses that packets will go to: endpoints of services and workloads of this node.
fn destinations(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let services = snapshot.services.iter().flat_map(|s| &s.endpoints).map(|e| e.address.ip());
    let places = snapshot.workloads.iter().flat_map(|w| &w.places).map(|p| p.prefix);
    let hosts = places.filter(|p| *p == snapshot::Prefix::host(p.address)).map(|p| p.address);
    services.chain(hosts).collect()
}

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
