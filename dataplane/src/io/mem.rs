//! Ports in memory: what a worker sees in a simulation instead of rings.
//!
//! The other end of each port is held by whoever drives the simulation: it puts frames in with
//! [`MemPorts::deliver`] and takes out what was sent with [`MemPorts::take_sent`]. Frames are
//! counted as in a UMEM, so that a leak shows; nothing here depends on time or on chance.

use std::collections::VecDeque;
use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use snapshot::DropReason;

use super::{BURST, Packet, PacketIo, PortId};
use crate::flow::FlowKey;
use crate::planted::{self, Bug};

#[derive(Debug)]
struct MemPort {
    mtu: usize,
    up: bool,
    incoming: VecDeque<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
pub struct MemPorts {
    ports: Vec<MemPort>,
    burst: Vec<Vec<u8>>,
    /// Steered flows, as the `flows` map would hold them.
    flows: HashSet<FlowKey, FixedState>,
    flows_limit: usize,
    frames: usize,
    /// Frames that somebody took and nobody gave back.
    lost: usize,
    /// See [`Self::stock`].
    spare: Vec<Vec<u8>>,
}

impl MemPorts {
    /// One port per MTU, in order.
    pub fn new(mtus: &[usize], frames: usize, flows_limit: usize) -> Self {
        let port = |&mtu| MemPort { mtu, up: true, incoming: VecDeque::new(), sent: VecDeque::new() };
        Self {
            ports: mtus.iter().map(port).collect(),
            burst: Vec::with_capacity(BURST),
            flows: HashSet::with_hasher(FixedState::default()),
            flows_limit,
            frames,
            lost: 0,
            spare: Vec::new(),
        }
    }

    /// A frame arrives. What exceeds the frames there are is lost, as on a ring that is not refilled.
    pub fn deliver(&mut self, port: PortId, frame: Vec<u8>) {
        if self.free() > 0 && self.port(port).up {
            self.port(port).incoming.push_back(frame);
        }
    }

    pub fn take_sent(&mut self, port: PortId) -> Option<Vec<u8>> {
        self.port(port).sent.pop_front()
    }

    /// Lays in memory for `count` frames of `size` bytes, so that sending takes none from the heap.
    pub fn stock(&mut self, count: usize, size: usize) {
        while self.spare.len() < count {
            self.spare.push(Vec::with_capacity(size));
        }
    }

    pub fn set_up(&mut self, port: PortId, up: bool) {
        self.port(port).up = up;
    }

    pub fn is_steered(&self, key: &FlowKey) -> bool {
        self.flows.contains(key)
    }

    pub fn steered(&self) -> usize {
        self.flows.len()
    }

    fn port(&mut self, port: PortId) -> &mut MemPort {
        &mut self.ports[usize::from(port.0)]
    }

    fn free(&self) -> usize {
        let held: usize = self.ports.iter().map(|port| port.incoming.len() + port.sent.len()).sum();
        self.frames.saturating_sub(held + self.burst.len() + self.lost)
    }
}

impl PacketIo for MemPorts {
    fn ports(&self) -> usize {
        self.ports.len()
    }

    fn rx_burst(&mut self, port: PortId) -> usize {
        assert!(self.burst.is_empty(), "the burst before was not released");
        let incoming = &mut self.ports[usize::from(port.0)].incoming;
        let count = incoming.len().min(BURST);
        self.burst.extend(incoming.drain(..count));
        count
    }

    fn bytes(&mut self, packet: Packet) -> &mut [u8] {
        &mut self.burst[packet.0]
    }

    fn release(&mut self) {
        if planted::is(Bug::FrameLeaked) && !self.burst.is_empty() {
            self.lost += 1;
        }
        self.burst.clear();
    }

    fn can_send(&mut self, port: PortId, len: usize) -> bool {
        self.free() > 0 || !self.port(port).up || len > self.port(port).mtu + 14
    }

    fn send(&mut self, port: PortId, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Result<(), DropReason> {
        if !self.port(port).up {
            return Err(DropReason::PortDown);
        }
        if len > self.port(port).mtu + 14 {
            return Err(DropReason::TooLarge);
        }
        if self.free() == 0 {
            return Err(DropReason::NoFrame);
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.resize(len, 0);
        fill(&mut frame);
        self.port(port).sent.push_back(frame);
        Ok(())
    }

    fn flush(&mut self) -> usize {
        0
    }

    fn steer(&mut self, port: PortId, source: SocketAddr, destination: SocketAddr) -> bool {
        let key = FlowKey::new(port, source, destination);
        if self.flows.len() >= self.flows_limit && !self.flows.contains(&key) {
            return false;
        }
        self.flows.insert(key);
        true
    }

    fn unsteer(&mut self, port: PortId, source: SocketAddr, destination: SocketAddr) {
        self.flows.remove(&FlowKey::new(port, source, destination));
    }

    fn reopen(&mut self, port: PortId) -> bool {
        self.port(port).up
    }

    /// Time passes only where the simulation says so.
    fn wait(&mut self, _timeout: Option<std::time::Duration>) {}

    fn frames(&self) -> (usize, usize) {
        (self.frames - self.lost.min(self.frames), self.frames)
    }
}
