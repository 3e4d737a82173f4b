//! What goes wrong on a link, drawn from the seed, each kind with its counter.
//!
//! Each kind has a countdown of frames, drawn anew when it strikes: rarer than every n-th frame on
//! average, but never absent from a run that is long enough, so that a suite can ask for each.

use super::chance::Chance;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    Lost,
    Duplicated,
    /// Held back while later frames overtake it.
    Reordered,
    /// One byte, anywhere in the frame, is another.
    Corrupted,
}

impl Fault {
    pub const ALL: [Self; 4] = [Self::Lost, Self::Duplicated, Self::Reordered, Self::Corrupted];
}

/// How often each kind struck.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters([u64; Fault::ALL.len()]);

impl Counters {
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    pub fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }
}

/// The faults of one link.
#[derive(Debug)]
pub struct Faults {
    chance: Chance,
    /// One fault of a kind in this many frames, on average. 0: never.
    every: u64,
    countdown: [u64; Fault::ALL.len()],
}

impl Faults {
    pub fn new(mut chance: Chance, every: u64) -> Self {
        let countdown = Fault::ALL.map(|_| if every > 0 { draw(&mut chance, every) } else { u64::MAX });
        Self { chance, every, countdown }
    }

    /// What happens to the next frame; the first kind that is due.
    pub fn strike(&mut self) -> Option<Fault> {
        if self.every == 0 {
            return None;
        }
        self.countdown.iter_mut().for_each(|left| *left = left.saturating_sub(1));
        let due = Fault::ALL.into_iter().find(|&fault| self.countdown[fault as usize] == 0)?;
        self.countdown[due as usize] = draw(&mut self.chance, self.every);
        Some(due)
    }

    /// Changes one byte to any other value: anywhere but in the sender's link address, whose sum the
    /// receiver's network card checks and which nothing behind it could.
    pub fn corrupt(&mut self, frame: &mut [u8]) {
        let at = self.chance.below(frame.len() as u64 - 6) as usize;
        let at = if at < 6 { at } else { at + 6 };
        frame[at] ^= self.chance.between(1, 256) as u8;
    }

    pub fn chance(&mut self) -> &mut Chance {
        &mut self.chance
    }
}

fn draw(chance: &mut Chance, every: u64) -> u64 {
    chance.between(1, 2 * every)
}
