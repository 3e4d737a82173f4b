//! The packets that the worker is looking at: one burst, whole packets, each in one frame or more.

use super::rings::{FRAME_SIZE, MAX_CHAIN};
use super::umem::{Frame, Umem};
use super::{BURST, Packet};

/// A received packet: its frames within the burst's.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: usize,
    frames: usize,
    length: usize,
}

#[derive(Debug)]
pub struct Burst {
    frames: Vec<Frame>,
    packets: Vec<Span>,
    /// The packet that `scratch` holds, made contiguous.
    linear: Option<Packet>,
    scratch: Box<[u8]>,
}

impl Burst {
    pub fn new() -> Self {
        Self {
            frames: Vec::with_capacity(BURST * MAX_CHAIN),
            packets: Vec::with_capacity(BURST),
            linear: None,
            scratch: vec![0; MAX_CHAIN * FRAME_SIZE].into(),
        }
    }

    pub fn push(&mut self, frames: &mut Vec<Frame>) {
        let length = frames.iter().map(Frame::len).sum();
        self.packets.push(Span { first: self.frames.len(), frames: frames.len(), length });
        self.frames.append(frames);
    }

    pub fn packets(&self) -> usize {
        self.packets.len()
    }

    pub fn length(&self, packet: Packet) -> usize {
        self.packets[packet.0].length
    }

    /// The bytes of the packet's first frame.
    pub fn head<'a>(&'a mut self, umem: &'a Umem, packet: Packet) -> &'a [u8] {
        umem.bytes(&mut self.frames[self.packets[packet.0].first])
    }

    /// The packet's bytes: in place if they are in one frame, else made contiguous once.
    pub fn bytes<'a>(&'a mut self, umem: &'a Umem, packet: Packet) -> &'a mut [u8] {
        let Span { first, frames, length } = self.packets[packet.0];
        if frames == 1 {
            return umem.bytes(&mut self.frames[first]);
        }
        if self.linear != Some(packet) {
            let mut at = 0;
            for frame in &mut self.frames[first..first + frames] {
                let bytes = umem.bytes(frame);
                self.scratch[at..at + bytes.len()].copy_from_slice(bytes);
                at += bytes.len();
            }
            self.linear = Some(packet);
        }
        &mut self.scratch[..length]
    }

    pub fn release(&mut self, umem: &mut Umem) {
        self.packets.clear();
        self.linear = None;
        self.frames.drain(..).for_each(|frame| umem.give(frame));
    }
}
