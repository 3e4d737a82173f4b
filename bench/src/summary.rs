//! Medians and their spread, of every figure in every case, for every contender.

use serde::Serialize;

use crate::figures::{ABOVE, BUSY};
use crate::samples::{Log, Sample};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub case: String,
    pub figure: String,
    pub unit: String,
    pub subject: String,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub n: usize,
}

/// In the order in which cases and contenders first came.
pub fn rows(log: &Log) -> Vec<Row> {
    let mut gathered: Vec<(Row, Vec<f64>)> = Vec::new();
    for sample in log.samples() {
        let own = sample.figures.iter().map(|(name, figure)| (name.as_str(), figure.unit.as_str(), figure.value));
        for (figure, unit, value) in own.chain(above(log, sample)) {
            let place = &sample.place;
            let same = |(row, _): &&mut (Row, Vec<f64>)| {
                row.case == place.case && row.subject == place.subject && row.figure == figure
            };
            match gathered.iter_mut().find(same) {
                Some((_, values)) => values.push(value),
                None => gathered.push((empty(sample, figure, unit), vec![value])),
            }
        }
    }
    gathered.into_iter().filter_map(|(row, values)| filled(row, values)).collect()
}

/// The machine's busy time less that of the same work, in the same round, without a proxy.
fn above<'a>(log: &'a Log, sample: &'a Sample) -> Option<(&'static str, &'a str, f64)> {
    if sample.place.subject == "none" {
        return None;
    }
    let busy = sample.figures.get(BUSY)?;
    let baseline = sample.baseline.as_ref()?;
    let none = log.samples().find(|other| {
        other.place.subject == "none" && other.place.case == *baseline && other.place.round == sample.place.round
    })?;
    Some((ABOVE, &busy.unit, busy.value - none.figures.get(BUSY)?.value))
}

fn empty(sample: &Sample, figure: &str, unit: &str) -> Row {
    Row {
        case: sample.place.case.clone(),
        figure: figure.into(),
        unit: unit.into(),
        subject: sample.place.subject.clone(),
        median: 0.0,
        min: 0.0,
        max: 0.0,
        n: 0,
    }
}

fn filled(row: Row, mut values: Vec<f64>) -> Option<Row> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    Some(Row { median: median(&values), min, max, n: values.len(), ..row })
}

/// Of values in order, at least one.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The one that a case, a contender and a figure name.
pub fn find<'a>(rows: &'a [Row], case: &str, subject: &str, figure: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.case == case && row.subject == subject && row.figure == figure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::tests::{sample, terms};
    use crate::samples::{Entry, Place};

    fn log(samples: Vec<Sample>) -> Log {
        let path = std::env::temp_dir().join(format!("bench-summary-{:?}.jsonl", std::thread::current().id()));
        let mut log = Log::open(&path, &terms(), true).unwrap();
        samples.into_iter().for_each(|sample| log.add(Entry::Sample(sample)).unwrap());
        std::fs::remove_file(path).unwrap();
        log
    }

    #[test]
    fn cpu_above_none_is_taken_within_each_round() {
        let busy = |round, subject, value| sample(round, "case", subject, &[(BUSY, value, "s/GiB")]);
        let rows = rows(&log(vec![
            busy(1, "none", 1.0),
            busy(1, "sluice", 3.0),
            busy(2, "none", 2.0),
            busy(2, "sluice", 7.0),
            busy(3, "none", 1.5),
            busy(3, "sluice", 4.5),
            // No baseline in this round: no figure of it.
            busy(4, "sluice", 100.0),
        ]));
        let above = find(&rows, "case", "sluice", ABOVE).unwrap();
        assert_eq!((above.median, above.min, above.max, above.n), (3.0, 2.0, 5.0, 3));
        assert_eq!(find(&rows, "case", "sluice", BUSY).unwrap().n, 4);
        assert!(find(&rows, "case", "none", ABOVE).is_none());
    }

    #[test]
    fn what_was_thrown_away_or_failed_is_in_no_median() {
        let mut log = log(vec![sample(1, "case", "envoy", &[("p50", 5.0, "µs")])]);
        let place = Place { round: 2, case: "case".into(), subject: "envoy".into() };
        log.add(Entry::ThrownAway { place: place.clone(), foreign: 0.4 }).unwrap();
        log.add(Entry::Failed { place, why: "foreign load".into() }).unwrap();
        let rows = rows(&log);
        assert_eq!((rows.len(), rows[0].n, rows[0].median), (1, 1, 5.0));
        assert_eq!((log.thrown_away(), log.failures().len()), (1, 1));
    }
}
