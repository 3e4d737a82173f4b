//! All AF_XDP ports of one core behind [`PacketIo`].
//!
//! ```text
//!   rx_burst ◀── sockets of the port's queues that are this core's, round robin
//!   send ──▶ backlog ──▶ flush: window ──▶ transmit ring ──▶ one wake-up
//! ```
//!
//! Each port has its own backlog and its own share of frames, so a port that cannot send delays
//! nobody. A port whose interface is down or gone has no sockets: they are closed as soon as the
//! kernel says so, which brings back every frame they held and makes sure that nothing stale leaves
//! when the interface returns; [`XskPorts::take_up`] makes them anew.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use snapshot::DropReason;

use super::bulk::Bulk;
use super::burst::Burst;
use super::link::Link;
use super::port::{Counters, Port, queue};
use super::rings::{BACKLOG, Backlog, FRAME_CAPACITY, MAX_CHAIN, RingSize, Shares, frames_for};
use super::umem::{Mode, Umem};
use super::wait::{MAX_SOCKETS, Sleeper, Waker};
use super::xsk::{Kick, OpenError, Xsk};
use super::{BURST, Packet, PacketIo, PortId};

/// The steering map's entries of flows: the runtime puts the program's map behind it.
pub trait SteerMap: Send {
    /// False: the map is full.
    fn insert(&mut self, port: PortId, source: SocketAddr, destination: SocketAddr) -> bool;
    fn remove(&mut self, port: PortId, source: SocketAddr, destination: SocketAddr);
    /// A port's socket is another one from now on. False: it could not be registered.
    fn register(&mut self, port: PortId, queue: u32, socket: BorrowedFd<'_>) -> bool;
}

#[derive(Debug, Clone)]
pub struct PortSpec {
    pub interface: String,
    /// Its place in the Gateway's list, and in the steering maps.
    pub index: PortId,
    /// Queues that the interface has (see [`super::link::ensure_queues`]); queue q is the business
    /// of core q % cores.
    pub queues: u32,
}

pub struct OpenOptions<'a> {
    /// All ports of the Gateway, in its order.
    pub ports: &'a [PortSpec],
    pub core_index: u32,
    pub cores: u32,
    /// Frames of this core's UMEM.
    pub frames: u32,
    /// Entries of each of a socket's four rings.
    pub ring: RingSize,
    pub steer: Box<dyn SteerMap>,
}

pub struct XskPorts {
    ports: Vec<Port>,
    umem: Umem,
    mode: Mode,
    ring: RingSize,
    shares: Shares,
    burst: Burst,
    /// Where a packet of several frames is written before it is spread.
    large: Box<[u8]>,
    sleeper: Sleeper,
    /// See [`PacketIo::expect_more`].
    more: bool,
    steer: Box<dyn SteerMap>,
    /// What [`PacketIo::drops`] has told of each port.
    told: Vec<Counters>,
}

/// The longest sleep while something is queued that the kernel did not take.
const RETRY: Duration = Duration::from_micros(100);

/// Ethernet header and one VLAN tag: what a frame may be longer than the MTU.
const LINK_HEADER: usize = 18;

const ETHERNET_HEADER: usize = 14;

impl XskPorts {
    pub fn open(options: OpenOptions<'_>) -> Result<Self, OpenError> {
        let OpenOptions { ports: specs, core_index, cores, frames, ring, steer } = options;
        let mut ports = Vec::with_capacity(specs.len());
        let mut holders = 0;
        for (place, spec) in specs.iter().enumerate() {
            assert!(usize::from(spec.index.0) == place, "ports come in the order of their index");
            let queues: Vec<u32> = (0..spec.queues).filter(|queue| queue % cores == core_index).collect();
            if queues.is_empty() {
                let interface = spec.interface.clone();
                return Err(OpenError::Queues { interface, queues: spec.queues, cores });
            }
            ports.push(Port::new(spec, Link::read(&spec.interface)?, queues, holders));
            holders += ports.last().map_or(0, |port| port.queues.len() as u16);
        }
        let sockets = usize::from(holders);
        assert!(sockets <= MAX_SOCKETS, "one core has at most {MAX_SOCKETS} sockets, not {sockets}");
        let shares = Shares::divide(frames, ports.len(), sockets, ring)?;
        let (umem, mode) = bind_all(&mut ports, frames, ring)?;
        for port in &mut ports {
            port.backlog = Backlog::new(shares.send);
        }
        let mut all = Self {
            ports,
            umem,
            mode,
            ring,
            shares,
            burst: Burst::new(),
            large: vec![0; MAX_CHAIN * FRAME_CAPACITY].into(),
            sleeper: Sleeper::new().map_err(|errno| OpenError::Wait(errno.raw_os_error()))?,
            more: false,
            steer,
            told: vec![Counters::default(); specs.len()],
        };
        all.refill();
        Ok(all)
    }

    /// What the kernel gave: "copy" or "zero-copy".
    pub fn mode(&self) -> &'static str {
        self.mode.name()
    }

    /// Every socket of this core, to be registered in the steering program's socket map.
    pub fn sockets(&self) -> impl Iterator<Item = (PortId, u32, BorrowedFd<'_>)> {
        let ports = self.ports.iter().enumerate();
        ports.flat_map(|(i, port)| port.sockets.iter().map(move |s| (PortId(i as u16), s.queue, s.fd())))
    }

    pub fn waker(&self) -> Waker {
        self.sleeper.waker()
    }

    pub fn mtu(&self, port: PortId) -> usize {
        self.ports[usize::from(port.0)].link.mtu
    }

    pub fn mac(&self, port: PortId) -> [u8; 6] {
        self.ports[usize::from(port.0)].link.mac
    }

    pub fn is_up(&self, port: PortId) -> bool {
        !self.ports[usize::from(port.0)].sockets.is_empty()
    }

    pub fn counters(&self, port: PortId) -> Counters {
        let port = &self.ports[usize::from(port.0)];
        let oversized = port.counters.oversized + port.sockets.iter().map(|s| s.oversized).sum::<u64>();
        Counters { oversized, ..port.counters }
    }

    /// Takes a port up again after its interface changed, came up, or was made anew: reads its MTU
    /// and MAC, and opens its sockets unless they are good. True: the sockets are new and must be
    /// registered ([`Self::sockets`]). [`OpenError::Busy`] passes: call again in some milliseconds.
    pub fn take_up(&mut self, port: PortId) -> Result<bool, OpenError> {
        let mode = self.mode;
        let port = &mut self.ports[usize::from(port.0)];
        let link = match Link::read(&port.interface) {
            Ok(link) => link,
            Err(gone) => {
                port.close(&mut self.umem);
                return Err(gone.into());
            }
        };
        let same = link.index == port.link.index;
        port.link = link;
        if same && port.sockets.first().is_some_and(|socket| socket.kick() != Kick::Down) {
            return Ok(false);
        }
        port.close(&mut self.umem);
        if !port.link.up {
            return Err(OpenError::Down { interface: port.interface.clone() });
        }
        port.bind(&self.umem, self.ring, mode)?;
        self.refill();
        Ok(true)
    }

    /// Closes a port whose interface is known to be gone, and takes its frames back.
    pub fn close(&mut self, port: PortId) {
        self.ports[usize::from(port.0)].close(&mut self.umem);
    }

    fn refill(&mut self) {
        for socket in self.ports.iter_mut().flat_map(|port| &mut port.sockets) {
            socket.refill(&mut self.umem, self.shares.fill);
        }
    }
}

/// Zero-copy if every port's driver has it (the sockets of one UMEM all work in one mode), else copy.
fn bind_all(ports: &mut [Port], frames: u32, ring: RingSize) -> Result<(Umem, Mode), OpenError> {
    if !ports.iter().any(|port| port.link.veth) {
        let umem = Umem::without_anchor(frames, ring)?;
        if ports.iter_mut().try_for_each(|port| port.bind_patiently(&umem, ring, Mode::ZeroCopy)).is_ok() {
            return Ok((umem, Mode::ZeroCopy));
        }
        ports.iter_mut().for_each(|port| port.sockets.clear());
    }
    let umem = Umem::with_anchor(frames, ring)?;
    ports.iter_mut().try_for_each(|port| port.bind_patiently(&umem, ring, Mode::Copy))?;
    Ok((umem, Mode::Copy))
}

impl PacketIo for XskPorts {
    fn drops(&mut self, tell: &mut dyn FnMut(DropReason, u64)) {
        for at in 0..self.ports.len() {
            let now = self.counters(PortId(at as u16));
            let before = std::mem::replace(&mut self.told[at], now);
            let counts = [
                (DropReason::TooLarge, now.oversized - before.oversized),
                (DropReason::PortDown, now.refused + now.shed - before.refused - before.shed),
            ];
            counts.into_iter().filter(|(_, count)| *count > 0).for_each(|(reason, count)| tell(reason, count));
        }
    }

    fn reopen(&mut self, port: PortId) -> bool {
        match self.take_up(port) {
            Ok(false) => true,
            Ok(true) => {
                let sockets = &self.ports[usize::from(port.0)].sockets;
                let registered = sockets.iter().all(|socket| self.steer.register(port, socket.queue, socket.fd()));
                if !registered {
                    // Good sockets that steering does not know are deaf: the next attempt makes new ones.
                    self.close(port);
                }
                registered
            }
            Err(_) => false,
        }
    }

    fn ports(&self) -> usize {
        self.ports.len()
    }

    fn rx_burst(&mut self, port: PortId) -> usize {
        let Self { ports, umem, burst, .. } = self;
        assert!(burst.packets() == 0, "the burst before was not released");
        let port = &mut ports[usize::from(port.0)];
        let sockets = port.sockets.len();
        for i in 0..sockets {
            let socket = &mut port.sockets[(port.turn + i) % sockets];
            // A frame ends one packet at most, so no more packets come than there is room for.
            while burst.packets() < BURST
                && socket.receive(umem, BURST - burst.packets(), |frames| burst.push(frames)) > 0
            {}
        }
        port.turn = port.turn.wrapping_add(1);
        burst.packets()
    }

    fn head(&mut self, packet: Packet) -> &[u8] {
        self.burst.head(&self.umem, packet)
    }

    fn length(&mut self, packet: Packet) -> usize {
        self.burst.length(packet)
    }

    fn bytes(&mut self, packet: Packet) -> &mut [u8] {
        self.burst.bytes(&self.umem, packet)
    }

    fn release(&mut self) {
        self.burst.release(&mut self.umem);
    }

    fn can_send(&mut self, port: PortId, len: usize) -> bool {
        // A port that is down, or a packet that no link takes, will not get better by waiting.
        match self.room(port, len) {
            Ok(_) | Err(DropReason::PortDown | DropReason::TooLarge) => true,
            Err(_) => false,
        }
    }

    fn offloads_checksums(&self, port: PortId) -> bool {
        self.ports[usize::from(port.0)].bulk.is_some()
    }

    fn send(&mut self, port: PortId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), DropReason> {
        let frames = self.room(port, len)?;
        let Self { ports, umem, large, .. } = self;
        let port = &mut ports[usize::from(port.0)];
        if port.bulk.is_some() {
            return port.send_bulk(umem, self.ring, len, fill);
        }
        let backlog = &mut port.backlog;
        if frames == 1 {
            let mut frame = umem.take().ok_or(DropReason::NoFrame)?;
            fill(umem.resize(&mut frame, len));
            backlog.push(frame);
            return Ok(());
        }
        fill(&mut large[..len]);
        queue(umem, backlog, &large[..len])
    }

    fn expect_more(&mut self, more: bool) {
        self.more = more;
    }

    fn flush(&mut self) -> usize {
        let mut queued = 0;
        for port in &mut self.ports {
            if !port.keeps_open(self.more) {
                // What finds no frame is lost as on the wire; TCP sends it again.
                let lost = port.send_open(&mut self.umem, self.ring) == Err(DropReason::NoFrame);
                port.counters.refused += u64::from(lost);
            }
            port.flush(&mut self.umem, self.ring);
            queued += port.queued() + port.open();
        }
        self.refill();
        queued
    }

    fn steer(&mut self, port: PortId, source: SocketAddr, destination: SocketAddr) -> bool {
        self.steer.insert(port, source, destination)
    }

    fn unsteer(&mut self, port: PortId, source: SocketAddr, destination: SocketAddr) {
        self.steer.remove(port, source, destination);
    }

    fn wait(&mut self, timeout: Option<Duration>) {
        let pending = self.ports.iter().any(|port| port.queued() + port.open() > 0);
        let timeout = if pending { Some(timeout.map_or(RETRY, |timeout| timeout.min(RETRY))) } else { timeout };
        let sockets = self.ports.iter().flat_map(|port| &port.sockets).map(Xsk::fd);
        self.sleeper.sleep(sockets, timeout);
    }

    fn frames(&self) -> (usize, usize) {
        let held = |port: &Port| port.backlog.pieces() + port.sockets.iter().map(Xsk::held).sum::<usize>();
        (self.umem.free() + self.ports.iter().map(held).sum::<usize>(), self.umem.count())
    }
}

impl XskPorts {
    /// Frames that a packet of `len` bytes takes, if `port` has room for them now.
    fn room(&mut self, port: PortId, len: usize) -> Result<usize, DropReason> {
        assert!(len >= ETHERNET_HEADER, "a packet of {len} bytes has no Ethernet header");
        let Self { ports, umem, shares, .. } = self;
        let port = &mut ports[usize::from(port.0)];
        if port.sockets.is_empty() {
            return Err(DropReason::PortDown);
        }
        if len > port.link.mtu + LINK_HEADER {
            return Err(DropReason::TooLarge);
        }
        let frames = frames_for(len);
        if port.backlog.packets() >= BACKLOG || port.bulk.as_ref().is_some_and(Bulk::is_stuck) {
            return Err(DropReason::TransmitBacklogFull);
        }
        if port.sending() + frames > shares.send {
            port.sockets[0].collect(umem);
            if port.sending() + frames > shares.send {
                return Err(DropReason::TransmitBacklogFull);
            }
        }
        if umem.free() < frames { Err(DropReason::NoFrame) } else { Ok(frames) }
    }
}
