//! Keeps the steering program in step with the snapshot in force.
//!
//! The agent tells it what policy captures; it brings the maps there. Everything that could let
//! packets through is put in before what would send them here, so no change opens a gap.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};

use snapshot::{Boot, OnAbsent, Side};
use xdp_prog::{Action, Bypass, Capture, CaptureKind, Error, FlowTuple, Flows, Sockets, Source, Steering};

use crate::io::PortId;
use crate::io::ports::SteerMap;
use crate::policy::Captures;
use crate::policy::captures::Bypassed;

/// Held as long as a process uses what is pinned in a directory, so that nobody takes the programs
/// away under a running gateway, and no second one adopts them.
#[derive(Debug)]
pub struct PinLock(#[allow(dead_code, reason = "closing it is what releases the lock")] OwnedFd);

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("a dataplane (pid {pid}) runs with the programs in {pins}: stop it first")]
    Held { pins: String, pid: String },
    #[error("the lock {path} cannot be had: {errno}")]
    Io { path: String, errno: rustix::io::Errno },
}

/// Where locks lie while a machine runs (FHS 3.0 §5.9.3 and /run).
const LOCKS: &str = "/run/lock";

impl PinLock {
    pub fn take(pin_directory: &Path) -> Result<Self, LockError> {
        let pins = pin_directory.display().to_string();
        let path = format!("{LOCKS}/sluice{}.lock", pins.replace('/', "-"));
        let failed = |errno| LockError::Io { path: path.clone(), errno };
        // A container's /run may be empty. What really is wrong shows when the file is made.
        let _ = rustix::fs::mkdir(LOCKS, Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH);
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = [0; 16];
            let length = rustix::io::pread(&file, &mut pid, 0).unwrap_or(0);
            return Err(LockError::Held { pins, pid: String::from_utf8_lossy(&pid[..length]).into_owned() });
        }
        rustix::fs::ftruncate(&file, 0).map_err(failed)?;
        rustix::io::pwrite(&file, std::process::id().to_string().as_bytes(), 0).map_err(failed)?;
        Ok(Self(file))
    }
}

/// The programs on all ports, as the agent uses them.
pub struct SteeringPlane {
    steering: Steering,
    queues: Vec<u32>,
    /// What the sockets got: `copy` or `zero-copy`.
    transfer: &'static str,
    /// Sockets that steering does not know yet: they are put in when a snapshot is in force, so
    /// that a SYN before that is dropped and repeated, not refused.
    waiting: Vec<(PortId, u32, OwnedFd)>,
    /// The interface that each port's programs are on.
    links: Vec<Option<u32>>,
}

impl SteeringPlane {
    pub fn attach(boot: &Boot) -> Result<Steering, Error> {
        let pins = Path::new(&boot.pin_directory);
        xdp_prog::ensure_bpffs(mount_point(pins))?;
        let side = |side| match side {
            Side::Inside => xdp_prog::Side::Inside,
            Side::Outside => xdp_prog::Side::Outside,
        };
        let ports = (0..).zip(&boot.ports).map(|(index, port)| xdp_prog::Port {
            interface: port.interface.clone(),
            index,
            side: side(port.side),
            mode: mode(port),
        });
        Steering::attach(&xdp_prog::Options {
            pin_directory: pins.to_owned(),
            flows: boot.limits.flows,
            ports: ports.collect(),
            on_absent_pass: boot.on_absent == OnAbsent::Pass,
            grace: boot.limits.pre_existing_grace,
        })
    }

    pub fn new(
        steering: Steering,
        queues: Vec<u32>,
        transfer: &'static str,
        sockets: Vec<(PortId, u32, OwnedFd)>,
    ) -> Self {
        let links = vec![None; queues.len()];
        Self { steering, queues, transfer, waiting: sockets, links }
    }

    /// Brings the maps to what policy captures. True: something is captured that was not.
    pub fn apply(&mut self, captures: &Captures) -> Result<bool, Error> {
        let guarded: Vec<_> = captures.guarded.iter().filter(|g| g.guard).map(|g| (g.address, g.port)).collect();
        let sources: Vec<_> = captures.sources.iter().map(source).collect();
        let inbound = captures.inbound.iter().map(|c| Capture {
            kind: CaptureKind::Inbound,
            destination: Some(c.address),
            port: c.port,
            action: if c.take { Action::Take } else { Action::Leave },
            protected: c.protected,
        });
        let outbound = captures.outbound.iter().map(|c| Capture {
            kind: CaptureKind::Outbound { set: c.set },
            destination: c.address,
            port: c.port,
            action: Action::Take,
            protected: c.protected,
        });
        // First what lets through: whose permission is gone must not keep it because a later table is full.
        let bypasses: Vec<_> = captures.bypassed.iter().map(bypass).collect();
        self.steering.set_bypasses(&bypasses)?;
        self.steering.set_guarded(&guarded)?;
        let change = self.steering.set_captures(&inbound.chain(outbound).collect::<Vec<_>>())?;
        self.steering.set_sources(&sources)?;
        for (workload, prefix) in &captures.too_wide {
            tracing::error!(workload, %prefix, "calls to so wide a place are not captured: name its addresses");
        }
        Ok(change.added > 0)
    }

    /// From now on captured packets come to the workers.
    pub fn open(&mut self) -> Result<(), Error> {
        let sockets = self.steering.sockets();
        // Our copies of the descriptors must not outlive this: a socket is closed by its last one.
        for (port, queue, socket) in &self.waiting {
            sockets.set(port.0, *queue, socket.as_fd())?;
        }
        self.waiting.clear();
        Ok(())
    }

    /// The port's link came, came back, or changed.
    pub fn link_changed(&mut self, port: PortId, index: u32) -> Result<(), Error> {
        if self.links[usize::from(port.0)].is_some_and(|before| before != index) {
            self.steering.reattach(port.0)?;
        }
        // Only now: what failed is tried again with the next change.
        self.links[usize::from(port.0)] = Some(index);
        Ok(())
    }

    /// How many of the node's own SYNs each has let by.
    pub fn bypasses(&self) -> Vec<(Bypassed, u64)> {
        let of = |(bypass, syns): (Bypass, u64)| (Bypassed { source: bypass.source, server: bypass.destination }, syns);
        self.steering.bypasses().into_iter().map(of).collect()
    }

    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.steering.counters()
    }

    pub fn mode(&self, port: PortId) -> String {
        format!("{}, {}", self.steering.mode(port.0).map_or("detached", xdp_prog::Mode::name), self.transfer)
    }

    pub fn queues(&self, port: PortId) -> u32 {
        self.queues[usize::from(port.0)]
    }
}

fn bypass(of: &Bypassed) -> Bypass {
    Bypass { source: of.source, destination: of.server }
}

fn mode(port: &snapshot::Port) -> xdp_prog::Mode {
    if port.xdp.is_generic() { xdp_prog::Mode::Generic } else { xdp_prog::Mode::Native }
}

fn source(source: &crate::policy::captures::Source) -> Source {
    Source {
        port: source.port.0,
        prefix: (source.prefix.address, source.prefix.length),
        mac: source.mac,
        set: source.set,
    }
}

/// What a worker needs of steering: its flows, and a place for sockets that it opens anew.
pub struct WorkerSteering {
    pub flows: Flows,
    pub sockets: Sockets,
}

impl SteerMap for WorkerSteering {
    fn insert(&mut self, port: PortId, source: SocketAddr, destination: SocketAddr) -> bool {
        // Anything but success is fail closed: the connection is refused.
        self.flows.insert(&FlowTuple { port: port.0, source, destination }).unwrap_or(false)
    }

    fn remove(&mut self, port: PortId, source: SocketAddr, destination: SocketAddr) {
        // An entry that stays costs room, and is found and removed after the next start.
        let _ = self.flows.remove(&FlowTuple { port: port.0, source, destination });
    }

    fn register(&mut self, port: PortId, queue: u32, socket: BorrowedFd<'_>) -> bool {
        self.sockets.set(port.0, queue, socket).is_ok()
    }
}

/// Where the bpffs of a pin directory is mounted: the usual place if it is below that (sysfs lets
/// nobody make directories there), else the directory above it.
fn mount_point(pins: &Path) -> &Path {
    let usual = Path::new("/sys/fs/bpf");
    if pins.starts_with(usual) { usual } else { pins.parent().unwrap_or(pins) }
}
