//! The agent: everything of the dataplane that is not the packet loop, on one thread.
//!
//! It speaks with ctrl, compiles what comes and hands it to the workers, keeps steering in step,
//! collects the workers' reports, answers queries. It may wait and allocate; workers never wait for
//! it. Old snapshots die here, when the last worker and the last session have let go of them.

mod answers;
mod attest;
mod bypasses;
mod callers;
mod endpoints;
mod trial;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::event::{PollFd, PollFlags, poll};
use snapshot::channel::socket_path;
use snapshot::{Boot, ConnectionReport, KeyId, Network, SCHEMA, Side, Snapshot, ToCtrl, ToDataplane, Version};

use super::addresses::Map;
use super::compiled::{Compiled, Keys};
use super::receive::{Channel, Error, read_state};
use crate::admin::{Audit, CallerLimits, Callers, Flows, History, RefusalLog};
use crate::io::PortId;
use crate::io::wait::Waker;
use crate::neigh::Paths;
use crate::policy::captures;
use crate::stats::Total;
use crate::steering::SteeringPlane;
use crate::time::{Clock, Now};
use crate::tls::CryptoProvider;
use crate::worker::{Command, Mailbox};

/// How long a report may wait for the agent when nothing else wakes it.
const TICK_MS: i64 = 20;

/// The same where SYNs wait for it: a worker rings no bell, since that is a system call.
const TICK_ASKED_MS: i64 = 1;

/// Turns that the workers are waited for once they are to end: half a second.
const LAST_TURNS: u32 = 25;

/// Of a list that grows with the workloads, how many lines are shown.
const LINES: usize = 16;

/// Turns without ctrl before it is looked for again.
const RECONNECT_TICKS: u32 = 10;

/// One worker, as the agent sees it.
pub struct WorkerHandle {
    pub core: u32,
    pub mailbox: Arc<Mailbox>,
    pub waker: Waker,
    pub adopted: Option<Version>,
}

/// A query for live connections, while cores still list theirs.
struct Listing {
    query: u64,
    waiting: usize,
    found: Vec<ConnectionReport>,
}

pub struct Agent<C: Clock> {
    admin: PathBuf,
    clock: C,
    boot: Boot,
    channel: Option<Channel>,
    offline_ticks: u32,
    keys: Keys,
    provider: Arc<CryptoProvider>,
    workers: Vec<WorkerHandle>,
    steering: SteeringPlane,
    compiled: Option<Arc<Compiled>>,
    /// By the snapshot in force there are SYNs that wait for ctrl.
    asking: bool,
    /// Kept until nobody else holds them, so that they are freed on this thread.
    retired: Vec<Arc<Compiled>>,
    retired_paths: Vec<Arc<Paths>>,
    network: Network,
    acked: Option<Version>,
    last_nack: Option<String>,
    history: History,
    log: RefusalLog,
    audit: Audit,
    callers: Callers,
    flows: Flows,
    refusals: Flows,
    /// Of the workers' decisions, when it was last looked.
    lost: u64,
    listings: Vec<Listing>,
    endpoints: Vec<endpoints::Listing>,
    /// Messages that the socket had no room for.
    outbox: Vec<ToCtrl>,
    started_at: u64,
    /// The channel says that ctrl wants another Boot: the process has to start anew.
    restart: bool,
}

impl<C: Clock> Agent<C> {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        admin: PathBuf,
        mut clock: C,
        boot: Boot,
        channel: Channel,
        provider: Arc<CryptoProvider>,
        workers: Vec<WorkerHandle>,
        steering: SteeringPlane,
    ) -> Self {
        let now = clock.now();
        Self {
            history: History::new(boot.limits.history as usize),
            log: RefusalLog::new(now.mono),
            audit: Audit::new(boot.node.clone(), now),
            callers: Callers::new(CallerLimits::default()),
            flows: Flows::default(),
            refusals: Flows::default(),
            lost: 0,
            started_at: now.unix(),
            admin,
            clock,
            boot,
            channel: Some(channel),
            offline_ticks: 0,
            keys: Keys::default(),
            provider,
            workers,
            steering,
            compiled: None,
            asking: false,
            retired: Vec::new(),
            retired_paths: Vec::new(),
            network: Network::default(),
            acked: None,
            last_nack: None,
            listings: Vec::new(),
            endpoints: Vec::new(),
            outbox: Vec::new(),
            restart: false,
        }
    }

    /// Serves until every worker has drained after `stop` was set, or at once if `hurry` is set, a
    /// worker `died`, or ctrl wants the process to start anew.
    pub fn run(&mut self, stop: &AtomicBool, hurry: &AtomicBool, died: &AtomicBool) {
        let mut draining = false;
        while !(hurry.load(Relaxed) || died.load(Relaxed) || self.restart || self.have_drained()) {
            if stop.load(Relaxed) && !std::mem::replace(&mut draining, true) {
                self.begin_drain();
            }
            self.turn();
        }
        self.asking = false;
        self.command(Command::Stop);
        // What the workers report of their last connections is still logged and told.
        for _ in 0..LAST_TURNS {
            if died.load(Relaxed) || self.have_drained() {
                break;
            }
            self.turn();
        }
        self.turn();
        let now = self.clock.now();
        self.audit.finish(now);
    }

    fn have_drained(&self) -> bool {
        self.workers.iter().all(|worker| worker.mailbox.drained.load(Relaxed))
    }

    fn turn(&mut self) {
        self.wait();
        let now = self.clock.now();
        self.serve_channel(now);
        self.collect_reports(now);
        self.pass_questions();
        self.flush_outbox();
        self.retired.retain(|old| Arc::strong_count(old) > 1);
        self.retired_paths.retain(|old| Arc::strong_count(old) > 1);
    }

    fn begin_drain(&self) {
        let live: u64 = self.workers.iter().map(|worker| worker.mailbox.counters.total(Total::Sessions)).sum();
        let limit = self.boot.timeouts.drain;
        tracing::info!("stopping: {live} connections have {limit:?} to end; SIGINT resets them at once");
        self.command(Command::Drain);
    }

    fn command(&self, command: Command) {
        for worker in &self.workers {
            let _ = worker.mailbox.commands.push(command);
            worker.waker.wake();
        }
    }

    /// Whether ctrl asked for a new start.
    pub fn wants_restart(&self) -> bool {
        self.restart
    }

    fn wait(&self) {
        let asked = self.asking && self.channel.is_some();
        let tick = if asked { TICK_ASKED_MS } else { TICK_MS };
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: tick * 1_000_000 };
        let mut fds: Vec<_> = self.channel.iter().map(|c| PollFd::from_borrowed_fd(c.fd(), PollFlags::IN)).collect();
        // EINTR is a signal: the caller looks at it.
        let _ = poll(&mut fds, Some(&timeout));
    }

    fn serve_channel(&mut self, now: Now) {
        let Some(channel) = &mut self.channel else { return self.look_for_ctrl() };
        match channel.receive() {
            Ok(Some((message, descriptor))) => self.on_message(message, descriptor, now),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!("{error}; the snapshot in force is served on");
                self.channel = None;
                self.outbox.clear();
                self.listings.clear();
                self.endpoints.clear();
            }
        }
    }

    fn look_for_ctrl(&mut self) {
        self.offline_ticks += 1;
        if !self.offline_ticks.is_multiple_of(RECONNECT_TICKS) {
            return;
        }
        if let Ok(channel) = Channel::connect(&socket_path(&self.admin)) {
            tracing::info!("sluice-ctrl is back");
            self.channel = Some(channel);
            self.send(hello(self.acked));
        }
    }

    fn on_message(&mut self, message: ToDataplane, descriptor: Option<OwnedFd>, now: Now) {
        match message {
            ToDataplane::Boot(boot) => {
                if boot != self.boot {
                    tracing::warn!("the Gateway's ports, cores or limits changed: starting anew");
                    self.restart = true;
                }
            }
            ToDataplane::Key { id, key } => {
                self.keys.insert(id, key);
            }
            ToDataplane::Snapshot { version } => match self.take_snapshot(descriptor, now) {
                Ok(()) => {}
                Err(reason) => {
                    tracing::error!(version = version.0, "the snapshot is refused whole: {reason}");
                    self.last_nack = Some(format!("version {version}: {reason}"));
                    self.send(ToCtrl::Nack { version, reason });
                }
            },
            ToDataplane::Network { revision } => match read_state::<Network>(descriptor) {
                Ok(network) => self.take_network(network),
                Err(error) => tracing::error!(revision, "the network state is refused: {error}"),
            },
            ToDataplane::Query { id, query } => self.answer(id, query, descriptor, now),
            ToDataplane::Attested { id, found } => self.told(id, found),
        }
    }

    fn take_snapshot(&mut self, descriptor: Option<OwnedFd>, now: Now) -> Result<(), String> {
        let snapshot: Snapshot = read_state(descriptor).map_err(|e: Error| e.to_string())?;
        ::snapshot::check::check(&snapshot).map_err(|e| e.to_string())?;
        let compiled = Compiled::compile(&snapshot, &self.keys, &self.provider, self.compiled.as_deref());
        let compiled = Arc::new(compiled.map_err(|e| e.to_string())?);
        shortened(&compiled.unusable).iter().for_each(|what| tracing::error!("{what}"));
        // Keys that no workload uses any more have no business in memory.
        let used: Map<KeyId, ()> = snapshot.workloads.iter().filter_map(|w| Some((w.svid.as_ref()?.key, ()))).collect();
        self.keys.retain(|id, _| used.contains_key(id));
        let ports: Vec<(PortId, &str, Side)> =
            (0..).map(PortId).zip(&self.boot.ports).map(|(id, p)| (id, p.interface.as_str(), p.side)).collect();
        let grew = match self.steering.apply(&captures::captures(&compiled, &ports)) {
            Ok(grew) => grew,
            Err(error) => {
                // Half a change is none: what is in force is what steering has to know.
                if let Some(old) = &self.compiled
                    && let Err(again) = self.steering.apply(&captures::captures(old, &ports))
                {
                    tracing::error!("steering cannot be brought back to the snapshot in force: {again}");
                }
                return Err(error.to_string());
            }
        };
        for worker in &self.workers {
            if grew {
                worker.mailbox.captures_grew.store(true, Relaxed);
            }
            worker.mailbox.compiled.force_push(compiled.clone());
            worker.waker.wake();
        }
        tracing::info!(version = snapshot.version.0, workloads = snapshot.workloads.len(), "snapshot taken");
        self.asking = compiled.ever_asks();
        self.keep_account(snapshot.audit.as_ref(), &compiled, now);
        self.retired.extend(self.compiled.replace(compiled));
        Ok(())
    }

    fn take_network(&mut self, network: Network) {
        let paths = Arc::new(Paths::new(&network, &self.boot.ports));
        for worker in &self.workers {
            worker.mailbox.paths.force_push(paths.clone());
            worker.waker.wake();
        }
        self.retired_paths.push(paths);
        let before = std::mem::replace(&mut self.network, network);
        for at in 0..self.boot.ports.len() {
            let of = |network: &Network| {
                network.links.iter().find(|link| link.name == self.boot.ports[at].interface).cloned()
            };
            let (before, after) = (of(&before), of(&self.network));
            if let Some(link) = after.filter(|link| before.as_ref() != Some(link)) {
                self.port_changed(PortId(at as u16), link.index);
            }
        }
    }

    /// The link is there, and not as it was.
    fn port_changed(&mut self, port: PortId, index: u32) {
        if let Err(error) = self.steering.link_changed(port, index) {
            tracing::error!(port = port.0, "the steering program cannot be attached again: {error}");
            return;
        }
        self.command(Command::Reopen(port));
    }

    fn acknowledge(&mut self) {
        let lowest = self.workers.iter().map(|worker| worker.adopted).min().flatten();
        if let Some(version) = lowest.filter(|_| lowest != self.acked) {
            // Only now is there somebody to give packets to.
            if self.acked.is_none()
                && let Err(error) = self.steering.open()
            {
                tracing::error!("the sockets cannot be put into steering: {error}");
                return;
            }
            self.acked = lowest;
            self.send(ToCtrl::Ack { version });
        }
    }

    /// In order, and never waited for: what the socket has no room for goes first next time.
    fn send(&mut self, message: ToCtrl) {
        self.outbox.push(message);
    }

    fn flush_outbox(&mut self) {
        let Some(channel) = &self.channel else {
            self.outbox.clear();
            return;
        };
        let mut sent = 0;
        for message in &self.outbox {
            match channel.send(message) {
                Ok(true) => sent += 1,
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!("a message to sluice-ctrl is lost: {error}");
                    sent += 1;
                }
            }
        }
        self.outbox.drain(..sent);
    }
}

/// The first of `lines`, and how many more there are: thousands would go into no message, and be read by nobody.
fn shortened(lines: &[String]) -> Vec<String> {
    let mut shown: Vec<_> = lines.iter().take(LINES).cloned().collect();
    if lines.len() > LINES {
        shown.push(format!("and of {} more workloads", lines.len() - LINES));
    }
    shown
}

/// The first message on every connection.
pub fn hello(in_force: Option<Version>) -> ToCtrl {
    ToCtrl::Hello { schema: SCHEMA, pid: std::process::id(), build: env!("CARGO_PKG_VERSION").into(), in_force }
}
