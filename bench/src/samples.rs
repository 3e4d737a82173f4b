//! Every sample of a run, one line of JSON each, written as it is taken: what a run that was
//! interrupted goes on from, and what every figure of the report can be traced to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::facts::Facts;
use crate::plan::Scope;

/// What makes two runs one: a run goes on only where all of it is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    pub environment: Environment,
    pub scope: Scope,
    pub rounds: u32,
    pub seconds: f64,
    /// Share of the machine that strangers may have.
    pub foreign: f64,
}

/// Names a sample.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub round: u32,
    pub case: String,
    pub subject: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    #[serde(flatten)]
    pub place: Place,
    /// The case whose cost without a proxy is taken off this one's.
    pub baseline: Option<String>,
    pub figures: BTreeMap<String, Figure>,
    /// Quantile and latency in µs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(f64, f64)>,
    /// Share of the machine that strangers had.
    pub foreign: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub value: f64,
    pub unit: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    Begin(Terms),
    Sample(Sample),
    /// Taken while strangers were at work: no figure, and repeated.
    ThrownAway {
        #[serde(flatten)]
        place: Place,
        foreign: f64,
    },
    Failed {
        #[serde(flatten)]
        place: Place,
        why: String,
    },
    Found {
        layout: String,
        subject: String,
        facts: Facts,
    },
}

/// The file, and all that is in it.
pub struct Log {
    file: File,
    pub entries: Vec<Entry>,
}

impl Log {
    /// Goes on with the run in `path` if its terms are these, or begins anew.
    pub fn open(path: &Path, terms: &Terms, fresh: bool) -> Result<Self> {
        let before = if fresh { vec![] } else { read(path)? };
        let goes_on = before.first() == Some(&Entry::Begin(terms.clone()));
        let entries = if goes_on { before } else { vec![Entry::Begin(terms.clone())] };
        // Written again, so that a line that was cut short does not spoil the next one.
        let file = File::create(path).with_context(|| format!("open {}", path.display()))?;
        let mut log = Self { file, entries: vec![] };
        entries.into_iter().try_for_each(|entry| log.add(entry))?;
        if goes_on {
            eprintln!("bench: goes on with the run in {} ({} samples)", path.display(), log.samples().count());
        }
        Ok(log)
    }

    pub fn add(&mut self, entry: Entry) -> Result<()> {
        writeln!(self.file, "{}", serde_json::to_string(&entry)?).context("write a sample")?;
        self.entries.push(entry);
        Ok(())
    }

    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Sample(sample) => Some(sample),
            Entry::Begin(_) | Entry::ThrownAway { .. } | Entry::Failed { .. } | Entry::Found { .. } => None,
        })
    }

    /// Whether that sample was taken. What failed is tried again.
    pub fn has(&self, place: &Place) -> bool {
        self.samples().any(|sample| sample.place == *place)
    }

    /// Failures that no later try has mended.
    pub fn failures(&self) -> Vec<(&Place, &str)> {
        let mut open: BTreeMap<&Place, &str> = BTreeMap::new();
        for entry in &self.entries {
            match entry {
                Entry::Failed { place, why } => drop(open.insert(place, why)),
                Entry::Sample(sample) => drop(open.remove(&sample.place)),
                Entry::Begin(_) | Entry::ThrownAway { .. } | Entry::Found { .. } => {}
            }
        }
        open.into_iter().collect()
    }

    pub fn thrown_away(&self) -> usize {
        self.entries.iter().filter(|entry| matches!(entry, Entry::ThrownAway { .. })).count()
    }
}

/// A last line that was cut short, as by a power failure, is left out.
fn read(path: &Path) -> Result<Vec<Entry>> {
    if !path.exists() {
        return Ok(vec![]);
    }
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn terms() -> Terms {
        let environment = Environment {
            kernel: "6.18".into(),
            cpu: "a CPU".into(),
            cpus: 2,
            versions: vec!["sluice 0".into()],
            commit: None,
        };
        Terms { environment, scope: Scope::Core, rounds: 3, seconds: 3.0, foreign: 0.05 }
    }

    pub fn sample(round: u32, case: &str, subject: &str, figures: &[(&str, f64, &str)]) -> Sample {
        let figure = |(name, value, unit): &(&str, f64, &str)| {
            ((*name).to_owned(), Figure { value: *value, unit: (*unit).to_owned() })
        };
        Sample {
            place: Place { round, case: case.into(), subject: subject.into() },
            baseline: Some(case.into()),
            figures: figures.iter().map(figure).collect(),
            curve: vec![],
            foreign: 0.01,
        }
    }

    #[test]
    fn a_run_goes_on_where_it_was_left_and_one_on_other_terms_begins_anew() {
        let directory = std::env::temp_dir().join(format!("bench-samples-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("samples.jsonl");
        let taken = sample(1, "a case", "sluice", &[("p50", 1.5, "µs")]);
        let mut log = Log::open(&path, &terms(), true).unwrap();
        log.add(Entry::Failed { place: taken.place.clone(), why: "no".into() }).unwrap();
        assert!(!log.has(&taken.place));
        assert_eq!(log.failures().len(), 1);
        log.add(Entry::Sample(taken.clone())).unwrap();
        drop(log);
        // The end of a line that was being written when the power went.
        File::options().append(true).open(&path).unwrap().write_all(b"{\"kind\":\"sam").unwrap();

        let log = Log::open(&path, &terms(), false).unwrap();
        assert!(log.has(&taken.place));
        assert!(log.failures().is_empty(), "a later try has mended it");
        let other = Terms { rounds: 5, ..terms() };
        assert!(!Log::open(&path, &other, false).unwrap().has(&taken.place));
        fs::remove_dir_all(&directory).unwrap();
    }
}
