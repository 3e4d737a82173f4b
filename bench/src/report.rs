//! The report for people: goals, a table for each case, and what the figures stand on.

use std::collections::BTreeMap;

use crate::figures::{ABOVE, BUSY, ORDER, more_is_better};
use crate::goals::{Goal, best_peer};
use crate::samples::{Entry, Log, Terms};
use crate::summary::{Row, find};

pub struct Report<'a> {
    pub terms: &'a Terms,
    pub log: &'a Log,
    pub rows: &'a [Row],
    pub goals: &'a [Goal],
    /// File names, beside the report.
    pub plots: &'a [String],
}

impl Report<'_> {
    pub fn markdown(&self) -> String {
        let mut out = String::from("# Sluice beside its peers\n\n");
        out += &self.machine();
        out += "\n## Goals\n\n";
        out += &table(&goal_cells(self.goals));
        for plot in self.plots {
            out += &format!("\n![{plot}]({plot})\n");
        }
        for case in self.cases() {
            out += &format!("\n## {case}\n\n");
            out += &table(&self.cells(case));
        }
        out += "\n## What stood where\n\n";
        out += &self.facts();
        out += &self.faults();
        out
    }

    /// What the figures belong to.
    fn machine(&self) -> String {
        let Terms { environment, scope, rounds, seconds, foreign } = self.terms;
        let commit = environment.commit.as_deref().unwrap_or("unknown");
        let quick = match scope {
            crate::plan::Scope::Quick => {
                "\n**A smoke of one short round: it shows that all works, and proves nothing.**\n"
            }
            crate::plan::Scope::Core | crate::plan::Scope::Full => "",
        };
        let worst = self.log.samples().map(|sample| sample.foreign).fold(0.0, f64::max);
        format!(
            "{} × {}, kernel {}; commit {commit}; {}.\n{quick}\n\
             Medians of {rounds} rounds of {seconds} s, contenders in turn; in brackets, least and most. \
             CPU above none: busy time of the whole machine less that of the same work without a proxy. \
             CPU of A+B: user and system time of the gateways' processes; on a veth, not all of it is theirs. \
             Latency: from the moment that the schedule names. How it is measured, and what the figures do not say: \
             bench/BENCHMARKING.md.\n\n\
             Foreign load was at most {:.1} % of the machine in a sample that counts; {} samples with more than \
             {:.0} % were thrown away.\n",
            environment.cpus,
            environment.cpu,
            environment.kernel,
            environment.versions.join("; "),
            worst * 100.0,
            self.log.thrown_away(),
            foreign * 100.0,
        )
    }

    /// In the order in which they were measured.
    fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for row in self.rows {
            if !cases.contains(&row.case.as_str()) {
                cases.push(&row.case);
            }
        }
        cases
    }

    fn cells(&self, case: &str) -> Vec<Vec<String>> {
        let here: Vec<&Row> = self.rows.iter().filter(|row| row.case == case).collect();
        let mut figures: Vec<(&str, &str)> = Vec::new();
        for row in &here {
            if !figures.contains(&(&row.figure, &row.unit)) {
                figures.push((&row.figure, &row.unit));
            }
        }
        figures.sort_by_key(|(figure, _)| ORDER.iter().position(|known| known == figure));
        let mut subjects: Vec<&str> = Vec::new();
        for row in &here {
            if !subjects.contains(&row.subject.as_str()) {
                subjects.push(&row.subject);
            }
        }
        let mut header = vec![String::new()];
        header.extend(figures.iter().map(|(figure, unit)| format!("{figure}, {unit}")));
        header.push("sluice / best peer".into());
        let mut cells = vec![header];
        for subject in subjects {
            let cell = |figure: &str| find(self.rows, case, subject, figure).map_or("–".into(), shown);
            let mut line = vec![subject.to_owned()];
            line.extend(figures.iter().map(|(figure, _)| cell(figure)));
            line.push(if subject == "sluice" { self.ratios(case, &figures) } else { String::new() });
            cells.push(line);
        }
        cells
    }

    /// Of the figures that decide: the first one, CPU and the median latency.
    fn ratios(&self, case: &str, figures: &[(&str, &str)]) -> String {
        let mut said = Vec::new();
        for (at, (figure, _)) in figures.iter().enumerate() {
            let own = find(self.rows, case, "sluice", figure);
            let Some((own, best)) = own.zip(best_peer(self.rows, case, figure)) else { continue };
            // Between two commits there is nothing to take off.
            let cpu = if figures.iter().any(|(figure, _)| *figure == ABOVE) { ABOVE } else { BUSY };
            if at == 0 || [cpu, "p50", "p99"].contains(figure) {
                let ratio = own.median / best.median;
                let worse = if more_is_better(figure) { ratio < 0.98 } else { ratio > 1.02 };
                let mark = if worse { " (loses)" } else { "" };
                said.push(format!("{figure} {ratio:.2} ×{mark}"));
            }
        }
        said.join("; ")
    }

    fn facts(&self) -> String {
        let mut seen: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for entry in &self.log.entries {
            let Entry::Found { layout, subject, facts } = entry else { continue };
            let xdp = facts.xdp.as_ref().map_or(String::new(), |xdp| format!("; XDP {xdp}"));
            let line = format!(
                "{subject}: on the wire {}; the server sees {}; {}; congestion control {}{xdp}",
                facts.wire, facts.server_sees, facts.offload, facts.congestion_control
            );
            let layouts = seen.entry(line).or_default();
            if !layouts.contains(&layout.as_str()) {
                layouts.push(layout);
            }
        }
        let line = |(line, layouts): (String, Vec<&str>)| format!("- {line} ({})\n", layouts.join(" · "));
        seen.into_iter().map(line).collect()
    }

    fn faults(&self) -> String {
        let failures = self.log.failures();
        if failures.is_empty() {
            return String::new();
        }
        let line = |(place, why): &(&crate::samples::Place, &str)| {
            let why = why.lines().next().unwrap_or_default();
            format!("- round {}, {}, {}: {why}\n", place.round, place.subject, place.case)
        };
        format!("\n## What failed\n\n{}", failures.iter().map(line).collect::<String>())
    }
}

/// The goals as a terminal shows them.
pub fn goal_table(goals: &[Goal]) -> String {
    table(&goal_cells(goals))
}

fn goal_cells(goals: &[Goal]) -> Vec<Vec<String>> {
    let header = ["goal", "sluice", "wanted", "best peer", ""].map(str::to_owned).to_vec();
    let line = |goal: &Goal| {
        let value = goal.value.map_or("–".into(), rounded);
        let value = if goal.goal.contains('×') && goal.value.is_some() { format!("{value} ×") } else { value };
        let verdict = match (goal.ok, goal.missed) {
            (None, _) => "not measured".into(),
            (Some(true), _) => "met".into(),
            (Some(false), missed) => format!("missed by {:.2} ×", missed.unwrap_or(f64::NAN)),
        };
        vec![goal.figure.clone(), value, goal.goal.clone(), goal.best_peer.clone().unwrap_or_default(), verdict]
    };
    std::iter::once(header).chain(goals.iter().map(line)).collect()
}

fn shown(row: &Row) -> String {
    match row.n {
        1 => rounded(row.median),
        _ => format!("{} ({}–{})", rounded(row.median), rounded(row.min), rounded(row.max)),
    }
}

/// Three digits that mean something.
pub fn rounded(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "–".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.095 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Markdown that also reads well as it stands: words to the left, figures to the right.
pub fn table(cells: &[Vec<String>]) -> String {
    let columns = cells.first().map_or(0, Vec::len);
    let width = |at: usize| cells.iter().filter_map(|line| Some(line.get(at)?.chars().count())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(|at| width(at).max(3)).collect();
    let mut out = String::new();
    for (number, line) in cells.iter().enumerate() {
        let cell = |(at, width): (usize, &usize)| {
            let text = line.get(at).map_or("", String::as_str);
            if at == 0 { format!(" {text:width$} |") } else { format!(" {text:>width$} |") }
        };
        out += &format!("|{}\n", widths.iter().enumerate().map(cell).collect::<String>());
        if number == 0 {
            let rule = |(at, width): (usize, &usize)| {
                let dashes = "-".repeat(*width);
                if at == 0 { format!(" {dashes} |") } else { format!(" {}: |", &dashes[1..]) }
            };
            out += &format!("|{}\n", widths.iter().enumerate().map(rule).collect::<String>());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Place;
    use crate::samples::tests::{sample, terms};
    use crate::{goals, summary};

    fn markdown(entries: Vec<Entry>) -> String {
        let path = std::env::temp_dir().join(format!("bench-report-{:?}.jsonl", std::thread::current().id()));
        let mut log = Log::open(&path, &terms(), true).unwrap();
        entries.into_iter().for_each(|entry| log.add(entry).unwrap());
        std::fs::remove_file(path).unwrap();
        let rows = summary::rows(&log);
        let goals = goals::goals(&rows);
        Report { terms: &terms(), log: &log, rows: &rows, goals: &goals, plots: &[] }.markdown()
    }

    #[test]
    fn losses_stand_in_the_table_as_plainly_as_gains() {
        let busy =
            |subject, value| Entry::Sample(sample(1, "case", subject, &[(BUSY, value, "s/GiB"), ("p50", value, "µs")]));
        let text = markdown(vec![busy("none", 1.0), busy("envoy", 2.0), busy("sluice", 4.0)]);
        let line = text.lines().find(|line| line.starts_with("| sluice")).unwrap();
        assert!(line.contains("CPU above none 3.00 × (loses); p50 2.00 × (loses)"), "{line}");
        assert!(text.contains("CPU above none, s/GiB | CPU busy, s/GiB"), "{text}");
    }

    #[test]
    fn what_failed_is_no_zero_but_an_error_with_its_reason() {
        let place = Place { round: 1, case: "case".into(), subject: "haproxy".into() };
        let text = markdown(vec![
            Entry::ThrownAway { place: place.clone(), foreign: 0.5 },
            Entry::Failed { place, why: "it has ended\nits log".into() },
        ]);
        assert!(text.contains("- round 1, haproxy, case: it has ended\n"), "{text}");
        assert!(text.contains("1 samples with more than 5 % were thrown away"), "{text}");
    }
}
