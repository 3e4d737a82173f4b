//! Which endpoint of a virtual address a call gets: power of two choices, and what failed is left alone.
//!
//! Two endpoints are drawn at random, and the one with fewer calls of this core's gets the call: nearly as
//! even as asking all of them, and a herd that follows one stale count cannot form. An endpoint that could not
//! be connected five times in a row is ejected for a while (Envoy's outlier detection is the model), never more
//! than half of those behind one address; where all are ejected, none is treated so. All of it is one core's
//! own: nothing is shared, and nothing is locked.
//!
//! ```text
//!   SYN to VIP ─ choose ─▶ endpoint ─ begun ─▶ active+1 ─ stood | failed ─▶ ended: active-1
//!                  ▲                                        └ 5 in a row: ejected, 30 s × how often
//! ```
//! What is known is known by the endpoint's address, so that it outlasts snapshots.

mod table;

use std::net::SocketAddr;

use crate::planted::{self, Bug};
use crate::time::{Duration, Instant};
use table::{Known, Table};

/// Failures in a row that eject (Envoy's consecutive_local_origin_failure).
const FAILURES: u32 = 5;

/// An ejection lasts so long for each time that it happened lately, and so long at the most (Envoy's
/// base_ejection_time and max_ejection_time). Each time that long without one forgives one.
const EJECTION: Duration = Duration::from_secs(30);
const LONGEST: u32 = 10;

const NEVER: Instant = Instant::from_micros_const(i64::MAX);

/// Draws before all are looked at: with half of them ejected, one in 256 gets there.
const DRAWS: usize = 8;

/// Endpoints of one core that are known at a time. One without calls and without failures that count may be
/// forgotten for another.
const ENDPOINTS: usize = 4_096;

/// The balance of one core.
#[derive(Debug)]
pub struct Balancer {
    table: Table,
    random: u64,
    /// Those that are ejected, and when the first of them is not any more. Counted anew only then.
    ejected: usize,
    next_return: Instant,
}

/// An endpoint as the views show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub address: SocketAddr,
    pub active: u32,
    pub connected: u64,
    pub failed: u64,
    pub streak: u32,
    pub ejections: u64,
    pub ejected_until: Option<Instant>,
}

impl Balancer {
    /// Takes its memory. `secret` is all cores', and no two of them draw alike.
    pub fn new(secret: &[u8; 16], core: u32) -> Self {
        Self::of_size(secret, core, ENDPOINTS)
    }

    fn of_size(secret: &[u8; 16], core: u32, endpoints: usize) -> Self {
        let half = |at: usize| u64::from_le_bytes(secret[at..at + 8].try_into().expect("eight bytes"));
        // The halves key other things, and what is drawn here can be seen on the wire: mixed before it is used.
        let seed = half(0).rotate_left(23) ^ half(8).wrapping_mul(WEYL) ^ u64::from(core).wrapping_mul(WEYL << 8 | 1);
        Self { table: Table::new(endpoints), random: mix(seed), ejected: 0, next_return: NEVER }
    }

    /// One of those that `fits`, not ejected if that can be. None: none fits.
    pub fn choose(&mut self, of: &[SocketAddr], now: Instant, fits: impl Fn(SocketAddr) -> bool) -> Option<SocketAddr> {
        if self.ejected(now) == 0 {
            return self.of_two(of, |_, address| fits(address));
        }
        let may = |table: &Table, address| fits(address) && !table.is_ejected(address, now);
        self.of_two(of, may).or_else(|| self.of_two(of, |_, address| fits(address)))
    }

    fn of_two(&mut self, of: &[SocketAddr], may: impl Fn(&Table, SocketAddr) -> bool) -> Option<SocketAddr> {
        let (first, second) = self.draw_two(of, may);
        let (first, second) = (first?, second);
        let active = |address| self.table.find(address).map_or(0, |known| known.active);
        // Of equals the first: which one that is was drawn.
        let fewer = second.filter(|&second| active(second) < active(first) && !planted::is(Bug::FirstDrawWins));
        Some(fewer.unwrap_or(first))
    }

    /// Two different ones that may, as far as there are.
    fn draw_two(
        &mut self,
        of: &[SocketAddr],
        may: impl Fn(&Table, SocketAddr) -> bool,
    ) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let mut found = (None, None);
        if of.is_empty() {
            return found;
        }
        for _ in 0..DRAWS {
            let drawn = of[self.below(of.len())];
            if found.0 != Some(drawn) && may(&self.table, drawn) {
                found = if found.0.is_none() { (Some(drawn), None) } else { (found.0, Some(drawn)) };
            }
            if found.1.is_some() {
                return found;
            }
        }
        // Few are left, or the draws were unlucky: all of them, from somewhere on.
        let start = self.below(of.len());
        for &next in of[start..].iter().chain(&of[..start]) {
            if found.0 != Some(next) && may(&self.table, next) {
                found = if found.0.is_none() { (Some(next), None) } else { (found.0, Some(next)) };
            }
            if found.1.is_some() {
                break;
            }
        }
        found
    }

    /// It has been given a call. False: there is no room to remember it, and it is not counted.
    pub fn begun(&mut self, endpoint: SocketAddr, now: Instant) -> bool {
        let known = self.table.take(endpoint, |known| known.may_be_forgotten(now));
        known.map(|known| known.active += 1).is_some()
    }

    /// A call that was counted is over.
    pub fn ended(&mut self, endpoint: SocketAddr) {
        if let Some(known) = self.table.find_mut(endpoint) {
            known.active -= 1;
        }
    }

    /// It could be connected.
    pub fn stood(&mut self, endpoint: SocketAddr) {
        if let Some(known) = self.table.find_mut(endpoint) {
            known.connected += 1;
            known.streak = 0;
        }
    }

    /// It could not. True: it is ejected by this. `of`: the endpoints behind the address that was called.
    pub fn failed(&mut self, endpoint: SocketAddr, of: &[SocketAddr], now: Instant) -> bool {
        self.ejected(now);
        let Some(known) = self.table.find_mut(endpoint) else { return false };
        known.failed += 1;
        known.streak = known.streak.saturating_add(1);
        if known.streak < FAILURES || known.is_ejected(now) || !self.may_eject(of, now) {
            return false;
        }
        let known = self.table.find_mut(endpoint).expect("found above");
        known.eject(now);
        self.next_return = self.next_return.min(known.ejected_until);
        self.ejected += 1;
        true
    }

    /// One may always be; of more, no more than half.
    fn may_eject(&self, of: &[SocketAddr], now: Instant) -> bool {
        let ejected = of.iter().filter(|&&address| self.table.is_ejected(address, now)).count();
        ejected == 0 || (ejected + 1) * 2 <= of.len() || planted::is(Bug::AllEjected)
    }

    /// Those that are ejected.
    pub fn ejected(&mut self, now: Instant) -> usize {
        if now >= self.next_return {
            let ejected = || self.table.all().filter(|known| known.is_ejected(now));
            self.ejected = ejected().count();
            self.next_return = ejected().map(|known| known.ejected_until).min().unwrap_or(NEVER);
        }
        self.ejected
    }

    /// A slice of all that are known.
    pub fn shown(&self, from: usize, most: usize, now: Instant) -> impl Iterator<Item = Shown> {
        self.table.range(from, most).map(move |known| Shown {
            address: known.address,
            active: known.active,
            connected: known.connected,
            failed: known.failed,
            streak: known.streak,
            ejections: known.ejections,
            ejected_until: known.is_ejected(now).then_some(known.ejected_until),
        })
    }

    /// Places of the table, for those who list it in slices.
    pub fn places(&self) -> usize {
        self.table.places()
    }

    /// SplitMix64, then as many numbers as are asked for (Lemire's multiplication).
    fn below(&mut self, bound: usize) -> usize {
        self.random = self.random.wrapping_add(WEYL);
        ((u128::from(mix(self.random)) * bound as u128) >> 64) as usize
    }
}

const WEYL: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Known {
    fn is_ejected(&self, now: Instant) -> bool {
        now < self.ejected_until
    }

    /// Ejections that still count.
    fn lately(&self, now: Instant) -> u32 {
        let quiet = if now > self.ejected_until { (now - self.ejected_until).total_micros() } else { 0 };
        self.lately.saturating_sub(u32::try_from(quiet / EJECTION.total_micros()).unwrap_or(u32::MAX))
    }

    /// Nothing that it will be asked for is lost with it.
    fn may_be_forgotten(&self, now: Instant) -> bool {
        self.active == 0 && self.streak == 0 && self.lately(now) == 0
    }

    fn eject(&mut self, now: Instant) {
        self.lately = (self.lately(now) + 1).min(LONGEST);
        self.ejected_until = now + EJECTION * self.lately;
        self.ejections += 1;
        self.streak = 0;
    }
}

#[cfg(test)]
mod tests;
