//! A whole gateway in one thread: the real worker on ports in memory, fed as the agent feeds it.

use std::sync::Arc;

use dataplane::io::PortId;
use dataplane::io::mem::MemPorts;
use dataplane::neigh::Paths;
use dataplane::snapshot::{Compiled, Keys};
use dataplane::stats::{Report, Total};
use dataplane::tls::CryptoProvider;
use dataplane::worker::{Mailbox, Settings, Worker};
use snapshot::gateway::Checksum;
use snapshot::{
    Boot, ConnectionReport, Cores, EndpointLoad, Limits, Network, OnAbsent, Port, Side, Snapshot, Timeouts, Version,
    Waiting, XdpMode,
};

use super::attestor::Attestor;
use super::clock::SimClock;
use super::pki::Identity;

/// The index of each port.
pub const INSIDE: PortId = PortId(0);
pub const OUTSIDE: PortId = PortId(1);

/// Sessions that a worker decides again in one turn, at the least.
const REVIEWED_PER_TURN: u32 = 64;

/// Memory that is laid in before a turn that is watched: more frames than one turn sends.
const SPARE_FRAMES: usize = 2_048;
const LARGEST_FRAME: usize = 2_048;

pub struct Gateway {
    pub name: &'static str,
    /// Who says which process calls.
    pub attestor: Attestor,
    clock: SimClock,
    worker: Worker<MemPorts, SimClock>,
    mailbox: Arc<Mailbox>,
    boot: Boot,
    provider: Arc<CryptoProvider>,
    keys: Keys,
    snapshot: Snapshot,
    compiled: Arc<Compiled>,
    /// Everything that was reported, in order.
    pub ended: Vec<ConnectionReport>,
    /// Live ones, of all lists that it was asked for.
    pub listed: Vec<ConnectionReport>,
    /// Endpoints behind virtual addresses, of all lists that it was asked for.
    pub endpoints: Vec<EndpointLoad>,
    /// What rules in shadow would have refused.
    pub shadowed: Vec<ConnectionReport>,
    pub outlived: Vec<ConnectionReport>,
    pub adopted: Option<Version>,
    /// Turns since it was adopted.
    reviewing: u32,
    pub unresolved: u64,
    turns: u64,
    taken: u64,
    /// Told before (true) and after (false) each turn of the worker: to count what only it does.
    pub watch: Option<fn(bool)>,
    /// Turns in a row that did nothing that could be seen.
    idle: u32,
}

/// Sizes and times of a gateway of a simulation.
#[derive(Debug, Clone)]
pub struct Sizes {
    pub mtus: [usize; 2],
    pub limits: Limits,
    pub timeouts: Timeouts,
}

pub fn ports() -> Vec<Port> {
    let port = |interface: &str, side| Port {
        interface: interface.into(),
        side,
        checksum: Checksum::Verify,
        xdp: XdpMode::Auto,
    };
    vec![port("in0", Side::Inside), port("out0", Side::Outside)]
}

impl Gateway {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        name: &'static str,
        sizes: &Sizes,
        clock: SimClock,
        secret: [u8; 16],
        provider: Arc<CryptoProvider>,
        first: Snapshot,
        identities: &[Identity],
        network: &Network,
    ) -> Self {
        let boot = Boot {
            node: name.into(),
            ports: ports(),
            cores: Cores(vec![0]),
            waiting: Waiting::Busy,
            on_absent: OnAbsent::Drop,
            groups: ::snapshot::Group::ALL.to_vec(),
            limits: sizes.limits.clone(),
            timeouts: sizes.timeouts.clone(),
            pin_directory: String::new(),
        };
        let io = MemPorts::new(&sizes.mtus, boot.limits.frames as usize, boot.limits.flows as usize);
        let mailbox = Arc::new(Mailbox::default());
        let settings = Settings::new(&boot, 0, vec![false; 2], secret);
        let worker = Worker::new(io, clock.clone(), settings, mailbox.clone());
        let mut keys = Keys::default();
        take_keys(&mut keys, identities);
        let compiled =
            Arc::new(Compiled::compile(&first, &keys, &provider, None).expect("the first snapshot compiles"));
        let mut gateway = Self {
            name,
            attestor: Attestor::default(),
            clock,
            worker,
            mailbox,
            boot,
            provider,
            keys,
            snapshot: first,
            compiled,
            ended: Vec::new(),
            listed: Vec::new(),
            endpoints: Vec::new(),
            shadowed: Vec::new(),
            outlived: Vec::new(),
            adopted: None,
            reviewing: 0,
            unresolved: 0,
            turns: 0,
            taken: 0,
            watch: None,
            idle: 0,
        };
        gateway.connect_to(network);
        gateway.mailbox.compiled.force_push(gateway.compiled.clone());
        gateway
    }

    /// The next version of the snapshot, as ctrl would send it: through bytes and all checks.
    pub fn push(&mut self, identities: &[Identity], edit: impl FnOnce(&mut Snapshot)) -> Result<Version, String> {
        let mut next = self.snapshot.clone();
        next.version.0 += 1;
        edit(&mut next);
        let bytes = snapshot::codec::to_state(&next).map_err(|e| e.to_string())?;
        let next: Snapshot = snapshot::codec::from_state(&bytes).map_err(|e| e.to_string())?;
        snapshot::check::check(&next).map_err(|e| e.to_string())?;
        take_keys(&mut self.keys, identities);
        let compiled = Compiled::compile(&next, &self.keys, &self.provider, Some(&self.compiled));
        self.compiled = Arc::new(compiled.map_err(|e| e.to_string())?);
        let version = next.version;
        self.snapshot = next;
        self.mailbox.compiled.force_push(self.compiled.clone());
        Ok(version)
    }

    /// The kernel's links, routes and neighbours as they are now.
    pub fn connect_to(&mut self, network: &Network) {
        self.mailbox.paths.force_push(Arc::new(Paths::new(network, &self.boot.ports)));
    }

    pub fn deliver(&mut self, port: PortId, frame: Vec<u8>) {
        self.idle = 0;
        self.worker.io().deliver(port, frame);
    }

    /// One turn. Frames that leave go to `send`.
    pub fn turn(&mut self, mut send: impl FnMut(PortId, Vec<u8>)) -> Result<(), String> {
        if let Some(watch) = self.watch {
            self.worker.io().stock(SPARE_FRAMES, LARGEST_FRAME);
            watch(true);
            self.worker.turn();
            watch(false);
        } else {
            self.worker.turn();
        }
        self.turns += 1;
        self.idle += 1;
        self.reviewing = self.reviewing.saturating_add(1);
        for port in [INSIDE, OUTSIDE] {
            while let Some(frame) = self.worker.io().take_sent(port) {
                self.taken += 1;
                self.idle = 0;
                send(port, frame);
            }
        }
        // As the agent does.
        let version = Version(self.mailbox.counters.total(Total::SnapshotVersion));
        if version > Version(0) && self.adopted != Some(version) {
            self.adopted = Some(version);
            self.reviewing = 0;
        }
        while let Some(report) = self.mailbox.reports.pop() {
            self.idle = 0;
            self.read(report);
        }
        self.attestor.serve(&self.mailbox, self.clock.micros());
        let (here, all) = dataplane::io::PacketIo::frames(self.worker.io());
        if here != all {
            return Err(format!("{}: frames leaked: {here} of {all} are accounted for", self.name));
        }
        if self.idle > 5_000 {
            return Err(format!("{}: it spins: 5000 turns without a packet in or out", self.name));
        }
        Ok(())
    }

    fn read(&mut self, report: Report) {
        match report {
            // What it says is said again when it ends.
            Report::Stood { .. } => {}
            Report::Ended(connection) => self.ended.push(*connection),
            Report::Shadow(connection) => self.shadowed.push(*connection),
            Report::Outlived(connection) => self.outlived.push(*connection),
            Report::Resolve { .. } => self.unresolved += 1,
            Report::Live { connection, .. } => self.listed.push(*connection),
            Report::Endpoint { endpoint, .. } => self.endpoints.push(*endpoint),
            Report::LiveEnd { .. } | Report::EndpointsEnd { .. } => {}
        }
    }

    /// When it wants its next turn, if that is soon or later than `now`.
    pub fn next(&self, now: i64) -> Option<i64> {
        let told = (!self.mailbox.told.is_empty()).then_some(now);
        let worker = self.worker.next_deadline().map(|at| at.total_micros());
        [worker, told, self.attestor.next()].into_iter().flatten().min().map(|at| at.max(now + 1))
    }

    /// The version under which everything that lives has been decided.
    pub fn in_force(&self) -> Option<Version> {
        let slices = self.boot.limits.sessions.div_ceil(REVIEWED_PER_TURN);
        self.adopted.filter(|_| self.reviewing > slices)
    }

    /// What is left of any connection: nothing, when all are over and TIME-WAIT too.
    pub fn leftovers(&mut self) -> Option<String> {
        let (sessions, steered) = (self.worker.sessions(), self.worker.io().steered());
        let flows = self.mailbox.counters.total(Total::Flows);
        let sent = self.mailbox.counters.total(Total::PacketsSent);
        if sessions > 0 || steered > 0 || flows > 0 {
            return Some(format!("{}: {sessions} sessions, {flows} flows, {steered} steered are left", self.name));
        }
        (sent != self.taken).then(|| format!("{}: it counts {sent} packets sent, {} came out", self.name, self.taken))
    }

    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    pub fn worker(&mut self) -> &mut Worker<MemPorts, SimClock> {
        &mut self.worker
    }

    /// What was pushed last, as the worker decides by it.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    pub fn turns(&self) -> u64 {
        self.turns
    }
}

fn take_keys(keys: &mut Keys, identities: &[Identity]) {
    for identity in identities {
        keys.insert(identity.svid.key, identity.key.clone());
    }
}
