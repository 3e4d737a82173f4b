//! The whole gateway under many seeds: each draws its own calls, faults and changes of policy.
//!
//! A seed that fails says how to run it again alone: `SLUICE_SEED=7 cargo test -p pktgen-tests --features sim --test
//! sim_seeds`. `SLUICE_SEEDS=5000` runs more of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use pktgen_tests::sim::scenario::{BYTES, CONNECTIONS, has_real_crypto};
use pktgen_tests::sim::{self, Outcome};

const SEEDS: u64 = 200;

/// Seeds that found a bug, which is gone.
///
/// - 1756: the engine dropped window updates in LAST-ACK, and a slow reader never got the rest.
const FOUND: [u64; 1] = [1756];

/// One seed after the other on each CPU; a seed stays on its thread, as its chance does.
fn on_all_cores(seeds: std::ops::Range<u64>, job: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed < seeds.end) {
                    job(seed);
                }
            });
        }
    });
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: use a number")))
}

fn check(seed: u64, outcome: &Outcome) -> Result<(), String> {
    if outcome.connections < CONNECTIONS || outcome.bytes < BYTES {
        return Err(format!("only {} connections and {} bytes", outcome.connections, outcome.bytes));
    }
    match outcome.faults.iter().find(|(_, count)| *count == 0) {
        Some((fault, _)) => Err(format!("seed {seed}: no frame was {fault:?}")),
        None => Ok(()),
    }
}

#[test]
fn every_seed_keeps_every_promise() {
    let started = Instant::now();
    let seeds = match number("SLUICE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SLUICE_SEEDS").unwrap_or(SEEDS),
    };
    let (failed, bytes, calls, cut) = <(AtomicU64, AtomicU64, AtomicU64, AtomicU64)>::default();
    on_all_cores(seeds.clone(), |seed| {
        let run = std::panic::catch_unwind(|| sim::run(seed));
        let verdict = match run {
            Ok(Ok(outcome)) => {
                bytes.fetch_add(outcome.bytes, Relaxed);
                calls.fetch_add(outcome.connections as u64, Relaxed);
                cut.fetch_add(outcome.cut as u64, Relaxed);
                check(seed, &outcome)
            }
            Ok(Err(broken)) => Err(broken.to_string()),
            Err(_) => Err("it panicked".into()),
        };
        if let Err(what) = verdict {
            failed.fetch_add(1, Relaxed);
            println!("seed {seed} failed {what}");
            println!(
                "  again, alone: SLUICE_SEED={seed} cargo test -p pktgen-tests --features sim --test sim_seeds -- --nocapture"
            );
        }
    });
    println!(
        "{} seeds in {:.1} s: {calls:?} connections ({cut:?} cut by policy), {} MB delivered, {failed:?} seeds failed",
        seeds.end - seeds.start,
        started.elapsed().as_secs_f64(),
        bytes.into_inner() / 1_000_000,
    );
    assert_eq!(failed.into_inner(), 0, "seeds failed, see above");
}

#[test]
fn the_same_seed_is_the_same_run_to_the_last_byte() {
    for seed in (0..20).filter(|seed| !has_real_crypto(*seed)) {
        let run = || sim::run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        let (first, other) = (run(), std::thread::scope(|scope| scope.spawn(run).join().expect("it runs again")));
        assert_eq!(first, other, "seed {seed}");
    }
    assert_ne!(sim::run(0).map(|o| o.trace_hash), sim::run(1).map(|o| o.trace_hash));
}

#[test]
fn seeds_that_found_a_bug_stay_good() {
    for seed in FOUND {
        sim::run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
    }
}
