//! How long a worker that found nothing goes on looking before it sleeps.
//!
//! Looking costs CPU for as long as it lasts; sleeping costs a wake-up, and the packet that ends it
//! waits for that. Where packets come at once, as in bulk or in a ping-pong between busy cores,
//! looking wins; where they come rarely, or cannot come while we hold the CPU that their sender needs,
//! it is lost time and delays them. So the worker learns how long its pauses are, and looks for as
//! long as would have been cheapest for the recent ones (the ski-rental problem with a known
//! distribution; the guest's halt polling in the kernel's cpuidle-haltpoll does something alike).
//!
//! ```text
//!   cost of looking for b = Σ pause ≤ b: pause   +   Σ pause > b: b + SLEPT      choose the least
//! ```
//!
//! Bulk ([`Mix`]) is not worth looking for: its throughput does not feel the wake-up, and what gathers
//! meanwhile is taken and sent on together, which is cheaper than segment by segment (what a NIC's
//! interrupt moderation is for). A pause that ends with it counts like one that nobody saw the end of.
//!
//! Only pauses that were looked at for the full [`LONGEST`] are learned from: how long one would have
//! been that was slept through cannot be told. One in [`EXPLORE`] is, whatever the bound.

use super::Received;
use crate::time::{Duration, Instant};

/// The longest that is ever looked, in microseconds.
const LONGEST: u64 = 50;

/// What having slept is worth in microseconds of looking: so it is worth to look to the end if more than
/// one pause in six ends by then. A wake-up takes about 10 µs of CPU, and 20 to 90 until the worker runs (more on
/// a virtual CPU that was halted), and both ends of a ping-pong only stay awake if both look. Measured
/// from 10 to 300: bulk and busy servers hardly mind, a lone ping-pong needs 150 µs or 55.
const SLEPT: u64 = 300;

/// Bounds to choose from, and upper ends of the classes of pauses, in microseconds.
const BOUNDS: [u64; 6] = [0, 3, 6, 12, 25, LONGEST];

/// One pause in so many is looked at to the end (measured: 8 cost a tenth of the CPU in bulk).
const EXPLORE: u32 = 32;

/// The share of the newest pause in what is known, as a power of two: 1/8.
const NEWEST: u32 = 3;

/// All weights together.
const WHOLE: u64 = 1 << 16;

/// What makes bulk: packets of so many bytes in the mean (where one way's segments and the other way's
/// acknowledgements mix, it is about a thousand), and so many bytes a microsecond, which is 0.64 Gbit/s. A
/// connection that asks for 4 KiB and waits for them, as fast as it can, stays below that.
const BULK_LENGTH: u64 = 700;
const BULK_RATE: u64 = 80;

/// For how long what is received is summed up before it is judged: long beside the blocks that a sender
/// hands over (128 KiB are a millisecond at 1 Gbit/s), so that it matters little where it cuts them.
const WINDOW: Duration = Duration::from_millis(10);

/// Whether what the worker receives is bulk.
#[derive(Debug)]
pub struct Mix {
    since: Instant,
    bytes: u64,
    packets: u64,
    bulk: bool,
}

impl Mix {
    pub fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, packets: 0, bulk: false }
    }

    pub fn add(&mut self, received: Received, now: Instant) {
        self.bytes += received.bytes as u64;
        self.packets += received.packets as u64;
        if now - self.since >= WINDOW {
            let long = self.bytes > self.packets * BULK_LENGTH;
            *self = Self { bulk: long && self.bytes > (now - self.since).total_micros() * BULK_RATE, ..Self::new(now) };
        }
    }

    pub fn is_bulk(&self) -> bool {
        self.bulk
    }
}

#[derive(Debug)]
pub struct Patience {
    /// Share of recent pauses in each class, out of [`WHOLE`]; the last one: longer than all bounds.
    weights: [u64; BOUNDS.len() + 1],
    /// The cheapest for them.
    bound: u64,
    /// Since when there is nothing to do. None: there is, or the worker has slept since.
    since: Option<Instant>,
    /// This pause is looked at to the end.
    exploring: bool,
    pauses: u32,
}

impl Patience {
    /// Expects packets at once.
    pub fn new() -> Self {
        let mut weights = [0; BOUNDS.len() + 1];
        weights[0] = WHOLE;
        Self { weights, bound: LONGEST, since: None, exploring: false, pauses: 0 }
    }

    /// There was something to do; whether that was `bulk`.
    pub fn found(&mut self, now: Instant, bulk: bool) {
        let Some(since) = self.since.take() else { return };
        if self.exploring {
            let pause = (now - since).total_micros();
            let class = BOUNDS.iter().position(|bound| pause <= *bound && !bulk);
            self.learn(class.unwrap_or(BOUNDS.len()));
        }
    }

    /// There was nothing to do. True: it has been looked for long enough.
    pub fn is_over(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert_with(|| {
            self.pauses = self.pauses.wrapping_add(1);
            self.exploring = self.bound == LONGEST || self.pauses.is_multiple_of(EXPLORE);
            now
        });
        let bound = if self.exploring { LONGEST } else { self.bound };
        let over = (now - since).total_micros() >= bound;
        if over {
            self.since = None;
            if self.exploring {
                self.learn(BOUNDS.len());
            }
        }
        over
    }

    fn learn(&mut self, class: usize) {
        for weight in &mut self.weights {
            *weight -= *weight >> NEWEST;
        }
        self.weights[class] += WHOLE - self.weights.iter().sum::<u64>();
        let costs = (0..BOUNDS.len()).map(|at| (self.cost(at), BOUNDS[at]));
        self.bound = costs.min().map_or(0, |(_, bound)| bound);
    }

    /// Of looking for up to `BOUNDS[at]`: a pause counts with the upper end of its class.
    fn cost(&self, at: usize) -> u64 {
        let class =
            |(class, weight): (usize, &u64)| weight * if class <= at { BOUNDS[class] } else { BOUNDS[at] + SLEPT };
        self.weights.iter().enumerate().map(class).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    /// Lets a worker have `count` pauses of so many microseconds, and says how long it looked at the
    /// last [`EXPLORE`] of them.
    fn looked(patience: &mut Patience, count: u32, pause: u64) -> Vec<u64> {
        let mut now = Instant::from_micros(1_000_000);
        let mut all = Vec::new();
        for _ in 0..count {
            let began = now;
            let end = now + Duration::from_micros(pause);
            while now < end && !patience.is_over(now) {
                now += Duration::from_micros(1);
            }
            all.push((now - began).total_micros());
            now = end.max(now);
            patience.found(now, false);
            now += Duration::from_micros(5);
        }
        all.split_off(all.len() - EXPLORE as usize)
    }

    #[test]
    fn short_pauses_are_looked_through_and_long_ones_slept_through() {
        let mut patience = Patience::new();
        assert_eq!(looked(&mut patience, 100, 20), [20; EXPLORE as usize]);
        // One pause is looked at, to see if that changed.
        let mut long = looked(&mut patience, 3200, 400);
        long.sort_unstable();
        let looked_at = long.pop();
        assert_eq!((looked_at, long), (Some(LONGEST), vec![0; EXPLORE as usize - 1]));
        let again = looked(&mut patience, 3200, 20);
        assert_eq!(again, [20; EXPLORE as usize], "it is learned when packets come fast again");
    }

    #[test]
    fn nothing_is_looked_for_longer_than_the_longest() {
        for pause in [0, 1, 40, 49, 51, 1000, 1_000_000] {
            let mut patience = Patience::new();
            assert!(looked(&mut patience, 500, pause).into_iter().all(|looked| looked <= LONGEST), "{pause}");
        }
    }

    #[test]
    fn of_mixed_pauses_the_short_ones_are_waited_for() {
        let mut patience = Patience::new();
        // Half of them end within 5 µs, the others never soon: a short look pays, a long one does not.
        for _ in 0..400 {
            looked(&mut patience, EXPLORE, 5);
            looked(&mut patience, EXPLORE, 400);
        }
        assert!((3..=12).contains(&patience.bound), "{patience:?}");
    }

    #[test]
    fn long_packets_in_quick_succession_are_bulk_and_requests_are_not() {
        for (name, lengths, micros, bulk) in [
            ("segments", &[1514][..], 12, true),
            ("segments, every second acknowledged", &[1514, 1514, 66], 24, true),
            ("trains", &[65_226, 66, 66], 500, true),
            ("blocks of two trains, 1 Gbit/s", &[65_226, 65_226, 66, 66, 66], 1_048, true),
            ("segments now and then", &[1514], 100, false),
            ("requests", &[130, 66], 1, false),
            ("4 KiB there and back, one after the other", &[1514, 1514, 1264, 66, 1514, 1514, 1264, 66], 120, false),
            ("requests, and a long one now and then", &[130, 66, 130, 66, 130, 66, 1514], 10, false),
            ("acknowledgements", &[66], 1, false),
        ] {
            let mut now = Instant::from_micros(1_000_000);
            let mut mix = Mix::new(now);
            for _ in 0..10_000 {
                now += Duration::from_micros(micros);
                mix.add(Received { packets: lengths.len(), bytes: lengths.iter().sum() }, now);
            }
            assert_eq!(mix.is_bulk(), bulk, "{name}");
            mix.add(Received { packets: 1, bytes: 1514 }, now + Duration::from_secs(1));
            assert!(!mix.is_bulk(), "{name}: and then a second of silence");
        }
    }

    #[test]
    fn bulk_is_not_looked_for_however_soon_it_comes() {
        let mut patience = Patience::new();
        let mut now = Instant::from_micros(1_000_000);
        for _ in 0..1000 {
            patience.is_over(now);
            now += Duration::from_micros(2);
            patience.found(now, true);
        }
        assert_eq!(patience.bound, 0);
        assert_eq!(looked(&mut patience, 3200, 2), [2; EXPLORE as usize], "what is not bulk is again");
    }

    #[test]
    fn a_pause_that_was_slept_through_teaches_nothing() {
        let mut patience = Patience::new();
        looked(&mut patience, 3200, 400);
        let before = patience.weights;
        let now = Instant::from_micros(9_000_000);
        patience.pauses = 0;
        assert!(patience.is_over(now));
        patience.found(now + Duration::from_micros(1), false);
        assert_eq!(patience.weights, before);
    }
}
