//! From nothing to a running dataplane: what is done once, in order, before the first packet.
//!
//! ```text
//!   ctrl's Boot ─▶ steering programs ─▶ queues ─▶ rings of each core ─▶ workers, pinned ─▶ agent
//! ```
//! Everything that needs a privilege or may fail for a reason outside of us happens here, and each
//! failure says what would be right.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use snapshot::channel::socket_path;
use snapshot::{Boot, ToDataplane};

use crate::flow;
use crate::io::ports::{OpenOptions, PortSpec, XskPorts};
use crate::io::rings::RingSize;
use crate::io::{PortId, link};
use crate::snapshot::agent::{Agent, WorkerHandle, hello};
use crate::snapshot::receive::{Channel, Error};
use crate::steering::{LockError, PinLock, SteeringPlane, WorkerSteering};
use crate::time::{Clock, Instant, Now};
use crate::tls::provider;
use crate::worker::handoff::{Handoff, Wake};
use crate::worker::{Mailbox, Settings, Worker};

/// Entries of each ring of a socket: some 50 ms of a gigabit, which a worker that shares its CPU may be
/// away for.
const RING: u32 = 4096;

/// A packet of the largest MTU with an Ethernet header and a VLAN tag.
const LARGEST_FRAME: usize = 65_535 + 18;

/// What signals ask for.
#[derive(Debug, Default)]
pub struct Signals {
    /// Drain, then stop. Asking again changes nothing: a service manager may ask twice.
    pub stop: Arc<AtomicBool>,
    /// Stop at once.
    pub hurry: Arc<AtomicBool>,
}

impl Signals {
    fn any(&self) -> bool {
        self.stop.load(Relaxed) || self.hurry.load(Relaxed)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A signal asked for it.
    Stopped,
    /// The Gateway changed in a way that takes a new start.
    Restart,
}

/// Runs until a signal asks for the end.
pub fn run(admin: &Path, signals: &Signals) -> Result<Ended> {
    // A core dump would hold private keys.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let Some((channel, boot)) = wait_for_boot(admin, signals)? else { return Ok(Ended::Stopped) };
    let _lock = lock(Path::new(&boot.pin_directory))?;
    crate::io::umem::give_large_blocks_back();
    let specs = port_specs(&boot)?;
    let steering = SteeringPlane::attach(&boot).context("the steering programs cannot be attached")?;
    let veth: Vec<bool> = boot.ports.iter().map(|p| link::driver(&p.interface).is_ok_and(|d| d == "veth")).collect();
    let secret = secret()?;
    let adopted = steering.flows().list().context("the flows of the process before cannot be read")?;

    let cores = boot.cores.0.len();
    let mut ports = Vec::with_capacity(cores);
    let mut sockets = Vec::new();
    for index in 0..cores {
        let steer = WorkerSteering { flows: steering.flows(), sockets: steering.sockets() };
        let io = open_ports(&specs, index as u32, &boot, steer)?;
        for (port, queue, fd) in io.sockets() {
            sockets.push((port, queue, fd.try_clone_to_owned()?));
        }
        ports.push(io);
    }
    let transfer = ports[0].mode();
    let lanes = lanes(&ports, &secret);
    let (mut handles, mut threads) = (Vec::new(), Vec::new());
    let died = Arc::new(AtomicBool::new(false));
    for (((index, io), &core), lanes) in ports.into_iter().enumerate().zip(&boot.cores.0).zip(lanes) {
        let waker = io.waker();
        let mailbox = Arc::new(Mailbox::default());
        let settings = Settings::new(&boot, index as u32, veth.clone(), secret);
        let mut worker = Worker::new(io, SystemClock::start(), settings, mailbox.clone());
        let seed = flow_seed(&secret);
        let mine = adopted.iter().filter(|f| flow::owner(f.source, f.destination, seed, cores) == index);
        worker.adopt(mine.map(|f| flow::FlowKey::new(PortId(f.port), f.source, f.destination)));
        worker.share(lanes);
        threads.push(spawn(core, worker, &died)?);
        handles.push(WorkerHandle { core, mailbox, waker, adopted: None });
    }
    let queues = specs.iter().map(|spec| spec.queues).collect();
    let plane = SteeringPlane::new(steering, queues, transfer, sockets);
    tracing::info!(node = boot.node, ports = boot.ports.len(), cores, "the dataplane runs");
    let provider = provider::of(&boot.groups);
    let mut agent = Agent::new(admin.to_owned(), SystemClock::start(), boot, channel, provider, handles, plane);
    agent.run(&signals.stop, &signals.hurry, &died);
    join(threads)?;
    Ok(if agent.wants_restart() { Ended::Restart } else { Ended::Stopped })
}

fn wait_for_boot(admin: &Path, signals: &Signals) -> Result<Option<(Channel, Boot)>> {
    let path = socket_path(admin);
    let mut said = false;
    while !signals.any() {
        match Channel::connect(&path) {
            Ok(mut channel) => {
                channel.send(&hello(None))?;
                if let Some(boot) = read_boot(&mut channel, signals)? {
                    return Ok(Some((channel, boot)));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!("waiting for sluice-ctrl at {}: {error}", path.display());
                }
                pause(50);
            }
        }
    }
    Ok(None)
}

/// None: ctrl closed the channel first; it is asked again.
fn read_boot(channel: &mut Channel, signals: &Signals) -> Result<Option<Boot>> {
    while !signals.any() {
        match channel.receive() {
            Ok(Some((ToDataplane::Boot(boot), _))) => return Ok(Some(boot)),
            // Somebody asked ctrl about us before its configuration was read.
            Ok(Some((ToDataplane::Query { .. }, _))) => {}
            Ok(Some(_)) => bail!("sluice-ctrl's first message is not Boot: run both of one build"),
            Ok(None) => {
                let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                let _ = poll(&mut [PollFd::from_borrowed_fd(channel.fd().as_fd(), PollFlags::IN)], Some(&timeout));
            }
            Err(Error::Closed) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// The process before may still be on its way out.
fn lock(pins: &Path) -> Result<PinLock> {
    for _ in 0..40 {
        match PinLock::take(pins) {
            Err(LockError::Held { .. }) => pause(50),
            taken => return Ok(taken?),
        }
    }
    Ok(PinLock::take(pins)?)
}

/// Each port with as many queues as there are cores, since every core sends on one of its own.
fn port_specs(boot: &Boot) -> Result<Vec<PortSpec>> {
    let cores = boot.cores.0.len() as u32;
    let spec = |(index, port): (u16, &snapshot::Port)| {
        let queues = link::ensure_queues(&port.interface, cores)
            .with_context(|| format!("port {} cannot serve {cores} cores", port.interface))?;
        Ok(PortSpec { interface: port.interface.clone(), index: PortId(index), queues })
    };
    (0..).zip(&boot.ports).map(spec).collect()
}

fn open_ports(specs: &[PortSpec], core_index: u32, boot: &Boot, steer: WorkerSteering) -> Result<XskPorts> {
    let ring = RingSize::try_from(RING)?;
    let cores = boot.cores.0.len() as u32;
    let frames = boot.limits.frames;
    Ok(XskPorts::open(OpenOptions { ports: specs, core_index, cores, frames, ring, steer: Box::new(steer) })?)
}

/// The ways from each core to each other one.
fn lanes(ports: &[XskPorts], secret: &[u8; 16]) -> Vec<Handoff> {
    let cores = ports.len();
    if cores == 1 {
        return vec![Handoff::alone()];
    }
    let wakes = ports.iter().map(|io| {
        (1..cores).map(|_| {
            let waker = io.waker();
            Box::new(move || waker.wake()) as Wake
        })
    });
    Handoff::between(cores, flow_seed(secret), LARGEST_FRAME, wakes.map(Iterator::collect).collect())
}

fn spawn(
    core: u32,
    mut worker: Worker<XskPorts, SystemClock>,
    died: &Arc<AtomicBool>,
) -> Result<std::thread::JoinHandle<()>> {
    watched(core, died, move || {
        if !core_affinity::set_for_current(core_affinity::CoreId { id: core as usize }) {
            tracing::warn!(core, "this CPU cannot be had: the worker is not pinned");
        }
        worker.run();
    })
}

/// A thread whose panic the agent is told of.
fn watched(
    core: u32,
    died: &Arc<AtomicBool>,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>> {
    let guard = Guard(died.clone());
    let body = move || {
        let _guard = guard;
        work();
    };
    std::thread::Builder::new().name(format!("worker-{core}")).spawn(body).context("a worker thread cannot be started")
}

/// Waits for all of them. One that panicked makes the whole run a failure, with its exit code.
fn join(threads: Vec<std::thread::JoinHandle<()>>) -> Result<()> {
    let ended = threads.into_iter().map(|thread| {
        let name = thread.thread().name().unwrap_or_default().to_owned();
        (name, thread.join().is_ok())
    });
    match ended.collect::<Vec<_>>().into_iter().find(|(_, ok)| !ok) {
        Some((name, _)) => {
            bail!("{name} panicked, its message is above; the process ends, since a core without its worker is deaf")
        }
        None => Ok(()),
    }
}

/// Tells the agent when a worker panics: a gateway with a core missing must not look alive.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Relaxed);
        }
    }
}

/// Anew with each start: initial sequence numbers and the tables' hash are not to be guessed.
fn secret() -> Result<[u8; 16]> {
    let mut secret = [0; 16];
    aws_lc_rs::rand::fill(&mut secret).context("no randomness")?;
    Ok(secret)
}

/// The seed of [`flow::owner`], one for all cores.
pub fn flow_seed(secret: &[u8; 16]) -> u64 {
    u64::from_le_bytes(secret[8..].try_into().expect("eight bytes"))
}

fn pause(millis: i64) {
    let _ = rustix::thread::nanosleep(&rustix::time::Timespec { tv_sec: 0, tv_nsec: millis * 1_000_000 });
}

/// The only clock of the process.
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where a clock is made")]
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where a clock is read")]
    fn now(&mut self) -> Now {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        // Counted from one hour, so that nothing is ever before the start of time.
        let mono =
            Instant::from_micros(self.start.elapsed().as_micros() as i64) + crate::time::Duration::from_secs(3600);
        Now { mono, unix_ms: unix.as_millis() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_panics_is_told_of_and_makes_the_run_a_failure() {
        let died = Arc::new(AtomicBool::new(false));
        let fine = watched(0, &died, || {}).unwrap();
        join(vec![fine]).unwrap();
        assert!(!died.load(Relaxed), "an orderly end is no death");
        // The other one ends when the agent, which looks at the flag, tells it to.
        let told = Arc::new(AtomicBool::new(false));
        let stop = told.clone();
        let other = watched(0, &died, move || {
            while !stop.load(Relaxed) {
                std::thread::yield_now();
            }
        });
        let dead = watched(1, &died, || panic!("on purpose")).unwrap();
        while !dead.is_finished() {
            std::thread::yield_now();
        }
        assert!(died.load(Relaxed), "nobody would hear of it while the others run on");
        told.store(true, Relaxed);
        let error = join(vec![other.unwrap(), dead]).unwrap_err();
        assert!(error.to_string().starts_with("worker-1 panicked"), "{error}");
    }
}
