//! One AF_XDP socket: the four rings of one queue of one port, and the calls that drive them.
//!
//! ```text
//!   fill ──▶ kernel ──▶ receive        frames that packets arrive in
//!   transmit ──▶ kernel ──▶ complete   frames that packets leave in
//! ```
//!
//! Frames go in and come out by value; [`Umem`] keeps the book of who holds which. What a burst, a
//! backlog or a port is, is [`XskPorts`]' matter.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::io::Errno;
use rustix::net::SendFlags;
use xsk_rs::config::{BindFlags, Interface, LibxdpFlags, QueueSize, SocketConfig, XdpFlags};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, TxQueue};

pub use super::link::LinkError;
pub use super::port::Counters;
pub use super::ports::{OpenOptions, PortSpec, SteerMap, XskPorts};
use super::rings::{BATCH, Chain, Holder, MAX_CHAIN, Step, Window};
pub use super::rings::{RingSize, SizeError};
pub use super::umem::Mode;
use super::umem::{Frame, Umem};

/// Why a core's ports could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("limits.frames: the kernel refuses a UMEM of {frames} frames of 4096 bytes: {reason}; \
             lower it, raise RLIMIT_MEMLOCK, or give CAP_IPC_LOCK", reason = reason(*errno))]
    Umem { frames: u32, errno: i32 },
    #[error("cannot make a network namespace: {}", reason(*.0))]
    Namespace(i32),
    #[error("the UMEM's own socket cannot be bound to loopback: {}; give CAP_SYS_ADMIN, so that it can have a \
             namespace of its own, or stop the program that has an AF_XDP socket on lo", reason(*.0))]
    Anchor(i32),
    /// Passes by itself: the kernel still takes down the socket that was here before.
    #[error(
        "port {interface}, queue {queue}: still taken by another AF_XDP socket (EBUSY); \
             stop the program that has it (`ss --xdp`), or try again in a moment"
    )]
    Busy { interface: String, queue: u32 },
    #[error("port {interface}, queue {queue}: cannot open an AF_XDP socket: {reason}; {cure}",
            reason = reason(*errno), cure = cure(*errno))]
    Socket { interface: String, queue: u32, errno: i32 },
    /// Passes when the interface comes up.
    #[error("port {interface} is down: bring it up (`ip link set {interface} up`)")]
    Down { interface: String },
    #[error(
        "port {interface} has {queues} queues for {cores} cores: raise them (`ethtool -L {interface} combined \
             {cores}`) or configure fewer cores"
    )]
    Queues { interface: String, queues: u32, cores: u32 },
    #[error("waiting for packets: {}", reason(*.0))]
    Wait(i32),
}

fn reason(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}

fn cure(errno: i32) -> &'static str {
    match errno {
        libc::EPERM | libc::EACCES => "give CAP_NET_RAW and CAP_NET_ADMIN",
        libc::ENODEV | libc::ENXIO => "check that the interface exists in this namespace",
        libc::EINVAL => "check that the interface has this queue (`ethtool -l`)",
        libc::EOPNOTSUPP => "its driver does not support the mode of the other ports",
        libc::ENOMEM | libc::ENOBUFS => "lower limits.frames or the ring sizes, or raise RLIMIT_MEMLOCK",
        libc::EBADF => "the port that the memory was first bound to is gone: restart the dataplane",
        _ => "see the kernel's log",
    }
}

/// The errno that xsk-rs hides in `source()`.
pub(super) fn errno(error: &dyn std::error::Error) -> i32 {
    error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .and_then(|e| e.raw_os_error())
        .unwrap_or(0)
}

/// What a wake-up of the transmit ring came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Kick {
    /// The ring is empty.
    Done,
    /// The kernel stopped before the ring was empty; what it did not take is still on the ring.
    Again,
    /// It took one packet and dropped it: too large, no carrier, or a peer that does not take it.
    Refused,
    /// The interface is down or gone: nothing was taken.
    Down,
}

/// The rings of one queue of one port.
pub struct Xsk {
    tx: TxQueue,
    rx: RxQueue,
    fill: FillQueue,
    complete: CompQueue,
    holder: Holder,
    pub queue: u32,
    /// Frames on the fill ring, or in the kernel's hands to receive into.
    filled: usize,
    pub window: Window,
    batch: Box<[FrameDesc; BATCH]>,
    packet: Vec<FrameDesc>,
    /// A received packet whose last frames are not there yet.
    partial: Chain<Frame>,
    /// Packets longer than any may be, dropped.
    pub oversized: u64,
}

/// Bytes that the kernel may hold for sending: a window of the largest packets.
const SEND_BUFFER: usize = 16 << 20;

pub struct Binding<'a> {
    pub interface: &'a str,
    pub queue: u32,
    pub ring: RingSize,
    pub mode: Mode,
    /// Packets that may be out for sending at once.
    pub window: usize,
    pub holder: Holder,
}

impl Xsk {
    pub fn open(umem: &Umem, binding: &Binding<'_>) -> Result<Self, OpenError> {
        let &Binding { interface, queue, ring, mode, window, holder } = binding;
        let failed = |errno| match errno {
            libc::EBUSY => OpenError::Busy { interface: interface.to_owned(), queue },
            errno => OpenError::Socket { interface: interface.to_owned(), queue, errno },
        };
        let entries = QueueSize::new(ring.entries()).expect("a RingSize is a power of two");
        let mode = match mode {
            Mode::Copy => BindFlags::XDP_COPY,
            Mode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        };
        let config = SocketConfig::builder()
            .rx_queue_size(entries)
            .tx_queue_size(entries)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .xdp_flags(XdpFlags::XDP_FLAGS_DRV_MODE)
            .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP | BindFlags::XDP_USE_SG)
            .build();
        let name: Interface = interface.parse().map_err(|_| failed(libc::ENODEV))?;
        // SAFETY: loading of a program is inhibited, which is all that sharing a queue asks for.
        let (tx, rx, rings) = unsafe { xsk_rs::Socket::new(config, umem.memory(), &name, queue) }
            .map_err(|error| failed(errno(&error)))?;
        // None: a socket of this UMEM is on this queue already.
        let (fill, complete) = rings.ok_or_else(|| failed(libc::EBUSY))?;
        raise_budget(tx.fd().as_raw_fd());
        let batch = Box::new([FrameDesc::default(); BATCH]);
        let socket = Self {
            tx,
            rx,
            fill,
            complete,
            holder,
            queue,
            filled: 0,
            window: Window::new(window),
            batch,
            packet: Vec::with_capacity(MAX_CHAIN),
            partial: Chain::new(),
            oversized: 0,
        };
        // A large packet counts several times its size; where this is not allowed the kernel takes
        // fewer at a time.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size_force(socket.fd(), SEND_BUFFER);
        Ok(socket)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: `self.rx` owns a share of the socket, so the descriptor is open for as long as
        // the borrow of `self`; nothing takes `rx` out of it.
        unsafe { BorrowedFd::borrow_raw(self.rx.fd().as_raw_fd()) }
    }

    /// Frames that this socket's rings hold, and those of a packet that is not whole yet.
    pub fn held(&self) -> usize {
        self.filled + self.partial.len() + self.window.frames()
    }

    /// Tops the fill ring up to `target` frames, in whole batches.
    pub fn refill(&mut self, umem: &mut Umem, target: usize) {
        // Asking for a whole batch makes the count fresh: asked for one, it comes from a cache that
        // is refreshed only when empty.
        while self.filled + BATCH <= target && umem.free() >= BATCH && self.fill.nb_free(BATCH as u32) >= BATCH as u32 {
            for desc in self.batch.iter_mut() {
                let frame = umem.take().expect("free frames were counted");
                *desc = umem.lend(frame, self.holder);
            }
            // SAFETY: the descriptors are of this UMEM (`lend` asserts it) and each was consumed
            // with its only `Frame`, so nobody touches the bytes until `receive` makes it anew.
            let produced = unsafe { self.fill.produce(&self.batch[..]) };
            assert_eq!(produced, BATCH, "the fill ring had room for a batch");
            self.filled += BATCH;
        }
    }

    /// Takes up to `most` (a batch at most) frames off the receive ring and calls `whole` with the
    /// frames of each packet that they complete. Returns how many frames came.
    pub fn receive(&mut self, umem: &mut Umem, most: usize, mut whole: impl FnMut(&mut Vec<Frame>)) -> usize {
        let most = most.min(BATCH);
        // SAFETY: the ring returns descriptors of this UMEM, with which the socket was made.
        let received = unsafe { self.rx.consume(&mut self.batch[..most]) };
        self.filled -= received;
        for desc in &self.batch[..received] {
            let frame = umem.returned(*desc, self.holder);
            match self.partial.push(frame) {
                Step::Open => {}
                Step::Whole => whole(self.partial.pieces()),
                Step::Oversized { piece, last } => {
                    umem.give(piece);
                    self.partial.pieces().drain(..).for_each(|piece| umem.give(piece));
                    self.oversized += u64::from(last);
                }
            }
        }
        received
    }

    /// Puts one packet on the transmit ring, if the window and the ring have room for `frames`.
    /// `next` yields its frames, in order.
    pub fn transmit(&mut self, umem: &mut Umem, frames: usize, mut next: impl FnMut() -> Frame) -> bool {
        assert!((1..=MAX_CHAIN).contains(&frames), "a packet of {frames} frames");
        if self.window.is_full() || self.tx.nb_free(frames as u32) < frames as u32 {
            return false;
        }
        self.packet.clear();
        for _ in 0..frames {
            self.packet.push(umem.lend(next(), self.holder));
        }
        // SAFETY: as in `refill`: descriptors of this UMEM, each consumed with its only `Frame`,
        // not touched until `collect` makes it anew.
        let produced = unsafe { self.tx.produce(&self.packet) };
        assert_eq!(produced, frames, "the transmit ring had room for the packet");
        self.window.sent(frames);
        true
    }

    /// Takes completed frames back; returns how many.
    pub fn collect(&mut self, umem: &mut Umem) -> usize {
        let mut collected = 0;
        loop {
            // SAFETY: as in `receive`.
            let completed = unsafe { self.complete.consume(&mut self.batch[..]) };
            for desc in &self.batch[..completed] {
                let frame = umem.returned(*desc, self.holder);
                umem.give(frame);
            }
            collected += completed;
            if completed < BATCH {
                self.window.completed(collected);
                return collected;
            }
        }
    }

    /// Descriptors that the kernel has not taken off the transmit ring.
    pub fn untaken(&mut self, ring: RingSize) -> usize {
        (ring.entries() - self.tx.nb_free_exact()) as usize
    }

    /// Has the kernel send what is on the transmit ring.
    pub fn kick(&self) -> Kick {
        if !self.tx.needs_wakeup() {
            return Kick::Done;
        }
        // Not xsk-rs's own wake-up: it takes EAGAIN, EBUSY and ENETDOWN for success.
        match rustix::net::send(self.fd(), &[], SendFlags::DONTWAIT) {
            Ok(_) => Kick::Done,
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => Kick::Again,
            Err(Errno::BUSY) => Kick::Refused,
            Err(_) => Kick::Down,
        }
    }

    /// Closes the socket and takes back every frame that it held.
    pub fn close(mut self, umem: &mut Umem) {
        let holder = self.holder;
        self.partial.pieces().drain(..).for_each(|frame| umem.give(frame));
        // All four rings keep the socket open. Once it is closed (close(2) waits for receptions in
        // progress) the kernel writes to none of its frames.
        drop(self);
        umem.recover(holder);
    }
}

/// Lets one sendto take more than 32 descriptors (XDP_MAX_TX_SKB_BUDGET, Linux 6.17). An older
/// kernel refuses; then it takes more calls.
fn raise_budget(fd: RawFd) {
    const SOL_XDP: libc::c_int = 283;
    const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
    let budget: u32 = 256;
    // SAFETY: the pointer and the length are of `budget`, which outlives the call; the kernel only
    // reads it.
    let _ = unsafe {
        libc::setsockopt(fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, (&raw const budget).cast(), size_of::<u32>() as u32)
    };
}

/// What netdevice(7) tells about an interface in the request itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Index,
    Mtu,
    Mac,
    Flags,
}

pub(super) fn interface_request(interface: &str, ask: Ask) -> Result<libc::ifreq, i32> {
    let request = match ask {
        Ask::Index => libc::SIOCGIFINDEX,
        Ask::Mtu => libc::SIOCGIFMTU,
        Ask::Mac => libc::SIOCGIFHWADDR,
        Ask::Flags => libc::SIOCGIFFLAGS,
    };
    ioctl(interface, request, std::ptr::null_mut())
}

/// What `ethtool` commands take and return behind `ifr_data`: fixed-size, starting with the command.
pub(super) fn ethtool_request<const N: usize>(interface: &str, argument: &mut [u32; N]) -> Result<(), i32> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    assert!(
        N * 4 >= ethtool_size(argument[0]),
        "the kernel writes {} bytes for ethtool command {:#x}",
        ethtool_size(argument[0]),
        argument[0]
    );
    // `argument` is alive and exclusively borrowed over the call, and long enough (asserted).
    ioctl(interface, SIOCETHTOOL, argument.as_mut_ptr().cast()).map(|_| ())
}

pub(super) const ETHTOOL_GDRVINFO: u32 = 0x03;
pub(super) const ETHTOOL_GCHANNELS: u32 = 0x3c;
pub(super) const ETHTOOL_SCHANNELS: u32 = 0x3d;

fn ethtool_size(command: u32) -> usize {
    match command {
        ETHTOOL_GDRVINFO => 196,
        ETHTOOL_GCHANNELS | ETHTOOL_SCHANNELS => 36,
        _ => panic!("ethtool command {command:#x} has no known size"),
    }
}

fn ioctl(interface: &str, request: libc::Ioctl, data: *mut libc::c_char) -> Result<libc::ifreq, i32> {
    if interface.len() >= libc::IFNAMSIZ || interface.is_empty() {
        return Err(libc::ENODEV);
    }
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .map_err(|error| error.raw_os_error())?;
    // SAFETY: all-zero bytes are a valid ifreq: integers, arrays and a null pointer.
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in ifreq.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq.ifr_ifru.ifru_data = data;
    // SAFETY: the descriptor is open; `ifreq` is valid for the kernel to read and write; callers
    // are this module's two functions, whose requests use the inline union only, or, for ethtool,
    // a buffer that is alive and as long as its command's answer.
    match unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &raw mut ifreq) } {
        0 => Ok(ifreq),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}

/// The number that SIOCGIFINDEX and SIOCGIFMTU answer with.
pub(super) fn answer_number(ifreq: &libc::ifreq) -> i32 {
    // SAFETY: every member of the union overlays initialised bytes, and any bytes are an integer.
    unsafe { ifreq.ifr_ifru.ifru_mtu }
}

/// What SIOCGIFFLAGS answers with.
pub(super) fn answer_flags(ifreq: &libc::ifreq) -> i32 {
    // SAFETY: as above.
    i32::from(unsafe { ifreq.ifr_ifru.ifru_flags })
}

/// The address that SIOCGIFHWADDR answers with.
pub(super) fn answer_mac(ifreq: &libc::ifreq) -> [u8; 6] {
    // SAFETY: as above; the address is an array of bytes.
    let data = unsafe { ifreq.ifr_ifru.ifru_hwaddr.sa_data };
    std::array::from_fn(|i| data[i] as u8)
}
