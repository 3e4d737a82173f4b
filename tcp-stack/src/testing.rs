//! A bench for connections: a pair of them over a bad link, or one against a script.
//!
//! Everything comes from the seed and a clock that jumps from event to event: the same seed gives
//! the same run. [`Pair`] joins two connections, [`Script`] plays the peer of one by hand.

use std::collections::VecDeque;

use crate::Output;

mod link;
mod pair;
mod script;

pub use link::{Faults, Link};
pub use pair::{Pair, Side};
pub use script::Script;

/// Packets that a connection wrote.
#[derive(Debug, Default)]
pub struct Packets {
    pub queue: VecDeque<Vec<u8>>,
    /// How many more are taken; `None` for any number.
    pub room: Option<usize>,
}

impl Output for Packets {
    fn ready(&mut self, _: usize) -> bool {
        self.room.is_none_or(|room| self.queue.len() < room)
    }

    fn packet(&mut self, len: usize, fill: &mut dyn FnMut(&mut [u8])) {
        let mut packet = vec![0xa5; len];
        fill(&mut packet);
        self.queue.push_back(packet);
    }
}

/// A small generator for tests (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }
}
