//! What a run came to: medians and their spread, of every figure in every case, for every contender,
//! and all that one has to know to compare them with another run's.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::figures::{ABOVE, BUSY};
use crate::goals::{Goal, goals};
use crate::samples::{Entry, Log, Place, Sample, Terms};

/// `summary.json`, which is also what is archived of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// In UTC. None: an archive from before it was written down, and so with all that has a default.
    #[serde(default)]
    pub finished: Option<String>,
    pub terms: Terms,
    /// Samples that strangers spoiled, and the largest share that they had of one that counts.
    #[serde(default)]
    pub thrown_away: usize,
    #[serde(default)]
    pub worst_foreign: f64,
    #[serde(default)]
    pub failed: Vec<Failure>,
    #[serde(default)]
    pub found: Vec<Found>,
    pub cases: Vec<Row>,
    /// Follows from the cases.
    #[serde(skip_deserializing)]
    pub goals: Vec<Goal>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    #[serde(flatten)]
    pub place: Place,
    pub why: String,
}

/// What was in place, and in which layouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub subject: String,
    #[serde(flatten)]
    pub facts: Facts,
    pub layouts: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

impl Summary {
    pub fn of(terms: &Terms, log: &Log, finished: Option<String>) -> Self {
        let cases = rows(log);
        let failure = |(place, why): (&Place, &str)| Failure { place: place.clone(), why: why.into() };
        Self {
            finished,
            terms: terms.clone(),
            thrown_away: log.thrown_away(),
            worst_foreign: log.samples().map(|sample| sample.foreign).fold(0.0, f64::max),
            failed: log.failures().into_iter().map(failure).collect(),
            found: found(log),
            goals: goals(&cases),
            cases,
        }
    }
}

fn found(log: &Log) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    for entry in &log.entries {
        let Entry::Found { layout, subject, facts } = entry else { continue };
        match all.iter_mut().find(|found| found.subject == *subject && found.facts == *facts) {
            Some(found) if found.layouts.contains(layout) => {}
            Some(found) => found.layouts.push(layout.clone()),
            None => all.push(Found { subject: subject.clone(), facts: facts.clone(), layouts: vec![layout.clone()] }),
        }
    }
    all.sort_by(|a, b| (&a.subject, &a.facts).cmp(&(&b.subject, &b.facts)));
    all
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

    impl Summary {
        pub fn empty(terms: Terms) -> Self {
            let (thrown_away, worst_foreign) = (0, 0.0);
            let (failed, found, cases, goals) = (vec![], vec![], vec![], vec![]);
            Self { finished: None, terms, thrown_away, worst_foreign, failed, found, cases, goals }
        }
    }

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

    #[test]
    fn an_archive_reads_back_with_what_the_figures_belong_to_also_an_old_one() {
        let mut log = log(vec![sample(1, "case", "envoy", &[("p50", 5.0, "µs")])]);
        let found = |layout: &str| Entry::Found {
            layout: layout.into(),
            subject: "envoy".into(),
            facts: Facts { wire: "in clear".into(), ..Facts::default() },
        };
        ["a", "b", "a"].into_iter().for_each(|layout| log.add(found(layout)).unwrap());
        let summary = Summary::of(&terms(), &log, Some("2026-11-22T10:00:00Z".into()));
        let mut value = serde_json::to_value(&summary).unwrap();
        let back: Summary = serde_json::from_value(value.clone()).unwrap();
        assert_eq!((&back.terms, &back.cases, &back.finished), (&summary.terms, &summary.cases, &summary.finished));
        assert_eq!(back.found[0].layouts, ["a", "b"]);

        let fields = value.as_object_mut().unwrap();
        fields.retain(|name, _| ["terms", "cases"].contains(&name.as_str()));
        assert_eq!(serde_json::from_value::<Summary>(value).unwrap().cases, summary.cases);
    }
}
