//! Large packets of a port: segments are put together as they come and leave through the packet
//! socket; what stays alone leaves through the transmit ring like everything else.
//!
//! The order of packets is kept: what is on the ring has been handed to the kernel before a large
//! packet is. When the socket has no room, the port says that it cannot send until it has.

use snapshot::DropReason;

use super::coalesce::{Coalescer, Pushed};
use super::packet::PacketSocket;
use super::port::{Port, queue};
use super::rings::{FRAME_CAPACITY, RingSize};
use super::umem::Umem;
use super::xsk::Kick;
use crate::parse::{ETHERNET, complete_checksum};

/// A lone packet up to this length goes through the ring: a large one costs less through the socket.
const RING_LENGTH: usize = 2 * FRAME_CAPACITY;

/// Packets in a row that the kernel may drop (a filter on egress, a device that cannot cut) until the
/// port goes on without.
const MOST_REFUSED: u32 = 3;

/// Turns that an open packet may wait for more of its kind while packets keep coming.
const KEPT: u32 = 8;

pub struct Bulk {
    socket: PacketSocket,
    open: Coalescer,
    /// The socket had no room for the open packet, behind which a frame waits.
    stuck: bool,
    /// Turns that the open packet has waited.
    kept: u32,
    /// Packets in a row that the kernel dropped.
    refused: u32,
}

impl Bulk {
    /// None: the kernel does not give us such a socket; all goes through the ring then.
    pub fn open(index: u32) -> Option<Self> {
        let socket = PacketSocket::open(index).ok()?;
        Some(Self { socket, open: Coalescer::new(), stuck: false, kept: 0, refused: 0 })
    }

    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Segments that have not left.
    pub fn waiting(&self) -> usize {
        self.open.segments() + usize::from(self.stuck)
    }
}

impl Port {
    /// Whether the open packet waits for another turn, in which it may grow.
    pub fn keeps_open(&mut self, more: bool) -> bool {
        let Some(bulk) = &mut self.bulk else { return false };
        let keep = more && !bulk.stuck && bulk.kept < KEPT && bulk.open.can_grow();
        bulk.kept = if keep { bulk.kept + 1 } else { 0 };
        keep
    }

    /// Puts a frame of `len` bytes, its checksum partial, behind what is open.
    pub fn send_bulk(
        &mut self,
        umem: &mut Umem,
        ring: RingSize,
        len: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), DropReason> {
        let bulk = self.bulk.as_mut().expect("the caller asked for it");
        if bulk.open.push(len, fill) == Pushed::Taken {
            return Ok(());
        }
        bulk.stuck = true;
        self.send_open(umem, ring)
    }

    /// Sends what is open, and then takes up the frame behind it, if that had to wait. What the socket
    /// has no room for stays.
    pub fn send_open(&mut self, umem: &mut Umem, ring: RingSize) -> Result<(), DropReason> {
        if self.bulk.as_ref().is_some_and(|bulk| bulk.open.segments() > 0) && !self.hand_over(umem, ring)? {
            return Ok(());
        }
        let Some(bulk) = self.bulk.as_mut().filter(|bulk| bulk.stuck) else { return Ok(()) };
        bulk.stuck = false;
        if bulk.open.open() {
            return Ok(());
        }
        let frame = bulk.open.beside();
        complete(frame);
        queue(umem, &mut self.backlog, frame)
    }

    /// False: not now.
    fn hand_over(&mut self, umem: &mut Umem, ring: RingSize) -> Result<bool, DropReason> {
        let bulk = self.bulk.as_mut().expect("the caller asked for it");
        let (frame, cut) = bulk.open.packet();
        if cut.segment == 0 && frame.len() <= RING_LENGTH {
            complete(frame);
            let queued = queue(umem, &mut self.backlog, frame);
            bulk.open.clear();
            return queued.map(|()| true);
        }
        if self.backlog.packets() > 0 {
            self.flush(umem, ring);
        }
        let queued = self.queued();
        let Some(bulk) = self.bulk.as_mut() else { return Err(DropReason::PortDown) };
        if queued > 0 {
            return Ok(false);
        }
        let (frame, cut) = bulk.open.packet();
        match bulk.socket.send(frame, cut) {
            Kick::Done => bulk.refused = 0,
            Kick::Again => return Ok(false),
            Kick::Refused => {
                bulk.refused += 1;
                self.counters.refused += bulk.open.segments() as u64;
            }
            Kick::Down => {
                self.close(umem);
                return Err(DropReason::PortDown);
            }
        }
        bulk.open.clear();
        if bulk.refused >= MOST_REFUSED && !bulk.stuck {
            // Something on the way takes frames and no trains: then frames it is.
            self.bulk = None;
        }
        Ok(true)
    }
}

/// The TCP checksum of a frame that nobody completes on the way.
fn complete(frame: &mut [u8]) {
    frame.get_mut(ETHERNET..).into_iter().for_each(complete_checksum);
}
