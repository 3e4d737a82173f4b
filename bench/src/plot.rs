//! The report's pictures: what each contender costs beside the others, and its latencies' curves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::figures::{ABOVE, MEMORY, RATE, THROUGHPUT};
use crate::samples::Log;
use crate::summary::Row;
use crate::svg::{Bars, Curves, Group, Line};

/// File names of what was written into `out`.
pub fn write(out: &Path, log: &Log, rows: &[Row]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let sets: [(&str, &str, &str, &[&str]); 5] = [
        ("cpu-bulk.svg", "CPU above none, s/GiB (less is better)", ABOVE, &["bulk, 1 stream at"]),
        ("throughput.svg", "Throughput, Gbit/s (more is better)", THROUGHPUT, &["stream, ", "streams, "]),
        (
            "cpu-connections.svg",
            "CPU above none, s per 1000 (less is better)",
            ABOVE,
            &["new connections", "round trip"],
        ),
        ("rate.svg", "New connections and requests, 1/s (more is better)", RATE, &["16 clients", "closed loop"]),
        ("memory.svg", "Memory of A+B, KiB per idle connection (less is better)", MEMORY, &["memory"]),
    ];
    for (name, title, figure, cases) in sets {
        let bars = bars(rows, title, figure, cases);
        if !bars.groups.is_empty() {
            save(out, name, &bars.draw(), &mut names)?;
        }
    }
    let growth = growth(&out.join("instructions.json"))?;
    if !growth.groups.is_empty() {
        save(out, "instructions.svg", &growth.draw(), &mut names)?;
    }
    for (number, (case, lines)) in curves(log).into_iter().enumerate() {
        save(out, &format!("latency-{}.svg", number + 1), &Curves { title: case, lines }.draw(), &mut names)?;
    }
    Ok(names)
}

/// How instructions grow, from what `bench/instructions` has left there: names are
/// `flow table, 100 flows, per packet`.
fn growth(results: &Path) -> Result<Bars> {
    let mut bars = Bars { title: "Instructions (less is better)".into(), groups: vec![] };
    if !results.exists() {
        return Ok(bars);
    }
    let text = fs::read_to_string(results).with_context(|| format!("read {}", results.display()))?;
    let mut all: Vec<(String, f64)> = serde_json::from_str::<BTreeMap<String, f64>>(&text)?.into_iter().collect();
    let size = |name: &str| name.split(' ').find_map(|word| word.parse::<u64>().ok()).unwrap_or(0);
    all.sort_by_key(|(name, _)| size(name));
    for (name, value) in all {
        let [path, what, unit] = name.split(", ").collect::<Vec<_>>()[..] else { continue };
        let kind = what.split_once(' ').map_or("", |(_, kind)| kind);
        let (case, bar) = (format!("{path}, by {kind}, {unit}"), (size(what).to_string(), [value; 3]));
        match bars.groups.iter_mut().find(|group| group.case == case) {
            Some(group) => group.bars.push(bar),
            None => bars.groups.push(Group { case, bars: vec![bar] }),
        }
    }
    bars.groups.sort_by(|a, b| a.case.cmp(&b.case));
    Ok(bars)
}

fn save(out: &Path, name: &str, picture: &str, names: &mut Vec<String>) -> Result<()> {
    fs::write(out.join(name), picture).with_context(|| format!("write {name}"))?;
    names.push(name.to_owned());
    Ok(())
}

fn bars(rows: &[Row], title: &str, figure: &str, cases: &[&str]) -> Bars {
    let mut bars = Bars { title: title.into(), groups: vec![] };
    let fits = |row: &&Row| row.figure == figure && cases.iter().any(|part| row.case.contains(part));
    for row in rows.iter().filter(fits).filter(|row| row.subject != "none") {
        let bar = (row.subject.clone(), [row.min, row.median, row.max]);
        match bars.groups.iter_mut().find(|group| group.case == row.case) {
            Some(group) => group.bars.push(bar),
            None => bars.groups.push(Group { case: row.case.clone(), bars: vec![bar] }),
        }
    }
    bars
}

/// The median of each point over the rounds, by case.
fn curves(log: &Log) -> Vec<(String, Vec<Line>)> {
    let mut points: BTreeMap<(&str, &str), BTreeMap<u64, Vec<f64>>> = BTreeMap::new();
    for sample in log.samples() {
        let line = points.entry((&sample.place.case, &sample.place.subject)).or_default();
        // By millionths, since no order is defined on floats.
        sample.curve.iter().for_each(|(q, value)| line.entry((q * 1e6).round() as u64).or_default().push(*value));
    }
    let mut all: Vec<(String, Vec<Line>)> = Vec::new();
    for ((case, subject), line) in points.into_iter().filter(|(_, line)| !line.is_empty()) {
        let median = |(quantile, mut values): (u64, Vec<f64>)| {
            values.sort_by(f64::total_cmp);
            (quantile as f64 / 1e6, values[values.len() / 2])
        };
        let line = Line { name: subject.to_owned(), points: line.into_iter().map(median).collect() };
        match all.iter_mut().find(|(known, _)| known == case) {
            Some((_, lines)) => lines.push(line),
            None => all.push((case.to_owned(), vec![line])),
        }
    }
    all
}
