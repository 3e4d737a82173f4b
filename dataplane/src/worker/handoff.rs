//! Frames that arrive on another core's queue, handed to the core that owns their flow.
//!
//! The network card spreads packets over queues by a hash of its own, and two legs of a session may
//! differ in it. Each flow has one owner ([`crate::flow::owner`]: the same for both directions, and for
//! both legs, since they have one 4-tuple or else a port that is chosen so); whoever receives a frame of another's flow copies it into one of a fixed number of
//! parcels. A full ring drops the frame (`HandoffFull`), and TCP repairs it.
//!
//! ```text
//!   core 0 ── full ──▶ core 1        one pair of rings for each ordered pair of cores
//!          ◀─ empty ──
//! ```

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use snapshot::DropReason;

use crate::io::PortId;
use crate::parse::ETHERNET;

/// Parcels between two cores: four bursts.
const PARCELS: usize = 256;

/// Wakes a core that sleeps.
pub type Wake = Box<dyn Fn() + Send>;

/// One frame on its way.
pub struct Parcel {
    port: PortId,
    length: usize,
    bytes: Box<[u8]>,
}

impl Parcel {
    pub fn port(&self) -> PortId {
        self.port
    }

    pub fn frame(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }
}

struct Lane {
    full: ArrayQueue<Parcel>,
    empty: ArrayQueue<Parcel>,
}

/// A core's ends of all lanes.
pub struct Handoff {
    core: usize,
    seed: u64,
    /// By receiving core; our own place is empty.
    to: Vec<Option<(Arc<Lane>, Wake)>>,
    from: Vec<Arc<Lane>>,
    /// Cores that were given something in this turn.
    woken: u64,
}

impl Handoff {
    /// One core owns everything.
    pub fn alone() -> Self {
        Self { core: 0, seed: 0, to: vec![None], from: Vec::new(), woken: 0 }
    }

    /// The ends of each core, in order. `seed` is that of [`crate::flow::owner`], `frame` the largest
    /// frame of any port, `wakes[i]` are the ways to wake core i, one for each other core to keep.
    pub fn between(cores: usize, seed: u64, frame: usize, mut wakes: Vec<Vec<Wake>>) -> Vec<Self> {
        let lane = || {
            let lane = Lane { full: ArrayQueue::new(PARCELS), empty: ArrayQueue::new(PARCELS) };
            for _ in 0..PARCELS {
                let bytes = vec![0; frame].into();
                assert!(
                    lane.empty.push(Parcel { port: PortId(0), length: 0, bytes }).is_ok(),
                    "a lane holds its parcels"
                );
            }
            Arc::new(lane)
        };
        let lanes: Vec<Vec<_>> = (0..cores).map(|_| (0..cores).map(|_| lane()).collect()).collect();
        (0..cores)
            .map(|core| Self {
                core,
                seed,
                to: (0..cores)
                    .map(|other| {
                        (other != core).then(|| (lanes[core][other].clone(), wakes[other].pop().expect("one a core")))
                    })
                    .collect(),
                from: (0..cores).filter(|&other| other != core).map(|other| lanes[other][core].clone()).collect(),
                woken: 0,
            })
            .collect()
    }

    /// The core that owns a flow, if it is another one.
    pub fn other_owner(&self, source: std::net::SocketAddr, destination: std::net::SocketAddr) -> Option<usize> {
        if self.to.len() == 1 {
            return None;
        }
        let owner = crate::flow::owner(source, destination, self.seed, self.to.len());
        (owner != self.core).then_some(owner)
    }

    /// Copies an IP packet to the owner of its flow, as a frame of its own: the one it came in may
    /// have had a VLAN tag, and its IPv6 header has been moved if there were extension headers.
    pub fn give(&mut self, owner: usize, port: PortId, from: [u8; 6], packet: &[u8]) -> Result<(), DropReason> {
        let (lane, _) = self.to[owner].as_ref().expect("the owner is another core");
        let mut parcel = lane.empty.pop().ok_or(DropReason::HandoffFull)?;
        let length = ETHERNET + packet.len();
        let Some(bytes) = parcel.bytes.get_mut(..length) else {
            let _ = lane.empty.push(parcel);
            return Err(DropReason::TooLarge);
        };
        let kind: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        bytes[..6].fill(0);
        bytes[6..12].copy_from_slice(&from);
        bytes[12..ETHERNET].copy_from_slice(&kind.to_be_bytes());
        bytes[ETHERNET..].copy_from_slice(packet);
        (parcel.port, parcel.length) = (port, length);
        self.woken |= 1 << owner;
        lane.full.push(parcel).map_err(|_| DropReason::HandoffFull)
    }

    /// At the end of a turn: whoever was given something looks at it.
    pub fn wake(&mut self) {
        for (owner, lane) in self.to.iter().enumerate() {
            if let Some((_, wake)) = lane.as_ref().filter(|_| self.woken & (1 << owner) != 0) {
                wake();
            }
        }
        self.woken = 0;
    }

    /// The next frame that another core received for us. It has to be given [`back`](Self::back).
    pub fn take(&mut self, from: usize) -> Option<Parcel> {
        self.from.get(from)?.full.pop()
    }

    pub fn back(&mut self, from: usize, parcel: Parcel) {
        // There is room: a lane has as many places as parcels.
        let _ = self.from[from].empty.push(parcel);
    }

    pub fn others(&self) -> usize {
        self.from.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn a_frame_reaches_its_owner_whole_and_a_full_lane_says_so() {
        let rung = Arc::new(AtomicUsize::new(0));
        let wake = || {
            let rung = rung.clone();
            vec![Box::new(move || {
                rung.fetch_add(1, Relaxed);
            }) as Wake]
        };
        let mut ends = Handoff::between(2, 7, 100, vec![wake(), wake()]);
        let mut one = ends.pop().unwrap();
        let mut zero = ends.pop().unwrap();
        for at in 0..PARCELS {
            assert_eq!(zero.give(1, PortId(3), [7; 6], &[0x45, at as u8]), Ok(()));
        }
        assert_eq!(zero.give(1, PortId(3), [7; 6], &[0x45; 60]), Err(DropReason::HandoffFull));
        assert_eq!(rung.load(Relaxed), 0, "nobody is woken for each frame");
        zero.wake();
        zero.wake();
        assert_eq!(rung.load(Relaxed), 1);
        for at in 0..PARCELS {
            let mut parcel = one.take(0).unwrap();
            let frame = [0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 0x08, 0x00, 0x45, at as u8];
            assert_eq!((parcel.port(), parcel.frame().to_vec()), (PortId(3), frame.to_vec()));
            one.back(0, parcel);
        }
        assert!(one.take(0).is_none());
        assert_eq!(zero.give(1, PortId(3), [7; 6], &[0x45; 87]), Err(DropReason::TooLarge));
        assert_eq!(zero.give(1, PortId(3), [7; 6], &[0x60; 86]), Ok(()));
        assert_eq!(one.take(0).unwrap().frame()[12..], [[0x86, 0xdd].as_slice(), &[0x60; 86]].concat());
    }

    #[test]
    fn both_legs_of_a_session_have_one_owner() {
        let mut ends = Handoff::between(2, 7, 100, vec![vec![Box::new(|| ())], vec![Box::new(|| ())]]);
        let (one, zero) = (ends.pop().unwrap(), ends.pop().unwrap());
        let server = "198.18.2.2:3000".parse().unwrap();
        let owners: Vec<_> = (1..=100)
            .map(|port| {
                let client = std::net::SocketAddr::new("198.18.1.2".parse().unwrap(), port);
                assert_eq!(zero.other_owner(client, server), zero.other_owner(server, client));
                assert_ne!(zero.other_owner(client, server).is_some(), one.other_owner(client, server).is_some());
                zero.other_owner(client, server)
            })
            .collect();
        assert!(owners.contains(&None) && owners.contains(&Some(1)));
    }
}
