//! What is counted about rings, without a ring: sizes, shares, chains of frames, backlogs, windows.
//!
//! Everything here is plain arithmetic on what the kernel was given and what it gave back, so that
//! it can be tested without a socket. [`super::xsk`] moves the descriptors.

use std::collections::VecDeque;

/// Bytes of a frame. The kernel keeps the first 256 of them for itself.
pub const FRAME_SIZE: usize = 4096;

/// Packet bytes that one frame holds.
pub const FRAME_CAPACITY: usize = FRAME_SIZE - 256;

/// Most frames of one packet: what an skb can hold (MAX_SKB_FRAGS and its head), and what a packet
/// of MTU 65535 takes.
pub const MAX_CHAIN: usize = 18;

/// Descriptors moved between a ring and us at once. `produce` is all or nothing, and one by one
/// costs ten times as much.
pub const BATCH: usize = 64;

/// Frames that a packet of `len` bytes takes.
pub fn frames_for(len: usize) -> usize {
    len.div_ceil(FRAME_CAPACITY).max(1)
}

#[derive(Debug, thiserror::Error)]
pub enum SizeError {
    #[error("ring size {0}: use a power of two from 64 to 32768")]
    Ring(u32),
    #[error("limits.frames is {frames}, too few for {ports} ports on one core: use at least {least}")]
    Frames { frames: u32, ports: usize, least: u32 },
}

/// Entries of a ring: a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSize(u32);

impl RingSize {
    pub fn entries(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for RingSize {
    type Error = SizeError;

    fn try_from(size: u32) -> Result<Self, SizeError> {
        if size.is_power_of_two() && (64..=32_768).contains(&size) {
            Ok(Self(size))
        } else {
            Err(SizeError::Ring(size))
        }
    }
}

impl Default for RingSize {
    fn default() -> Self {
        Self(2048)
    }
}

/// How one core's frames are divided. Receiving and sending draw on separate shares, and each port
/// sends from a share of its own: a port that cannot send starves neither reception nor its
/// neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// Frames that one socket's fill ring is kept filled to.
    pub fill: usize,
    /// Frames that one port may hold for sending: backlog, ring, completions to come.
    pub send: usize,
}

impl Shares {
    pub fn divide(frames: u32, ports: usize, sockets: usize, ring: RingSize) -> Result<Self, SizeError> {
        let (ports, sockets) = (ports.max(1), sockets.max(1));
        let total = frames as usize;
        // A burst is out while the rings are refilled: it comes on top of the fill rings.
        let burst = super::BURST * MAX_CHAIN;
        let receive = total * 2 / 5;
        let fill = (receive / sockets).min(ring.entries() as usize);
        let kept = (fill * sockets).max(total / 5);
        let send = total.saturating_sub(kept + burst) / ports;
        if fill < 2 * BATCH || send < 4 * MAX_CHAIN {
            let by_fill = (2 * BATCH * sockets) as u32 * 5 / 2 + 5;
            let by_send = ((4 * MAX_CHAIN * ports + burst) as u32 + 1) * 5 / 3 + 5;
            return Err(SizeError::Frames { frames, ports, least: by_fill.max(by_send) });
        }
        Ok(Self { fill, send })
    }
}

/// Who holds each frame: none of the rings, or one socket's rings. It tells which frames come back
/// when a socket is closed, and catches a frame handed over twice.
#[derive(Debug)]
pub struct Holders(Vec<u16>);

/// A socket's number in [`Holders`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(pub u16);

const NOBODY: u16 = u16::MAX;

impl Holders {
    pub fn new(frames: usize) -> Self {
        Self(vec![NOBODY; frames])
    }

    pub fn hand_over(&mut self, frame: usize, to: Holder) {
        assert!(self.0[frame] == NOBODY, "frame {frame} is handed to a ring while a ring holds it");
        self.0[frame] = to.0;
    }

    pub fn take_back(&mut self, frame: usize, from: Holder) {
        assert!(self.0[frame] == from.0, "a ring returned frame {frame}, which it was never given");
        self.0[frame] = NOBODY;
    }

    /// Takes back all that a closed socket held.
    pub fn take_all(&mut self, from: Holder, mut each: impl FnMut(usize)) {
        for (frame, holder) in self.0.iter_mut().enumerate() {
            if *holder == from.0 {
                *holder = NOBODY;
                each(frame);
            }
        }
    }
}

/// A piece of a packet that knows whether more of the packet follows.
pub trait Piece {
    fn continued(&self) -> bool;
}

/// Received pieces of one packet whose last piece is not there yet.
#[derive(Debug)]
pub struct Chain<T> {
    pieces: Vec<T>,
    /// The packet had too many pieces: the rest of it is dropped as it comes.
    oversized: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// More of the packet is to come.
    Open,
    /// The packet is whole: drain [`Chain::pieces`].
    Whole,
    /// The packet is longer than any packet may be; this piece and all of [`Chain::pieces`] go back.
    Oversized { piece: T, last: bool },
}

impl<T: Piece> Chain<T> {
    pub fn new() -> Self {
        Self { pieces: Vec::with_capacity(MAX_CHAIN), oversized: false }
    }

    pub fn push(&mut self, piece: T) -> Step<T> {
        let last = !piece.continued();
        if self.oversized || self.pieces.len() == MAX_CHAIN {
            self.oversized = !last;
            return Step::Oversized { piece, last };
        }
        self.pieces.push(piece);
        if last { Step::Whole } else { Step::Open }
    }

    pub fn pieces(&mut self) -> &mut Vec<T> {
        &mut self.pieces
    }

    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

impl<T: Piece> Default for Chain<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Packets of one port that wait for its transmit ring, first in first out, bounded.
#[derive(Debug)]
pub struct Backlog<T> {
    pieces: VecDeque<T>,
    packets: usize,
}

/// Most packets that wait for one port.
pub const BACKLOG: usize = 1024;

impl<T: Piece> Backlog<T> {
    pub fn new(pieces: usize) -> Self {
        Self { pieces: VecDeque::with_capacity(pieces), packets: 0 }
    }

    pub fn packets(&self) -> usize {
        self.packets
    }

    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    pub fn push(&mut self, piece: T) {
        self.packets += usize::from(!piece.continued());
        self.pieces.push_back(piece);
    }

    /// Pieces of the first packet; 0 when there is none.
    pub fn first(&self) -> usize {
        if self.packets == 0 { 0 } else { self.pieces.iter().take_while(|piece| piece.continued()).count() + 1 }
    }

    pub fn pop(&mut self) -> Option<T> {
        let piece = self.pieces.pop_front()?;
        self.packets -= usize::from(!piece.continued());
        Some(piece)
    }
}

/// Packets that the kernel has and has not completed.
///
/// A veth's receiving side queues 256 packets and drops the next one silently, whatever their size;
/// a completion says that one of them has left that queue. So no more than [`Window::VETH`] are out.
#[derive(Debug)]
pub struct Window {
    limit: usize,
    /// Frames of each packet in flight, in the order sent.
    sizes: VecDeque<u8>,
    frames: usize,
}

impl Window {
    pub const VETH: usize = 192;

    pub fn new(limit: usize) -> Self {
        Self { limit, sizes: VecDeque::with_capacity(limit), frames: 0 }
    }

    pub fn is_full(&self) -> bool {
        self.sizes.len() >= self.limit
    }

    pub fn frames(&self) -> usize {
        self.frames
    }

    pub fn packets(&self) -> usize {
        self.sizes.len()
    }

    pub fn sent(&mut self, frames: usize) {
        self.sizes.push_back(frames as u8);
        self.frames += frames;
    }

    /// Frames complete packet by packet; where they do not quite, the count evens out.
    pub fn completed(&mut self, mut frames: usize) {
        assert!(frames <= self.frames, "more frames were completed than sent");
        self.frames -= frames;
        while frames > 0 {
            let first = self.sizes.front_mut().expect("frames in flight belong to packets in flight");
            let part = frames.min(usize::from(*first));
            *first -= part as u8;
            frames -= part;
            if *first == 0 {
                self.sizes.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct P(u32, bool);

    impl Piece for P {
        fn continued(&self) -> bool {
            self.1
        }
    }

    #[test]
    fn a_ring_size_is_a_power_of_two_within_bounds() {
        let sizes = [0, 32, 64, 65, 2048, 32_768, 65_536];
        assert_eq!(sizes.map(|size| RingSize::try_from(size).is_ok()), [false, false, true, false, true, true, false]);
    }

    #[test]
    fn a_packet_of_the_largest_mtu_fits_one_chain() {
        assert_eq!(frames_for(FRAME_CAPACITY), 1);
        assert_eq!(frames_for(FRAME_CAPACITY + 1), 2);
        assert_eq!(frames_for(65_535 + 14), MAX_CHAIN);
    }

    #[test]
    fn the_shares_never_promise_more_frames_than_there_are() {
        for (frames, ports, sockets) in [(16_384, 2, 2), (4096, 2, 4), (65_536, 8, 64), (8192, 1, 1)] {
            let shares = Shares::divide(frames, ports, sockets, RingSize::default()).unwrap();
            let promised = shares.fill * sockets + shares.send * ports + super::super::BURST * MAX_CHAIN;
            assert!(promised <= frames as usize, "{frames} frames, {ports} ports, {sockets} sockets: {shares:?}");
            assert!(frames as usize - shares.send * ports >= frames as usize / 5, "a fifth stays for reception");
        }
    }

    #[test]
    fn too_few_frames_are_refused_and_the_named_least_is_enough() {
        for (ports, sockets) in [(1, 1), (2, 2), (8, 8), (2, 16)] {
            let Err(SizeError::Frames { least, .. }) = Shares::divide(256, ports, sockets, RingSize::default()) else {
                panic!("256 frames were taken for {ports} ports");
            };
            assert!(
                Shares::divide(least, ports, sockets, RingSize::default()).is_ok(),
                "{least} for {ports}, {sockets}"
            );
        }
    }

    #[test]
    fn a_closed_sockets_frames_come_back_and_no_others() {
        let mut holders = Holders::new(6);
        holders.hand_over(1, Holder(0));
        holders.hand_over(3, Holder(1));
        holders.hand_over(5, Holder(0));
        let mut back = Vec::new();
        holders.take_all(Holder(0), |frame| back.push(frame));
        assert_eq!(back, [1, 5]);
        holders.take_back(3, Holder(1));
    }

    #[test]
    #[should_panic(expected = "never given")]
    fn a_frame_that_a_ring_was_not_given_is_not_taken_from_it() {
        let mut holders = Holders::new(2);
        holders.hand_over(1, Holder(0));
        holders.take_back(1, Holder(1));
    }

    #[test]
    fn a_packet_is_whole_with_its_last_piece_only() {
        let mut chain = Chain::new();
        assert_eq!(chain.push(P(0, true)), Step::Open);
        assert_eq!(chain.push(P(1, true)), Step::Open);
        assert_eq!(chain.push(P(2, false)), Step::Whole);
        assert_eq!(chain.pieces().drain(..).map(|p| p.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(chain.push(P(3, false)), Step::Whole);
    }

    #[test]
    fn a_chain_that_is_too_long_is_dropped_to_its_end_and_the_next_packet_is_taken() {
        let mut chain = Chain::new();
        for i in 0..MAX_CHAIN as u32 {
            assert_eq!(chain.push(P(i, true)), Step::Open);
        }
        assert!(matches!(chain.push(P(90, true)), Step::Oversized { last: false, .. }));
        chain.pieces().clear();
        assert!(matches!(chain.push(P(91, true)), Step::Oversized { last: false, .. }));
        assert!(matches!(chain.push(P(92, false)), Step::Oversized { last: true, .. }));
        assert_eq!(chain.push(P(93, false)), Step::Whole);
    }

    #[test]
    fn a_backlog_counts_packets_not_pieces() {
        let mut backlog = Backlog::new(8);
        for piece in [P(0, true), P(1, false), P(2, false)] {
            backlog.push(piece);
        }
        assert_eq!((backlog.packets(), backlog.pieces(), backlog.first()), (2, 3, 2));
        backlog.pop();
        backlog.pop();
        assert_eq!((backlog.packets(), backlog.first()), (1, 1));
        backlog.pop();
        assert_eq!((backlog.packets(), backlog.first(), backlog.pop()), (0, 0, None));
    }

    #[test]
    fn the_window_opens_when_a_packets_last_frame_is_completed() {
        let mut window = Window::new(2);
        window.sent(18);
        window.sent(1);
        assert!(window.is_full());
        window.completed(17);
        assert!(window.is_full());
        window.completed(1);
        assert!(!window.is_full());
        window.completed(1);
        assert_eq!(window.frames(), 0);
    }
}
