//! Where a run is, and how long it will still take: from how long the plan says that things take,
//! corrected by how long they did.

use std::time::{Duration, Instant};

use crate::limits::Limit;
use crate::plan::{Turn, Work};

pub struct Progress {
    began: Instant,
    /// Seconds that the plan gives to what is done, and to all of it.
    done: f64,
    all: f64,
    turns: usize,
    taken: usize,
}

/// Seconds for laying a turn's namespaces, starting and probing its contender.
const SETTING: f64 = 2.5;
/// For a piece of work beside its timed part.
const AROUND: f64 = 1.2;

/// Seconds that a turn takes.
pub fn expected(turn: &Turn, seconds: f64) -> f64 {
    SETTING + turn.works.iter().map(|work| AROUND + work.seconds(seconds)).sum::<f64>()
}

impl Progress {
    /// Of the turns that are still to be taken.
    pub fn new(turns: &[Turn], seconds: f64) -> Self {
        let all = turns.iter().map(|turn| expected(turn, seconds)).sum();
        Self { began: Instant::now(), done: 0.0, all, turns: turns.len(), taken: 0 }
    }

    pub fn done(&mut self, turn: &Turn, seconds: f64) {
        self.done += expected(turn, seconds);
        self.taken += 1;
    }

    pub fn left(&self) -> Duration {
        let pace = if self.done > 0.0 { self.began.elapsed().as_secs_f64() / self.done } else { 1.0 };
        Duration::from_secs_f64((self.all - self.done).max(0.0) * pace)
    }

    pub fn say(&self, round: u32, rounds: u32, turn: &Turn) {
        let clock = |time: Duration| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60);
        eprintln!(
            "[{}/{}, {} gone, about {} left] round {round} of {rounds}: {}, {}",
            self.taken + 1,
            self.turns,
            clock(self.began.elapsed()),
            clock(self.left()),
            turn.subject,
            turn.layout
        );
    }

    pub fn limit(limit: Limit, round: u32, rounds: u32) {
        eprintln!("round {round} of {rounds}: {}", limit.case());
    }

    pub fn work(work: Work, said: &str) {
        eprintln!("    {work}: {said}");
    }

    pub fn thrown_away(what: &str, attempt: u32, tries: u32, foreign: f64) {
        let share = foreign * 100.0;
        eprintln!("    {what}: thrown away ({attempt} of {tries}): {share:.0} % of the machine was foreign load");
    }
}
