//! One direction of a link that delays, drops, duplicates and reorders, from a seed.

use std::collections::BTreeMap;

use super::Random;
use crate::{Duration, Instant};

/// What a link does to packets, each in a thousand.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    pub drop: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub delay: Duration,
}

impl Faults {
    pub const NONE: Self = Self { drop: 0, duplicate: 0, reorder: 0, delay: Duration::from_micros(100) };
}

/// One direction of a link.
#[derive(Debug)]
pub struct Link {
    faults: Faults,
    random: Random,
    flying: BTreeMap<(Instant, u64), Vec<u8>>,
    serial: u64,
    pub dropped: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub carried: u64,
}

impl Link {
    pub fn new(faults: Faults, seed: u64) -> Self {
        let random = Random(seed);
        Self { faults, random, flying: BTreeMap::new(), serial: 0, dropped: 0, duplicated: 0, reordered: 0, carried: 0 }
    }

    /// Puts a packet on its way.
    pub fn push(&mut self, packet: Vec<u8>, now: Instant) {
        if self.random.below(1000) < self.faults.drop {
            self.dropped += 1;
            return;
        }
        if self.random.below(1000) < self.faults.duplicate {
            self.duplicated += 1;
            self.launch(packet.clone(), now + self.faults.delay);
        }
        let mut arrival = now + self.faults.delay;
        if self.random.below(1000) < self.faults.reorder {
            self.reordered += 1;
            arrival += Duration::from_micros(self.random.below(self.faults.delay.total_micros() * 3));
        }
        self.launch(packet, arrival);
    }

    /// The next packet that has arrived.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.next_arrival().filter(|&at| at <= now)?;
        self.carried += 1;
        self.flying.pop_first().map(|(_, packet)| packet)
    }

    pub fn next_arrival(&self) -> Option<Instant> {
        self.flying.keys().next().map(|&(at, _)| at)
    }

    fn launch(&mut self, packet: Vec<u8>, arrival: Instant) {
        self.serial += 1;
        self.flying.insert((arrival, self.serial), packet);
    }
}
