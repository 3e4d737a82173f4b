//! The memory that packets live in, cut into equal frames, shared by all sockets of a core.
//!
//! A frame is in exactly one place at any time: free, with one socket's rings, in a backlog, or
//! lent to the worker. [`Frame`] is the proof of that: it is the only handle on its bytes, it
//! cannot be copied, and whoever gives it away gives it by value. The kernel writes to the frames
//! that it holds while we read ours, so no reference to the whole region ever exists; every
//! reference is to one frame, and is made in this file.
//!
//! The kernel lets sockets share this memory only through a first one that stays bound, and takes
//! the mode of all from it. Were that one a port, no port could be opened again once that one's
//! interface was removed. So the first socket, the anchor, is bound to the loopback of a namespace
//! made for it, which nobody can remove; it never carries a packet.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::{CompQueue, FillQueue, RxQueue, Socket, TxQueue};

use super::rings::{FRAME_CAPACITY, FRAME_SIZE, Holder, Holders, Piece, RingSize};
use super::xsk::{OpenError, errno};

/// The only handle on one frame's bytes.
#[derive(Debug)]
pub struct Frame {
    umem: u32,
    desc: FrameDesc,
}

impl Frame {
    pub fn len(&self) -> usize {
        self.desc.lengths().data()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says whether the next frame goes on with the same packet.
    pub fn set_continued(&mut self, continued: bool) {
        self.desc.set_options(u32::from(continued));
    }
}

impl Piece for Frame {
    fn continued(&self) -> bool {
        self.desc.has_more_frames()
    }
}

/// What sockets share: copy mode everywhere, or zero-copy everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Copy,
    ZeroCopy,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::ZeroCopy => "zero-copy",
        }
    }
}

type Rings = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

pub struct Umem {
    memory: xsk_rs::Umem,
    id: u32,
    /// Each frame's descriptor as it was at first: where its bytes begin.
    origin: Vec<FrameDesc>,
    free: Vec<Frame>,
    holders: Holders,
    /// Keeps the memory's own socket bound.
    _anchor: Option<Rings>,
}

static NEXT_ID: AtomicU32 = AtomicU32::new(0);

impl Umem {
    /// Memory for sockets in copy mode, which any interface has.
    pub fn with_anchor(frames: u32, ring: RingSize) -> Result<Self, OpenError> {
        // A thread's namespace is its own: this one takes its namespace with it when it ends, and
        // the anchor's socket keeps it alive.
        let made =
            std::thread::scope(|scope| scope.spawn(|| in_own_namespace().and_then(|()| anchored(frames, ring))).join());
        match made.expect("the thread that opens the UMEM does not panic") {
            // Without CAP_SYS_ADMIN there is no namespace of our own to be had; the loopback of
            // this one serves as long as it is not taken.
            Err(OpenError::Namespace(libc::EPERM)) => anchored(frames, ring),
            made => made,
        }
    }

    /// Memory whose first port decides the mode; for zero-copy, which loopback does not have.
    pub fn without_anchor(frames: u32, ring: RingSize) -> Result<Self, OpenError> {
        let queue = QueueSize::new(ring.entries()).expect("a RingSize is a power of two");
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(FRAME_SIZE as u32).expect("4096 is a frame size"))
            .fill_queue_size(queue)
            .comp_queue_size(queue)
            .build()
            .expect("the frame size is a power of two over the headroom");
        let count = NonZeroU32::new(frames).expect("Shares refuse zero frames");
        let (memory, origin) = xsk_rs::Umem::new(config, count, false)
            .map_err(|error| OpenError::Umem { frames, errno: errno(&error) })?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let free = origin.iter().rev().map(|&desc| Frame { umem: id, desc }).collect();
        Ok(Self { memory, id, free, holders: Holders::new(origin.len()), origin, _anchor: None })
    }

    pub(super) fn memory(&self) -> &xsk_rs::Umem {
        &self.memory
    }

    pub fn count(&self) -> usize {
        self.origin.len()
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Takes a frame back, whatever was in it.
    pub fn give(&mut self, frame: Frame) {
        let index = self.index(&frame);
        self.free.push(Frame { umem: self.id, desc: self.origin[index] });
    }

    /// The bytes received into, or written to, a frame.
    pub fn bytes<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        self.index(frame);
        assert!(frame.desc.addr() % FRAME_SIZE + frame.len() <= FRAME_SIZE, "a packet ends within its frame");
        // SAFETY:
        // - in bounds: `frame` is of this memory and its index is below the count (asserted by
        //   `index`), and its bytes end within its frame (asserted);
        // - not aliased: a frame's descriptor is in one `Frame`, which is not `Clone`; while a ring
        //   holds the frame no `Frame` for it exists (`lend` consumes it, `returned` makes it anew
        //   and checks that the ring had it); the borrow of `frame` is exclusive for `'a`;
        // - alive: the region is unmapped when `self.memory` is dropped, which `'a` keeps away;
        // - initialised: the region is anonymous memory, zeroed when mapped.
        let data = unsafe { self.memory.data_mut(&mut frame.desc) };
        contents(data)
    }

    /// Sets a frame's length and lends its bytes to be written.
    pub fn resize<'a>(&'a self, frame: &'a mut Frame, len: usize) -> &'a mut [u8] {
        let index = self.index(frame);
        assert!(len <= FRAME_CAPACITY, "{len} bytes in a frame that holds {FRAME_CAPACITY}");
        frame.desc = self.origin[index];
        // SAFETY: as in `bytes`; the length is within the frame's capacity from its origin (asserted).
        let mut data = unsafe { self.memory.data_mut(&mut frame.desc) };
        data.cursor().set_pos(len);
        contents(data)
    }

    /// Hands a frame to a socket's ring: its descriptor, which the caller must put on that ring.
    pub(super) fn lend(&mut self, frame: Frame, to: Holder) -> FrameDesc {
        self.holders.hand_over(self.index(&frame), to);
        frame.desc
    }

    /// A frame that a socket's ring gave back.
    pub(super) fn returned(&mut self, desc: FrameDesc, from: Holder) -> Frame {
        let frame = Frame { umem: self.id, desc };
        self.holders.take_back(self.index(&frame), from);
        frame
    }

    /// Takes back all that the rings of a socket held. The socket must have been closed.
    pub(super) fn recover(&mut self, from: Holder) {
        let Self { holders, free, origin, id, .. } = self;
        holders.take_all(from, |index| free.push(Frame { umem: *id, desc: origin[index] }));
    }

    fn index(&self, frame: &Frame) -> usize {
        let index = frame.desc.addr() / FRAME_SIZE;
        assert!(frame.umem == self.id && index < self.origin.len(), "a frame of another UMEM");
        index
    }
}

/// The slice behind a `DataMut`, for as long as the frame is borrowed.
fn contents<'a>(data: xsk_rs::umem::frame::DataMut<'a>) -> &'a mut [u8] {
    let mut data = data;
    let bytes = data.contents_mut();
    // SAFETY: `DataMut` holds the frame's exclusive borrow for `'a` and is consumed here, so the
    // only reference to these bytes that outlives this call is the one returned; its pointer and
    // length come from that borrow.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr(), bytes.len()) }
}

fn in_own_namespace() -> Result<(), OpenError> {
    // SAFETY: CLONE_NEWNET only changes which network namespace this thread creates sockets in; no
    // memory and no descriptor is unshared.
    match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(OpenError::Namespace(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))),
    }
}

fn anchored(frames: u32, ring: RingSize) -> Result<Umem, OpenError> {
    let mut umem = Umem::without_anchor(frames, ring)?;
    let small = QueueSize::new(64).expect("64 is a power of two");
    let config = SocketConfig::builder()
        .rx_queue_size(small)
        .tx_queue_size(small)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP | BindFlags::XDP_USE_SG)
        .build();
    let loopback: Interface = "lo".parse().expect("no NUL in the name");
    // SAFETY: no other socket is bound to this interface and queue from this UMEM, and loading of a
    // program is inhibited all the same.
    let rings = unsafe { Socket::new(config, &umem.memory, &loopback, 0) };
    umem._anchor = Some(rings.map_err(|error| OpenError::Anchor(errno(&error)))?);
    Ok(umem)
}

/// Has the allocator map each block of 128 KiB and more by itself, so that a TCP ring that is freed
/// goes back to the system, and a new one is fresh zero pages. By default glibc stops doing so after
/// the first such block was freed (mallopt(3), M_MMAP_THRESHOLD), and beyond 65,536 of them
/// (M_MMAP_MAX), which is 16,384 sessions: with 100,000, each then took twice the memory.
pub fn give_large_blocks_back() {
    // SAFETY: takes two numbers and no pointer; it is called before there are other threads, though
    // glibc would lock for it.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_MMAP_MAX, libc::c_int::MAX);
    }
}
