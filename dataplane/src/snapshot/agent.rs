//! The agent: everything of the dataplane that is not the packet loop, on one thread.
//!
//! It speaks with ctrl, compiles what comes and hands it to the workers, keeps steering in step,
//! collects the workers' reports, answers queries. It may wait and allocate; workers never wait for
//! it. Old snapshots die here, when the last worker and the last session have let go of them.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::event::{PollFd, PollFlags, poll};
use snapshot::channel::{CONNECTIONS_PER_REPLY, socket_path};
use snapshot::report::PortReport;
use snapshot::{Boot, ConnectionReport, Network, Query, Reply, SCHEMA, Side, Snapshot, ToCtrl, ToDataplane, Version};

use super::compiled::{Compiled, Keys};
use super::receive::{Channel, Error, read_state};
use crate::admin::{self, History, RefusalLog};
use crate::io::PortId;
use crate::io::wait::Waker;
use crate::neigh::Paths;
use crate::policy::{self, captures};
use crate::stats::{Report, Total};
use crate::steering::SteeringPlane;
use crate::time::{Clock, Now};
use crate::tls::CryptoProvider;
use crate::worker::{Command, Mailbox};

/// How long a report may wait for the agent when nothing else wakes it.
const TICK_MS: i64 = 20;

/// Turns without ctrl before it is looked for again.
const RECONNECT_TICKS: u32 = 10;

/// Wishes for neighbours that wait for ctrl, at the most.
const MOST_RESOLVES: usize = 256;

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
    /// Kept until nobody else holds them, so that they are freed on this thread.
    retired: Vec<Arc<Compiled>>,
    retired_paths: Vec<Arc<Paths>>,
    network: Network,
    acked: Option<Version>,
    last_nack: Option<String>,
    history: History,
    log: RefusalLog,
    listings: Vec<Listing>,
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
            retired: Vec::new(),
            retired_paths: Vec::new(),
            network: Network::default(),
            acked: None,
            last_nack: None,
            listings: Vec::new(),
            outbox: Vec::new(),
            restart: false,
        }
    }

    /// Serves until `stop` is set, a worker `died`, or ctrl wants the process to start anew.
    pub fn run(&mut self, stop: &AtomicBool, died: &AtomicBool) {
        while !stop.load(Relaxed) && !died.load(Relaxed) && !self.restart {
            self.wait();
            let now = self.clock.now();
            self.serve_channel(now);
            self.collect_reports(now);
            self.flush_outbox();
            self.retired.retain(|old| Arc::strong_count(old) > 1);
            self.retired_paths.retain(|old| Arc::strong_count(old) > 1);
        }
        for worker in &self.workers {
            let _ = worker.mailbox.commands.push(Command::Stop);
            worker.waker.wake();
        }
    }

    /// Whether ctrl asked for a new start.
    pub fn wants_restart(&self) -> bool {
        self.restart
    }

    fn wait(&self) {
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: TICK_MS * 1_000_000 };
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
            ToDataplane::Snapshot { version } => match self.take_snapshot(descriptor) {
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
            ToDataplane::Query { id, query } => self.answer(id, query, now),
        }
    }

    fn take_snapshot(&mut self, descriptor: Option<OwnedFd>) -> Result<(), String> {
        let snapshot: Snapshot = read_state(descriptor).map_err(|e: Error| e.to_string())?;
        ::snapshot::check::check(&snapshot).map_err(|e| e.to_string())?;
        let compiled = Compiled::compile(&snapshot, &self.keys, &self.provider, self.compiled.as_deref());
        let compiled = Arc::new(compiled.map_err(|e| e.to_string())?);
        // Keys that no workload uses any more have no business in memory.
        self.keys
            .retain(|id, _| snapshot.workloads.iter().any(|w| w.svid.as_ref().is_some_and(|svid| svid.key == *id)));
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
        for worker in &self.workers {
            let _ = worker.mailbox.commands.push(Command::Reopen(port));
            worker.waker.wake();
        }
    }

    fn collect_reports(&mut self, now: Now) {
        for worker in &mut self.workers {
            let version = worker.mailbox.counters.total(Total::SnapshotVersion);
            worker.adopted = (version > 0).then_some(Version(version));
        }
        self.acknowledge();
        for at in 0..self.workers.len() {
            while let Some(report) = self.workers[at].mailbox.reports.pop() {
                self.on_report(report, now);
            }
        }
    }

    fn on_report(&mut self, report: Report, now: Now) {
        match report {
            Report::Ended(report) => {
                self.log.write(&report, now.mono);
                self.history.add(*report);
            }
            Report::Live { query, connection } => {
                if let Some(listing) = self.listings.iter_mut().find(|listing| listing.query == query) {
                    listing.found.push(*connection);
                }
            }
            Report::LiveEnd { query } => {
                let Some(at) = self.listings.iter().position(|listing| listing.query == query) else { return };
                self.listings[at].waiting -= 1;
                if self.listings[at].waiting == 0 {
                    let listing = self.listings.swap_remove(at);
                    self.reply_connections(query, listing.found);
                }
            }
            Report::Resolve { port, address } => {
                let interface = self.boot.ports[usize::from(port.0)].interface.clone();
                let same = |m: &ToCtrl| matches!(m, ToCtrl::Resolve { interface: i, address: a } if *i == interface && *a == address);
                // Hostile packets may ask for any address, and ctrl may be slow.
                if self.outbox.len() < MOST_RESOLVES && !self.outbox.iter().any(same) {
                    self.send(ToCtrl::Resolve { interface, address });
                }
            }
        }
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

    fn answer(&mut self, id: u64, query: Query, now: Now) {
        let counters = self.workers.iter().map(|worker| &worker.mailbox.counters);
        let reply = match query {
            Query::Counters => Reply::Counters(admin::counters(counters, self.steering.counters())),
            Query::Status => Reply::Status(admin::status(
                self.started_at,
                self.network.revision,
                self.port_reports(),
                self.workers.iter().map(|worker| (worker.core, worker.adopted, &worker.mailbox.counters)),
                self.last_nack.clone(),
            )),
            Query::Explain { from, to } => match &self.compiled {
                Some(compiled) => Reply::Explanation(policy::explain(compiled, &from, to, now.unix())),
                None => Reply::Failed("no snapshot is in force yet".into()),
            },
            Query::Refused => return self.reply_connections(id, self.history.refused()),
            Query::Closed => return self.reply_connections(id, self.history.closed()),
            Query::Live => return self.list_live(id),
        };
        self.send(ToCtrl::Reply { id, reply });
    }

    fn list_live(&mut self, query: u64) {
        let mut waiting = 0;
        for worker in &self.workers {
            waiting += usize::from(worker.mailbox.commands.push(Command::ListLive { query }).is_ok());
            worker.waker.wake();
        }
        if waiting == 0 {
            return self.send(ToCtrl::Reply { id: query, reply: Reply::Failed("the workers are busy".into()) });
        }
        self.listings.push(Listing { query, waiting, found: Vec::new() });
    }

    fn reply_connections(&mut self, id: u64, all: Vec<ConnectionReport>) {
        let mut parts = all.chunks(CONNECTIONS_PER_REPLY).map(<[_]>::to_vec).collect::<Vec<_>>();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len() - 1;
        for (at, part) in parts.into_iter().enumerate() {
            self.send(ToCtrl::Reply { id, reply: Reply::Connections { part, more: at < last } });
        }
    }

    fn port_reports(&self) -> Vec<PortReport> {
        let ports = (0..).map(PortId).zip(&self.boot.ports);
        let report = |(id, port): (PortId, &::snapshot::Port)| {
            let link = self.network.links.iter().find(|link| link.name == port.interface);
            PortReport {
                interface: port.interface.clone(),
                side: port.side,
                up: link.is_some_and(|link| link.up),
                xdp: self.steering.mode(id),
                mtu: link.map_or(0, |link| link.mtu),
                queues: self.steering.queues(id),
            }
        };
        ports.map(report).collect()
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

/// The first message on every connection.
pub fn hello(in_force: Option<Version>) -> ToCtrl {
    ToCtrl::Hello { schema: SCHEMA, pid: std::process::id(), build: env!("CARGO_PKG_VERSION").into(), in_force }
}
