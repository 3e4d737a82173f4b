//! Where packets come from and go to: the seam between the packet loop and the world.
//!
//! [`PacketIo`] is what a worker sees of its ports. [`xsk`] puts AF_XDP rings behind it, [`mem`]
//! puts queues in memory behind it, so that the same loop runs in a simulation. Ports are known by
//! their index in the Gateway's list, which is also their index in the steering maps.
//!
//! ```text
//!   rx_burst ─▶ Burst (packets, whole) ─▶ bytes() ─▶ release()
//!   send(port, len, fill) ─▶ queued ─▶ flush() (one wake-up a port a turn)
//! ```

mod bulk;
mod burst;
mod coalesce;
pub mod link;
pub mod mem;
mod packet;
mod port;
pub mod ports;
pub mod rings;
pub mod umem;
pub mod wait;
pub mod xsk;

use std::net::SocketAddr;

use snapshot::DropReason;

/// Index of a port in the Gateway's list of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// Most packets that one [`PacketIo::rx_burst`] hands out.
pub const BURST: usize = 64;

/// Handle on one received packet: an index into the driver's current burst. It is only good until
/// the burst is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet(pub usize);

/// The ports of one core.
///
/// The driver owns all frames. A received packet is lent out by [`bytes`](Self::bytes) until
/// [`release`](Self::release) gives the burst's frames back; a packet to send is written by the
/// closure that [`send`](Self::send) calls, straight into frames of the port's UMEM where it fits one.
pub trait PacketIo {
    fn ports(&self) -> usize;

    /// Receives up to [`BURST`] packets from `port`; returns how many. They are `Packet(0..n)`.
    /// The burst before must have been released.
    fn rx_burst(&mut self, port: PortId) -> usize;

    /// The packet's first bytes, all headers among them: what parsing needs, without the copy that
    /// makes a packet of several frames contiguous.
    fn head(&mut self, packet: Packet) -> &[u8] {
        self.bytes(packet)
    }

    /// Bytes of the whole packet.
    fn length(&mut self, packet: Packet) -> usize {
        self.bytes(packet).len()
    }

    /// The whole packet, Ethernet header first, contiguous. What is written to it may be lost when
    /// another packet's bytes are asked for.
    fn bytes(&mut self, packet: Packet) -> &mut [u8];

    /// Gives back all frames of the current burst.
    fn release(&mut self);

    /// Whether [`send`](Self::send) is worth a try now. False is only said of what passes by itself
    /// (rings or frames are full); a port that is down says true, and refuses.
    fn can_send(&mut self, port: PortId, len: usize) -> bool;

    /// Whether packets for `port` are to be given to [`send`](Self::send) with only the pseudo-header's
    /// sum for a TCP checksum: the rest is done on the way.
    fn offloads_checksums(&self, _port: PortId) -> bool {
        false
    }

    /// Queues one packet of `len` bytes, which `fill` writes (all of them). Refused with the reason
    /// when the port is down, its backlog is full, no frame is free, or `len` is over the MTU;
    /// `fill` is then not called.
    fn send(&mut self, port: PortId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), DropReason>;

    /// Whether more packets are likely to come to be sent in the next turn, for the next
    /// [`flush`](Self::flush): it may then keep back what would make a larger packet with them.
    fn expect_more(&mut self, _more: bool) {}

    /// Hands what is queued to the kernel: at most one wake-up a port. Also collects completions
    /// and refills the fill rings. Returns how many packets are still queued.
    fn flush(&mut self) -> usize;

    /// Has steering send every packet of this 4-tuple, as received on `port`, to us. In force on
    /// return: it is called before our first segment of that leg leaves. False: the map is full.
    fn steer(&mut self, port: PortId, source: SocketAddr, destination: SocketAddr) -> bool;

    /// Takes back [`steer`](Self::steer).
    fn unsteer(&mut self, port: PortId, source: SocketAddr, destination: SocketAddr);

    /// Blocks until a packet arrives, `timeout` (None: for ever) has passed, or another thread
    /// wakes this worker (the agent, or a core that hands a frame over).
    fn wait(&mut self, timeout: Option<std::time::Duration>);

    /// The port's interface came back or changed, or is another one of the same name: opens its
    /// rings anew if they need it. False: not yet, try again.
    fn reopen(&mut self, port: PortId) -> bool;

    /// Tells what was dropped inside the driver since it was last asked.
    fn drops(&mut self, _tell: &mut dyn FnMut(DropReason, u64)) {}

    /// Frames that are accounted for (free, or lent to a ring), and all frames. Equal whenever no
    /// burst is out: a difference is a leak.
    fn frames(&self) -> (usize, usize);
}
