//! What is known of endpoints, by address: a slab of fixed size and an index into it.

use std::net::SocketAddr;

use crate::snapshot::addresses::Map;
use crate::time::Instant;

/// Places that are looked at for one that may be forgotten, when all are taken.
const LOOKED_AT: usize = 64;

#[derive(Debug)]
pub struct Known {
    pub address: SocketAddr,
    pub active: u32,
    pub streak: u32,
    /// Ejections that count for how long the next one is.
    pub lately: u32,
    pub connected: u64,
    pub failed: u64,
    pub ejections: u64,
    pub ejected_until: Instant,
}

#[derive(Debug)]
pub struct Table {
    places: Vec<Known>,
    by_address: Map<SocketAddr, u32>,
    capacity: usize,
    /// Where the next look for one that may be forgotten begins.
    hand: usize,
}

impl Table {
    pub fn new(capacity: usize) -> Self {
        // With twice the room, what is taken out and put in again never makes it grow.
        let by_address = Map::with_capacity_and_hasher(2 * capacity, Default::default());
        Self { places: Vec::with_capacity(capacity), by_address, capacity, hand: 0 }
    }

    pub fn find(&self, address: SocketAddr) -> Option<&Known> {
        self.by_address.get(&address).map(|&at| &self.places[at as usize])
    }

    pub fn find_mut(&mut self, address: SocketAddr) -> Option<&mut Known> {
        self.by_address.get(&address).map(|&at| &mut self.places[at as usize])
    }

    /// The same, anew if need be. None: all places are taken by endpoints that something depends on.
    pub fn take(&mut self, address: SocketAddr, may_be_forgotten: impl Fn(&Known) -> bool) -> Option<&mut Known> {
        if let Some(&at) = self.by_address.get(&address) {
            return Some(&mut self.places[at as usize]);
        }
        let at = if self.places.len() < self.capacity {
            self.places.push(Known::new(address));
            self.places.len() - 1
        } else {
            let at = self.to_be_forgotten(may_be_forgotten)?;
            self.by_address.remove(&self.places[at].address);
            self.places[at] = Known::new(address);
            at
        };
        self.by_address.insert(address, at as u32);
        Some(&mut self.places[at])
    }

    fn to_be_forgotten(&mut self, may: impl Fn(&Known) -> bool) -> Option<usize> {
        for _ in 0..LOOKED_AT.min(self.capacity) {
            let at = self.hand;
            self.hand = (at + 1) % self.capacity;
            if may(&self.places[at]) {
                return Some(at);
            }
        }
        None
    }

    pub fn is_ejected(&self, address: SocketAddr, now: Instant) -> bool {
        self.find(address).is_some_and(|known| now < known.ejected_until)
    }

    pub fn all(&self) -> impl Iterator<Item = &Known> {
        self.places.iter()
    }

    pub fn range(&self, from: usize, most: usize) -> impl Iterator<Item = &Known> {
        self.places.iter().skip(from).take(most)
    }

    pub fn places(&self) -> usize {
        self.places.len()
    }
}

impl Known {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            active: 0,
            streak: 0,
            lately: 0,
            connected: 0,
            failed: 0,
            ejections: 0,
            ejected_until: Instant::ZERO,
        }
    }
}
