//! New connections with one request each: by clients in a closed loop, or as a schedule has them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::pace::{sharp_timers, sleep_until};
use super::wire::{MESSAGE, connect, exchange};
use super::{Job, Measured, histogram};

const CLIENTS: usize = 16;
/// In an open loop a slow answer must not hold back the next connection.
const OPEN_LOOP_CLIENTS: usize = 64;

pub fn run(job: &Job, rate: Option<u32>, span: Duration) -> Result<Measured> {
    let clients = if rate.is_some() { OPEN_LOOP_CLIENTS } else { CLIENTS };
    let gate = Barrier::new(clients + 1);
    let slots = Slots { next: AtomicU64::new(0), rate, span };
    let (before, all) = std::thread::scope(|scope| {
        let one = || {
            let (gate, slots) = (&gate, &slots);
            scope.spawn(move || -> Result<Histogram<u64>> {
                sharp_timers()?;
                gate.wait();
                client(job, slots)
            })
        };
        let workers: Vec<_> = (0..clients).map(|_| one()).collect();
        let before = job.reading();
        gate.wait();
        let all = workers.into_iter().map(|worker| worker.join().expect("a client does not panic"));
        (before, all.collect::<Result<Vec<_>>>())
    });
    let spent = before?.until(&job.reading()?);
    let mut times = histogram()?;
    for part in all? {
        times.add(part)?;
    }
    Ok(Measured::new(spent, times.len() * 2 * MESSAGE as u64, times.len()).timed(&times))
}

/// Hands out numbers, and with a rate the moments that belong to them.
struct Slots {
    next: AtomicU64,
    rate: Option<u32>,
    span: Duration,
}

impl Slots {
    /// None: the time is over.
    fn take(&self, began: Instant) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = match self.rate {
            Some(rate) => began + Duration::from_secs_f64(number as f64 / f64::from(rate)),
            None => Instant::now(),
        };
        (due < began + self.span).then_some((number, due))
    }
}

/// Ends with the connection in which the time runs out.
fn client(job: &Job, slots: &Slots) -> Result<Histogram<u64>> {
    let (began, mut times) = (Instant::now(), histogram()?);
    while let Some((number, due)) = slots.take(began) {
        sleep_until(due);
        let stream = connect(job.server).with_context(|| format!("after {} connections", times.len()))?;
        exchange(&stream, number).with_context(|| format!("after {} connections", times.len()))?;
        times.record(u64::try_from(due.elapsed().as_nanos())?)?;
    }
    Ok(times)
}
