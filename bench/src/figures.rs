//! What a piece of work comes to, per unit of it, under the names that every output uses.

use std::collections::BTreeMap;

use crate::plan::Work;
use crate::samples::Figure;
use crate::stage::Outcome;

pub const THROUGHPUT: &str = "throughput";
pub const RATE: &str = "rate";
/// Busy time of the machine, that of strangers taken off.
pub const BUSY: &str = "CPU busy";
/// The same, less that of the same work without a proxy. Made from samples, not in them.
pub const ABOVE: &str = "CPU above none";
/// Of the gateways' processes.
pub const PROCESSES: &str = "CPU of A+B";
pub const FRAME: &str = "frame";
pub const MEMORY: &str = "memory of A+B";
pub const MACHINE: &str = "memory of machine";
pub const BASE: &str = "memory before";
/// ClientHellos of a storm, and how many were answered by a server's flight.
pub const SENT: &str = "hellos sent";
pub const ANSWERED: &str = "hellos answered";
pub const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// In the order of columns.
pub const ORDER: [&str; 15] = [
    THROUGHPUT, RATE, ABOVE, BUSY, PROCESSES, "p50", "p99", "p99.9", "p99.99", FRAME, SENT, ANSWERED, MEMORY, MACHINE,
    BASE,
];

pub fn of(work: Work, outcome: &Outcome) -> BTreeMap<String, Figure> {
    let (measured, spent) = (&outcome.measured, outcome.measured.spent);
    let (gib, thousands) = (measured.bytes as f64 / f64::from(1 << 30), measured.count as f64 / 1000.0);
    let per_second = measured.count as f64 / spent.seconds;
    let mut all = Vec::new();
    match work {
        Work::Bulk(_) => {
            all.push((THROUGHPUT, measured.bytes as f64 * 8.0 / 1e9 / spent.seconds, "Gbit/s"));
            all.push((BUSY, spent.own() / gib, "s/GiB"));
            all.push((PROCESSES, spent.processes / gib, "s/GiB"));
            all.push((FRAME, outcome.frame, "B"));
        }
        // Its frames do not pass gateway B.
        Work::Bystander { .. } => {
            all.push((THROUGHPUT, measured.bytes as f64 * 8.0 / 1e9 / spent.seconds, "Gbit/s"));
            all.push((BUSY, spent.own() / gib, "s/GiB"));
        }
        Work::Connections { .. } | Work::RoundTrip { .. } | Work::Isolation(_) => {
            all.push((RATE, per_second, "1/s"));
            all.push((BUSY, spent.own() / thousands, "s/1000"));
            all.push((PROCESSES, spent.processes / thousands, "s/1000"));
        }
        Work::Idle { .. } => {}
    }
    if let Some(latency) = &measured.latency {
        all.extend(QUANTILES.iter().filter_map(|(name, quantile)| Some((*name, latency.at(*quantile)?, "µs"))));
    }
    if let Some(reached) = outcome.storm {
        all.push((SENT, reached.sent_per_second(), "1/s"));
        all.push((ANSWERED, reached.answered_per_second(), "1/s"));
    }
    if let Some(memory) = measured.memory {
        let count = measured.count as f64;
        all.push((MEMORY, memory.processes / count, "KiB"));
        all.push((MACHINE, memory.machine / count, "KiB"));
        all.push((BASE, memory.base / 1024.0, "MiB"));
    }
    let figure = |(name, value, unit): (&str, f64, &str)| (name.to_owned(), Figure { value, unit: unit.to_owned() });
    all.into_iter().map(figure).collect()
}

/// Whether more of it is better.
pub fn more_is_better(figure: &str) -> bool {
    figure == THROUGHPUT || figure == RATE
}

/// Whether it is what something has grown by: a difference, which noise can be larger than.
pub fn is_difference(figure: &str) -> bool {
    [ABOVE, MEMORY, MACHINE].contains(&figure)
}
