//! What AF_XDP takes on these cables with nothing around it: one thread that puts the frames of one
//! port on another, without a look at them.
//!
//! ```text
//!   sender ── s0 ══ n0 ── rings ── one thread ── rings, or trains ── n1 ══ t0 ── receiver
//! ```
//! Ports, rings and steering program are the gateway's own. The sender hands over trains of segments
//! as a kernel's TCP does, and has so few under way that none is lost for want of room; the receiver
//! is a kernel that drops what is not for its MAC. What counts is what came to it, and the whole
//! machine's busy time, sender and receiver included.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dataplane::io::ports::{OpenOptions, PortSpec, SteerMap, XskPorts};
use dataplane::io::rings::RingSize;
use dataplane::io::{Packet as Received, PacketIo, PortId};
use dataplane::parse::{ETHERNET, fill_partial_checksums};
use dataplane::steering::WorkerSteering;
use pktgen_tests::netns::{End, Namespace, Rig, wait_until};
use pktgen_tests::packet::{ACK, Packet};
use xdp_prog::{FlowTuple, Mode, Options, Port, Side, Steering};

use super::figure;
use crate::cpu::{Reading, Spent};
use crate::facts::{self, Traffic};
use crate::load::Pace;
use crate::plan::MEGABITS;
use crate::samples::Figure;

/// How frames come and leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// XDP in native mode, before which they are cut up, and each by itself.
    Rings,
    /// Native too, and put together again.
    Trains,
    /// XDP in generic mode, as the gateways have it here: whole, and put together again from segments.
    Whole,
}

/// MTU of the cables, how frames come and leave, and what the figures call that.
const WAYS: [(u32, Leave, &str); 4] = [
    (1500, Leave::Rings, "1500 B"),
    (1500, Leave::Trains, "1500 B in trains"),
    (1500, Leave::Whole, "1500 B in trains, whole"),
    (9000, Leave::Rings, "9000 B"),
];

const IN: PortId = PortId(0);
const OUT: PortId = PortId(1);
/// The sender's.
const ONLY: PortId = PortId(0);
/// Ethernet, IPv4 and TCP without options.
const HEADERS: u32 = 54;
const SEQUENCE: std::ops::Range<usize> = 38..42;
const IP_LENGTH: std::ops::Range<usize> = 16..18;

/// Frames under way: fewer than a veth queues.
const WINDOW: u64 = 192;
/// Payload that the sender's schedule hands over at once, as the bulk cases do.
const BLOCK: u32 = 128 * 1024;
/// Spun before it sleeps: as long as a worker does at most.
const SPIN: Duration = Duration::from_micros(50);
/// Seconds for the cables of a way.
const LAYING: f64 = 1.0;
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it takes, roughly.
pub fn expected(seconds: f64) -> f64 {
    WAYS.len() as f64 * (LAYING + 2.2 * seconds)
}

pub fn measure(seconds: f64) -> Result<(BTreeMap<String, Figure>, f64)> {
    let (mut figures, mut foreign) = (BTreeMap::new(), 0f64);
    let cpus = std::thread::available_parallelism()?.get();
    let span = Duration::from_secs_f64(seconds);
    for (mtu, leave, name) in WAYS {
        let way = || -> Result<[Passed; 2]> {
            let mut line = Line::lay(mtu, leave)?;
            line.pass(None, span / 5).context("while warming up")?;
            Ok([line.pass(None, span)?, line.pass(Some(MEGABITS), span)?])
        };
        let [most, paced] = way().with_context(|| format!("frames of {name}"))?;
        foreign =
            [foreign, most.spent.foreign_share(cpus), paced.spent.foreign_share(cpus)].into_iter().fold(0.0, f64::max);
        figures.insert(format!("{name}, most"), figure(most.frames() / most.spent.seconds, "frames/s"));
        let gib = paced.payload as f64 / f64::from(1 << 30);
        figures.insert(format!("{name}, CPU busy"), figure(paced.spent.own() / gib, "s/GiB"));
    }
    Ok((figures, foreign))
}

/// What has come to the receiver.
struct Passed {
    payload: u64,
    segment: u32,
    spent: Spent,
}

impl Passed {
    /// A train is counted as what it carries.
    fn frames(&self) -> f64 {
        self.payload as f64 / f64::from(self.segment)
    }
}

struct Line {
    sender: XskPorts,
    node: XskPorts,
    receiver: Namespace,
    frame: Vec<u8>,
    /// Last, as the namespaces go with it.
    _rig: Rig,
}

impl Line {
    fn lay(mtu: u32, leave: Leave) -> Result<Self> {
        let rig = Rig::new()?;
        let [sender, node, receiver] = ["sender", "node", "receiver"].map(|name| quiet(&rig, name));
        let (sender, node, receiver) = (sender?, node?, receiver?);
        rig.cable(&End::new(&sender, "s0", &[]), &End::new(&node, "n0", &[]), mtu, 1)?;
        rig.cable(&End::new(&node, "n1", &[]), &End::new(&receiver, "t0", &[]), mtu, 1)?;
        let sender = sender.enter(|| open(&["s0"], Leave::Trains, Box::new(Nothing)))??;
        let ([source, destination], pins) = (ends(), rig.pins("forward"));
        let node = node.enter(|| steered(Path::new(&pins), FlowTuple { port: IN.0, source, destination }, leave))??;
        Ok(Self { sender, node, receiver, frame: frame_for(mtu), _rig: rig })
    }

    /// For so long; as fast as it goes, or so many megabits of payload in a second.
    fn pass(&mut self, megabits: Option<u32>, span: Duration) -> Result<Passed> {
        let (before, read) = (self.arrived()?, || Reading::take(&[], std::process::id()));
        let began = read()?;
        let (stop, passed) = (AtomicBool::new(false), AtomicU64::new(0));
        let Self { sender, node, frame, .. } = self;
        let segment = frame_payload(frame);
        let sent = std::thread::scope(|scope| {
            let forwarder = scope.spawn(|| forward(node, segment, &stop, &passed));
            let sent = send(sender, frame, megabits, span, &passed);
            stop.store(true, Relaxed);
            forwarder.join().expect("the forwarder does not panic")?;
            sent
        })?;
        let spent = began.until(&read()?);
        let payload = |now: &Traffic| (now.bytes - before.bytes) - (now.packets - before.packets) * u64::from(HEADERS);
        let wanted = sent * u64::from(segment);
        let mut came = 0;
        let all = wait_until("every frame comes to the receiver", PATIENCE, || {
            came = payload(&self.arrived().ok()?);
            (came >= wanted).then_some(())
        });
        ensure!(all.is_ok() && came == wanted, "{wanted} bytes of payload were sent, and {came} came to the receiver");
        Ok(Passed { payload: came, segment, spent })
    }

    fn arrived(&self) -> Result<Traffic> {
        facts::received(&self.receiver, "t0")
    }
}

/// The one flow.
fn ends() -> [SocketAddr; 2] {
    let end = |ip: [u8; 4], port| SocketAddr::new(Ipv4Addr::from(ip).into(), port);
    [end([198, 18, 1, 2], 40_000), end([198, 18, 2, 2], 3000)]
}

/// A segment in the middle of a stream.
fn packet() -> Packet {
    let [source, destination] = ends();
    Packet { flags: ACK, tcp_options: vec![], ..Packet::syn(source, destination) }
}

fn frame_for(mtu: u32) -> Vec<u8> {
    Packet { payload: vec![0x5a; (mtu + 14 - HEADERS) as usize], ..packet() }.frame()
}

/// A namespace whose kernel says nothing of its own.
fn quiet(rig: &Rig, name: &str) -> Result<Namespace> {
    let namespace = rig.namespace(name)?;
    namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
    Ok(namespace)
}

/// Opens ports of the calling thread's namespace. A port of more queues than one sends no trains; the
/// cables' one is the first of them.
fn open(interfaces: &[&str], leave: Leave, steer: Box<dyn SteerMap>) -> Result<XskPorts> {
    let queues = match leave {
        Leave::Rings => 2,
        Leave::Trains | Leave::Whole => 1,
    };
    let spec = |(index, name): (u16, &&str)| PortSpec { interface: (*name).into(), index: PortId(index), queues };
    let ports: Vec<_> = (0..).zip(interfaces).map(spec).collect();
    let (frames, ring) = (8192, RingSize::default());
    Ok(XskPorts::open(OpenOptions { ports: &ports, core_index: 0, cores: queues, frames, ring, steer })?)
}

/// Both ports of the node, with the gateway's program before them, which knows the one flow.
fn steered(pins: &Path, flow: FlowTuple, leave: Leave) -> Result<XskPorts> {
    xdp_prog::ensure_bpffs(Path::new("/sys/fs/bpf"))?;
    let mode = match leave {
        Leave::Rings | Leave::Trains => Mode::Native,
        Leave::Whole => Mode::Generic,
    };
    let port = |(index, name): (u16, &str)| Port { interface: name.into(), index, side: Side::Outside, mode };
    let steering = Steering::attach(&Options {
        pin_directory: pins.to_owned(),
        flows: 1024,
        ports: (0..).zip(["n0", "n1"]).map(port).collect(),
        on_absent_pass: false,
        grace: Duration::ZERO,
    })?;
    ensure!(steering.flows().insert(&flow)?, "the flow finds no room");
    let steer = WorkerSteering { flows: steering.flows(), sockets: steering.sockets() };
    let ports = open(&["n0", "n1"], leave, Box::new(steer))?;
    ports.sockets().try_for_each(|(port, queue, socket)| steering.set_xsk(port.0, queue, socket))?;
    Ok(ports)
}

/// Until it is stopped. Spins and sleeps as a worker does. What has `passed` is counted in segments of so
/// many bytes.
fn forward(ports: &mut XskPorts, segment: u32, stop: &AtomicBool, passed: &AtomicU64) -> Result<()> {
    let (mut copy, mut busy) = (Vec::new(), Instant::now());
    while !stop.load(Relaxed) {
        let received = ports.rx_burst(IN);
        let mut segments = 0;
        for packet in 0..received {
            copy.clear();
            copy.extend_from_slice(ports.bytes(Received(packet)));
            let (headers, payload) = copy.split_at(HEADERS as usize);
            for (number, part) in (0..).zip(payload.chunks(segment as usize)) {
                let length = headers.len() + part.len();
                // Full rings and sockets empty themselves; a port that is down says that it can send.
                while !ports.can_send(OUT, length) {
                    ports.flush();
                }
                let put = ports.send(OUT, length, &mut |frame| write_segment(frame, headers, number * segment, part));
                put.map_err(|reason| anyhow::anyhow!("a frame is not forwarded: {reason}"))?;
                segments += 1;
            }
        }
        ports.release();
        ports.expect_more(received > 0);
        let queued = ports.flush();
        passed.fetch_add(segments, Relaxed);
        let now = Instant::now();
        if received > 0 || queued > 0 {
            busy = now;
        } else if now.duration_since(busy) > SPIN {
            ports.wait(Some(Duration::from_millis(10)));
        }
    }
    // What waited for more of its kind.
    ports.expect_more(false);
    wait_until("the last frames leave", PATIENCE, || (ports.flush() == 0).then_some(()))
}

/// A segment of what came whole, `offset` bytes into it: as its sender made it, before it was put together.
fn write_segment(frame: &mut [u8], headers: &[u8], offset: u32, payload: &[u8]) {
    let (own, rest) = frame.split_at_mut(headers.len());
    own.copy_from_slice(headers);
    rest.copy_from_slice(payload);
    let sequence = u32::from_be_bytes(headers[SEQUENCE].try_into().expect("four bytes"));
    own[SEQUENCE].copy_from_slice(&sequence.wrapping_add(offset).to_be_bytes());
    own[IP_LENGTH].copy_from_slice(&((headers.len() + payload.len() - ETHERNET) as u16).to_be_bytes());
    fill_partial_checksums(&mut frame[ETHERNET..]);
}

/// How many frames it has sent; all of them were taken by the forwarder.
fn send(
    ports: &mut XskPorts,
    frame: &mut [u8],
    megabits: Option<u32>,
    span: Duration,
    passed: &AtomicU64,
) -> Result<u64> {
    let payload = frame_payload(frame);
    let block = u64::from(BLOCK / payload);
    let step = |megabits: u32| Duration::from_secs_f64(block as f64 * f64::from(payload) * 8e-6 / f64::from(megabits));
    let mut pace = megabits.map_or(Pace::free(), |megabits| Pace::every(step(megabits)));
    let end = Instant::now() + span;
    let mut sent = 0;
    while Instant::now() < end {
        pace.wait();
        for _ in 0..block {
            await_room(ports, end, |ports| ports.can_send(ONLY, frame.len()) && sent - passed.load(Relaxed) < WINDOW)?;
            let sequence = u32::from_be_bytes(frame[SEQUENCE].try_into().expect("four bytes"));
            let put = ports.send(ONLY, frame.len(), &mut |bytes| bytes.copy_from_slice(frame));
            put.map_err(|reason| anyhow::anyhow!("a frame is not sent: {reason}"))?;
            frame[SEQUENCE].copy_from_slice(&sequence.wrapping_add(payload).to_be_bytes());
            sent += 1;
        }
        ports.flush();
    }
    await_room(ports, end, |ports| ports.flush() == 0 && sent == passed.load(Relaxed))?;
    Ok(sent)
}

fn await_room(ports: &mut XskPorts, end: Instant, mut there: impl FnMut(&mut XskPorts) -> bool) -> Result<()> {
    while !there(ports) {
        ports.flush();
        if Instant::now() > end + PATIENCE {
            bail!("frames were lost on the way to the forwarder");
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn frame_payload(frame: &[u8]) -> u32 {
    frame.len() as u32 - HEADERS
}

/// The sender's port hears nothing.
struct Nothing;

impl SteerMap for Nothing {
    fn insert(&mut self, _: PortId, _: SocketAddr, _: SocketAddr) -> bool {
        true
    }

    fn remove(&mut self, _: PortId, _: SocketAddr, _: SocketAddr) {}

    fn register(&mut self, _: PortId, _: u32, _: BorrowedFd<'_>) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_length_that_its_cable_takes_and_its_sequence_where_it_is_counted_up() {
        let frame = frame_for(9000);
        assert_eq!((frame.len(), frame_payload(&frame)), (9014, 8960));
        let other = Packet { seq: 0x0102_0304, ..packet() }.frame();
        assert_eq!(other[SEQUENCE], [1, 2, 3, 4]);
    }

    #[test]
    fn frames_are_what_their_payload_is_however_they_were_put_together() {
        let passed = Passed { payload: 44 * 1460, segment: 1460, spent: Spent::default() };
        assert_eq!(passed.frames(), 44.0);
    }
}
