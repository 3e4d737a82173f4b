//! The engine's view of the world: one packet in, and an [`Output`] for what it answers.
//!
//! smoltcp pulls packets out of a `Device`. Ours lends it at most one, and notes of each packet
//! that leaves what the engine keeps to itself: the sequence numbers it has reached.

use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{TcpPacket, TcpSeqNumber};

use crate::output::Output;
use crate::segment::{Segment, after};

/// What our side has put on the wire so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    /// The highest sequence number that the peer may have seen and acknowledge.
    pub highest: u32,
    /// SND.NXT: the same without a last single byte, which may be a probe of a closed window.
    pub next: u32,
    /// The acknowledgement and the window of the last segment.
    pub ack: u32,
    pub window: u16,
    /// The last segment was a SYN, whose window is not scaled.
    pub syn: bool,
    /// Segments that the peer must answer: SYN, FIN, data, probes.
    pub questions: u64,
    /// Segments in this life.
    pub segments: u64,
}

impl Sent {
    pub(crate) fn before(isn: u32) -> Self {
        Self { highest: isn, next: isn, ..Self::default() }
    }

    /// After a retransmission timeout the engine takes SND.NXT back, and writes it into mere
    /// acknowledgements too. To a peer that has more, these would look old, and what they
    /// acknowledge would be ignored: they get the SND.NXT of RFC 9293.
    fn correct(&self, packet: &mut [u8]) {
        let Some(segment) = Segment::parse(packet) else { return };
        if segment.len == 0 && segment.end() == segment.seq && !segment.rst && after(self.next, segment.seq) {
            let header = if segment.source.is_ipv4() { 20 } else { 40 };
            TcpPacket::new_unchecked(&mut packet[header..]).set_seq_number(TcpSeqNumber(self.next as i32));
        }
    }

    fn note(&mut self, packet: &[u8]) {
        let Some(segment) = Segment::parse(packet) else { return };
        let sure = if segment.len == 1 { segment.seq } else { segment.end() };
        if after(sure, self.next) {
            self.next = sure;
        }
        if after(segment.end(), self.highest) {
            self.highest = segment.end();
        }
        if let Some(ack) = segment.ack
            && !segment.rst
        {
            self.ack = ack;
            self.window = segment.window;
            self.syn = segment.syn;
        }
        self.questions += u64::from(segment.end() != segment.seq);
        self.segments += 1;
    }
}

/// One poll's worth of device.
pub(crate) struct Lent<'a, O> {
    packet: Option<&'a [u8]>,
    out: &'a mut O,
    sent: &'a mut Sent,
}

impl<'a, O: Output> Lent<'a, O> {
    /// For `poll_ingress_single`: the engine reads `packet`, and may answer with one of its own.
    pub(crate) fn ingress(packet: &'a [u8], out: &'a mut O, sent: &'a mut Sent) -> Self {
        Self { packet: Some(packet), out, sent }
    }

    /// For `poll_egress`, after `out.ready` agreed to the largest packet that can come.
    pub(crate) fn egress(out: &'a mut O, sent: &'a mut Sent) -> Self {
        Self { packet: None, out, sent }
    }
}

impl<O: Output> Device for Lent<'_, O> {
    type RxToken<'t>
        = Packet<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Slot<'t, O>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Packet<'_>, Slot<'_, O>)> {
        let packet = self.packet.take()?;
        Some((Packet(packet), Slot { out: self.out, sent: self.sent, asked: false }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Slot<'_, O>> {
        Some(Slot { out: self.out, sent: self.sent, asked: true })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // The engine keeps its own copy, taken from `Shape` when it was made.
        Shape { mtu: 0 }.capabilities()
    }
}

/// The one packet that came.
pub(crate) struct Packet<'a>(&'a [u8]);

impl RxToken for Packet<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for one packet that goes.
pub(crate) struct Slot<'a, O> {
    out: &'a mut O,
    sent: &'a mut Sent,
    /// `ready` has been asked already.
    asked: bool,
}

impl<O: Output> TxToken for Slot<'_, O> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        if !self.asked && !self.out.ready(len) {
            // An answer that nobody can take now is lost as on the wire, and TCP asks again.
            assert!(len <= MAX_ANSWER, "an answer on ingress has no payload, yet is {len} bytes");
            return f(&mut [0; MAX_ANSWER][..len]);
        }
        let mut f = Some(f);
        let mut result = None;
        let sent = self.sent;
        self.out.packet(len, &mut |bytes| {
            if let Some(f) = f.take() {
                result = Some(f(bytes));
                sent.correct(bytes);
                sent.note(bytes);
            }
        });
        result.expect("Output::packet calls fill")
    }
}

/// An IPv6 header and a TCP header with all its options.
const MAX_ANSWER: usize = 40 + 60;

/// The shape of an engine when it is made: it never carries a packet.
pub(crate) struct Shape {
    pub mtu: usize,
}

impl Device for Shape {
    type RxToken<'t> = Packet<'t>;
    type TxToken<'t> = Nowhere;

    fn receive(&mut self, _: Instant) -> Option<(Packet<'_>, Nowhere)> {
        None
    }

    fn transmit(&mut self, _: Instant) -> Option<Nowhere> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

pub(crate) enum Nowhere {}

impl TxToken for Nowhere {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, _: usize, _: F) -> R {
        match self {}
    }
}
