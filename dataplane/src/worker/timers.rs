//! A timing wheel: one timer a session, a millisecond's grain, no allocation.
//!
//! Each slot of the wheel is a list through two arrays of links. A deadline further away than the
//! wheel reaches waits in its last slot and is put in again when it comes up; so does a timer whose
//! deadline moved to later meanwhile. Both are rarer than the packets that would else pay for them.

use crate::time::{Duration, Instant};

/// 4.1 s of reach.
const SLOTS: usize = 4096;
/// Grain of deadlines beyond the reach, in ticks.
const FAR: i64 = 1024;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub struct Timers {
    /// First entry of each slot's list.
    heads: Vec<u32>,
    /// One bit a slot: something is in it.
    occupied: [u64; SLOTS / 64],
    entries: Vec<Entry>,
    /// The tick up to which, and including which, everything has fired.
    tick: i64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// NONE: not armed.
    slot: u32,
    next: u32,
    previous: u32,
    deadline: Instant,
}

impl Timers {
    pub fn new(capacity: usize, now: Instant) -> Self {
        let idle = Entry { slot: NONE, next: NONE, previous: NONE, deadline: Instant::ZERO };
        Self {
            heads: vec![NONE; SLOTS],
            occupied: [0; SLOTS / 64],
            entries: vec![idle; capacity],
            tick: now.total_millis(),
        }
    }

    /// Fires at `deadline` or within a millisecond after. An earlier one that is armed stays armed:
    /// it fires early, and the session arms it again.
    pub fn arm(&mut self, id: u32, deadline: Instant) {
        let entry = self.entries[id as usize];
        if entry.slot != NONE {
            if entry.deadline <= deadline {
                return;
            }
            self.unlink(id);
        }
        self.link(id, deadline);
    }

    pub fn disarm(&mut self, id: u32) {
        if self.entries[id as usize].slot != NONE {
            self.unlink(id);
        }
    }

    /// Calls `fired` for each timer that is due.
    pub fn expire(&mut self, now: Instant, mut fired: impl FnMut(u32)) {
        let until = now.total_millis();
        // Everything is looked at once at the most, however long we slept.
        let first = (self.tick + 1).max(until - SLOTS as i64 + 1);
        self.tick = self.tick.max(until);
        for tick in first..=until {
            let slot = tick.rem_euclid(SLOTS as i64) as usize;
            if self.occupied[slot / 64] == 0 {
                continue;
            }
            let mut id = self.heads[slot];
            while id != NONE {
                let Entry { next, deadline, .. } = self.entries[id as usize];
                self.unlink(id);
                if ceil_millis(deadline) <= until {
                    fired(id);
                } else {
                    self.link(id, deadline);
                }
                id = next;
            }
        }
    }

    /// When the next occupied slot comes up: never later than the first deadline.
    pub fn next(&self) -> Option<Instant> {
        let start = (self.tick + 1).rem_euclid(SLOTS as i64) as usize;
        let words = self.occupied.len();
        for step in 0..=words {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            } else if step == words {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let slot = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS;
                return Some(Instant::from_millis(self.tick + 1 + ahead as i64));
            }
        }
        None
    }

    fn link(&mut self, id: u32, deadline: Instant) {
        let mut tick = ceil_millis(deadline).max(self.tick + 1);
        let reach = self.tick + SLOTS as i64 - 1;
        if tick > reach {
            // All that is far away shares few slots: idle sessions wake the core together, and seldom.
            tick = reach - reach.rem_euclid(FAR);
        }
        let slot = tick.rem_euclid(SLOTS as i64) as usize;
        let next = std::mem::replace(&mut self.heads[slot], id);
        if next != NONE {
            self.entries[next as usize].previous = id;
        }
        self.entries[id as usize] = Entry { slot: slot as u32, next, previous: NONE, deadline };
        self.occupied[slot / 64] |= 1 << (slot % 64);
    }

    fn unlink(&mut self, id: u32) {
        let Entry { slot, next, previous, .. } = self.entries[id as usize];
        if previous == NONE {
            self.heads[slot as usize] = next;
        } else {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if self.heads[slot as usize] == NONE {
            self.occupied[slot as usize / 64] &= !(1 << (slot % 64));
        }
        self.entries[id as usize].slot = NONE;
    }
}

fn ceil_millis(at: Instant) -> i64 {
    (at + Duration::from_micros(999)).total_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(timers: &mut Timers, at: i64) -> Vec<u32> {
        let mut ids = Vec::new();
        timers.expire(Instant::from_micros(at), |id| ids.push(id));
        ids.sort_unstable();
        ids
    }

    #[test]
    fn a_timer_fires_once_and_never_early() {
        let mut timers = Timers::new(4, Instant::ZERO);
        timers.arm(1, Instant::from_micros(5_500));
        timers.arm(2, Instant::from_micros(5_500));
        timers.disarm(2);
        assert_eq!(timers.next(), Some(Instant::from_millis(6)));
        assert_eq!(due(&mut timers, 5_999), Vec::<u32>::new());
        assert_eq!(due(&mut timers, 6_000), [1]);
        assert_eq!(due(&mut timers, 7_000), Vec::<u32>::new());
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn an_earlier_deadline_replaces_a_later_one() {
        let mut timers = Timers::new(1, Instant::ZERO);
        timers.arm(0, Instant::from_millis(50));
        timers.arm(0, Instant::from_millis(20));
        timers.arm(0, Instant::from_millis(90));
        assert_eq!(due(&mut timers, 20_000), [0]);
        assert_eq!(timers.next(), None);
    }

    /// Against a list of deadlines, with sleeps longer than the wheel reaches.
    #[test]
    fn the_wheel_agrees_with_a_sorted_list() {
        let (mut state, mut now) = (1u64, 0i64);
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % below) as i64
        };
        let mut timers = Timers::new(64, Instant::ZERO);
        let mut want: Vec<Option<i64>> = vec![None; 64];
        for _ in 0..20_000 {
            let id = random(64) as usize;
            if want[id].is_none() {
                let deadline = now + random(20_000);
                want[id] = Some(deadline);
                timers.arm(id as u32, Instant::from_millis(deadline));
            }
            now += if random(50) == 0 { random(9_000) } else { random(30) };
            timers.expire(Instant::from_millis(now), |id| {
                let deadline = want[id as usize].take().expect("fired without being armed");
                assert!(deadline <= now, "{deadline} fired at {now}");
            });
            // A deadline past the wheel's reach comes up early in its last slot and is armed again.
            let overdue = want.iter().flatten().find(|&&deadline| deadline < now);
            assert_eq!(overdue, None, "not fired by {now}");
            if let Some(next) = timers.next() {
                assert!(want.iter().flatten().all(|&d| d >= now && next.total_millis() <= d.max(now + 1)));
            }
        }
    }
}
