//! Calls at a rate, each on a connection of its own, while a test does something to the gateways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::load::call;
use crate::netns::Namespace;

/// How many calls, and what failed.
type Count = (u64, Vec<String>);

/// Calls on connections of their own, so many a second, until it is finished.
pub struct Calls {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Count>>>,
}

impl Calls {
    pub fn start(from: &Namespace, address: SocketAddr, a_second: u32) -> Self {
        const THREADS: u32 = 8;
        let stop = Arc::<AtomicBool>::default();
        let every = Duration::from_secs(1) * THREADS / a_second;
        let caller = |thread: u32| {
            let stop = stop.clone();
            from.enter_detached(move || {
                let (mut due, mut count, mut failures) = (Instant::now() + every * thread / THREADS, 0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    rest_until(due);
                    due += every;
                    count += 1;
                    if let Err(error) = call(address, u64::from(thread) << 32 | count, 1000) {
                        failures.push(format!("call {count} of thread {thread}: {error:#}"));
                    }
                }
                (count, failures)
            })
        };
        Self { threads: (0..THREADS).map(caller).collect(), stop }
    }

    pub fn finish(self) -> Count {
        self.stop.store(true, Ordering::Relaxed);
        let (mut calls, mut failures) = (0, Vec::new());
        for thread in self.threads {
            let (count, failed) = thread.join().expect("a caller does not panic").expect("it entered its namespace");
            calls += count;
            failures.extend(failed);
        }
        (calls, failures)
    }
}

/// Parking may end at any time.
pub fn rest_until(due: Instant) {
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        park_timeout(left);
    }
}
