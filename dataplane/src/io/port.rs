//! One port of one core: its sockets, its backlog, and what is done when it cannot send.
//!
//! A port is up when it has sockets. They are closed as soon as the kernel says that the interface
//! is down or gone: that brings back every frame they held, and nothing stale leaves when the
//! interface returns.

use std::time::Duration;

use snapshot::DropReason;

use super::bulk::Bulk;
use super::link::Link;
use super::ports::PortSpec;
use super::rings::{Backlog, FRAME_CAPACITY, Holder, RingSize, Window, frames_for};
use super::umem::{Frame, Mode, Umem};
use super::xsk::{Binding, Kick, OpenError, Xsk};

/// What a port did not take or hand on, since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received packets of more frames than any packet may have
    /// ([`TooLarge`](snapshot::DropReason::TooLarge)).
    pub oversized: u64,
    /// Packets that the kernel took and did not send: no carrier, or too large for the interface.
    pub refused: u64,
    /// Packets queued when the port went down ([`PortDown`](snapshot::DropReason::PortDown)).
    pub shed: u64,
    /// Wake-ups of the transmit ring.
    pub kicks: u64,
}

/// An interface, its sockets of this core, and what waits to be sent.
pub struct Port {
    pub interface: String,
    pub queues: Vec<u32>,
    /// The interface has no others.
    one_queue: bool,
    holders: u16,
    pub link: Link,
    /// Empty while the port is down. The first one, of the lowest queue, sends.
    pub sockets: Vec<Xsk>,
    pub backlog: Backlog<Frame>,
    /// In copy mode: large packets for the kernel to cut up.
    pub bulk: Option<Bulk>,
    /// The transmit ring may hold descriptors that no wake-up has covered.
    unsent: bool,
    /// The socket that the next burst begins with.
    pub turn: usize,
    pub counters: Counters,
}

/// Wake-ups of one port in one flush. More than one only while the kernel stops half-way and gets on.
const KICKS: usize = 16;

impl Port {
    pub fn new(spec: &PortSpec, link: Link, queues: Vec<u32>, holders: u16) -> Self {
        Self {
            interface: spec.interface.clone(),
            sockets: Vec::with_capacity(queues.len()),
            queues,
            one_queue: spec.queues == 1,
            holders,
            link,
            backlog: Backlog::new(0),
            bulk: None,
            unsent: false,
            turn: 0,
            counters: Counters::default(),
        }
    }

    pub fn bind(&mut self, umem: &Umem, ring: RingSize, mode: Mode) -> Result<(), OpenError> {
        let window = if self.link.veth { Window::VETH } else { ring.entries() as usize };
        for (i, &queue) in self.queues.iter().enumerate() {
            let holder = Holder(self.holders + i as u16);
            match Xsk::open(umem, &Binding { interface: &self.interface, queue, ring, mode, window, holder }) {
                Ok(socket) => self.sockets.push(socket),
                // None of them has a frame yet.
                Err(error) => {
                    self.sockets.clear();
                    return Err(error);
                }
            }
        }
        // On a veth with one queue, what leaves through the socket stays in order with what leaves through
        // the ring. A NIC has queues, and a qdisc that the ring does not meet.
        let in_order = self.link.veth && self.one_queue;
        self.bulk = Bulk::open(self.link.index).filter(|_| mode == Mode::Copy && in_order);
        Ok(())
    }

    /// Binds at start-up, when the kernel may still be taking down the sockets of the process before.
    pub fn bind_patiently(&mut self, umem: &Umem, ring: RingSize, mode: Mode) -> Result<(), OpenError> {
        let mut pause = Duration::from_millis(2);
        loop {
            match self.bind(umem, ring, mode) {
                Err(OpenError::Busy { .. }) if pause < Duration::from_millis(2000) => {
                    let tv_nsec = i64::from(pause.subsec_nanos());
                    let _ =
                        rustix::thread::nanosleep(&rustix::time::Timespec { tv_sec: pause.as_secs() as i64, tv_nsec });
                    pause *= 2;
                }
                done => return done,
            }
        }
    }

    /// Sheds what is queued and gives every frame back.
    pub fn close(&mut self, umem: &mut Umem) {
        self.counters.shed += (self.backlog.packets() + self.open()) as u64;
        self.bulk = None;
        while let Some(frame) = self.backlog.pop() {
            umem.give(frame);
        }
        for mut socket in self.sockets.drain(..) {
            socket.collect(umem);
            self.counters.oversized += socket.oversized;
            self.counters.shed += socket.window.packets() as u64;
            socket.close(umem);
        }
        self.unsent = false;
        self.turn = 0;
    }

    pub fn sending(&self) -> usize {
        self.backlog.pieces() + self.sockets.first().map_or(0, |socket| socket.window.frames())
    }

    /// Packets that the next flush goes on with.
    pub fn queued(&self) -> usize {
        self.backlog.packets() + usize::from(self.unsent)
    }

    /// Segments of the large packet that has not left.
    pub fn open(&self) -> usize {
        self.bulk.as_ref().map_or(0, Bulk::waiting)
    }

    pub fn flush(&mut self, umem: &mut Umem, ring: RingSize) {
        for _ in 0..KICKS {
            let Some(socket) = self.sockets.first_mut() else { return };
            let completed = socket.collect(umem);
            while self.backlog.packets() > 0 {
                let backlog = &mut self.backlog;
                if !socket.transmit(umem, backlog.first(), || backlog.pop().expect("the packet was counted")) {
                    break;
                }
                self.unsent = true;
            }
            if !self.unsent {
                return;
            }
            let before = socket.untaken(ring);
            self.counters.kicks += 1;
            match socket.kick() {
                Kick::Done => self.unsent = false,
                // Nothing taken and nothing completed: it is the next turn's.
                Kick::Again if completed == 0 && socket.untaken(ring) == before => return,
                Kick::Again => {}
                Kick::Refused => self.counters.refused += 1,
                Kick::Down => return self.close(umem),
            }
            if !self.unsent && self.backlog.packets() == 0 {
                return;
            }
        }
    }
}

/// Puts a frame on the backlog, in as many frames of the UMEM as it takes.
pub fn queue(umem: &mut Umem, backlog: &mut Backlog<Frame>, bytes: &[u8]) -> Result<(), DropReason> {
    if umem.free() < frames_for(bytes.len()) {
        return Err(DropReason::NoFrame);
    }
    let mut pieces = bytes.chunks(FRAME_CAPACITY).peekable();
    while let Some(piece) = pieces.next() {
        let mut frame = umem.take().expect("free frames were counted");
        umem.resize(&mut frame, piece.len()).copy_from_slice(piece);
        frame.set_continued(pieces.peek().is_some());
        backlog.push(frame);
    }
    Ok(())
}
