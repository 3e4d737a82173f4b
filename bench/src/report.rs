//! The report for people: goals, a table for each case, and what the figures stand on.

use crate::figures::more_is_better;
use crate::goals::Goal;
use crate::ratio::{DAYS, RULE, Ratio, Stated, cases, figures, last_column, rounded};
use crate::samples::Terms;
use crate::summary::{Failure, Found, Row, Summary, find};

pub struct Report<'a> {
    pub summary: &'a Summary,
    /// File names, beside the report.
    pub plots: &'a [String],
}

impl Report<'_> {
    pub fn markdown(&self) -> String {
        let mut out = String::from("# Sluice beside its peers\n\n");
        out += &self.machine();
        out += "\n## Goals\n\n";
        out += &table(&goal_cells(&self.summary.goals));
        for plot in self.plots {
            out += &format!("\n![{plot}]({plot})\n");
        }
        for case in cases(&self.summary.cases) {
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
        let Summary { finished, terms, thrown_away, worst_foreign, .. } = self.summary;
        let Terms { environment, scope, rounds, seconds, foreign } = terms;
        let finished = finished.as_deref().unwrap_or("at an unknown time");
        let commit = environment.commit.as_deref().unwrap_or("unknown");
        let quick = match scope {
            crate::plan::Scope::Quick => {
                "\n**A smoke of one short round: it shows that all works, and proves nothing.**\n"
            }
            crate::plan::Scope::Core | crate::plan::Scope::Full => "",
        };
        format!(
            "{} × {}, kernel {}; commit {commit}; {}. Finished {finished}.\n{quick}\n\
             Medians of {rounds} rounds of {seconds} s, contenders in turn; in brackets, least and most; {RULE}; {DAYS}. \
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
            worst_foreign * 100.0,
            thrown_away,
            foreign * 100.0,
        )
    }

    fn cells(&self, case: &str) -> Vec<Vec<String>> {
        let rows = &self.summary.cases;
        let figures = figures(rows, case);
        let unit = |figure: &str| rows.iter().find(|row| row.case == case && row.figure == figure).map(|row| &row.unit);
        let mut subjects: Vec<&str> = Vec::new();
        for row in rows.iter().filter(|row| row.case == case) {
            if !subjects.contains(&row.subject.as_str()) {
                subjects.push(&row.subject);
            }
        }
        let mut header = vec![String::new()];
        header.extend(figures.iter().map(|figure| format!("{figure}, {}", unit(figure).map_or("", String::as_str))));
        header.push("sluice / best peer".into());
        let mut cells = vec![header];
        for subject in subjects {
            let cell = |figure: &&str| find(rows, case, subject, figure).map_or("–".into(), shown);
            let mut line = vec![subject.to_owned()];
            line.extend(figures.iter().map(cell));
            let ratios = if subject == "sluice" { last_column(rows, case, subject) } else { vec![] };
            line.push(ratios.iter().map(said).collect::<Vec<_>>().join("; "));
            cells.push(line);
        }
        cells
    }

    fn facts(&self) -> String {
        let line = |Found { subject, facts, layouts }: &Found| {
            let xdp = facts.xdp.as_ref().map_or(String::new(), |xdp| format!("; XDP {xdp}"));
            format!(
                "- {subject}: on the wire {}; the server sees {}; {}; congestion control {}{xdp} ({})\n",
                facts.wire,
                facts.server_sees,
                facts.offload,
                facts.congestion_control,
                layouts.join(" · ")
            )
        };
        self.summary.found.iter().map(line).collect()
    }

    fn faults(&self) -> String {
        let failed = &self.summary.failed;
        if failed.is_empty() {
            return String::new();
        }
        let line = |Failure { place, why }: &Failure| {
            let why = why.lines().next().unwrap_or_default();
            format!("- round {}, {}, {}: {why}\n", place.round, place.subject, place.case)
        };
        format!("\n## What failed\n\n{}", failed.iter().map(line).collect::<String>())
    }
}

fn said(Stated { figure, ratio, .. }: &Stated) -> String {
    let worse = if more_is_better(figure) { ratio.value < 0.98 } else { ratio.value > 1.02 };
    format!("{figure} {ratio}{}", if worse { ", loses" } else { "" })
}

/// The goals as a terminal shows them.
pub fn goal_table(goals: &[Goal]) -> String {
    table(&goal_cells(goals))
}

fn goal_cells(goals: &[Goal]) -> Vec<Vec<String>> {
    let header = ["goal", "sluice", "wanted", "best peer", ""].map(str::to_owned).to_vec();
    let line = |goal: &Goal| {
        let value = match (goal.value, goal.spread) {
            (None, _) => "–".into(),
            (Some(value), Some(spread)) => Ratio { value, spread }.to_string(),
            (Some(value), None) => rounded(value),
        };
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
    use crate::figures::BUSY;
    use crate::samples::tests::{sample, terms};
    use crate::samples::{Entry, Log, Place};

    fn markdown(entries: Vec<Entry>) -> String {
        let path = std::env::temp_dir().join(format!("bench-report-{:?}.jsonl", std::thread::current().id()));
        let mut log = Log::open(&path, &terms(), true).unwrap();
        entries.into_iter().for_each(|entry| log.add(entry).unwrap());
        std::fs::remove_file(path).unwrap();
        Report { summary: &Summary::of(&terms(), &log, Some("today".into())), plots: &[] }.markdown()
    }

    #[test]
    fn losses_stand_in_the_table_as_plainly_as_gains() {
        let busy =
            |subject, value| Entry::Sample(sample(1, "case", subject, &[(BUSY, value, "s/GiB"), ("p50", value, "µs")]));
        let text = markdown(vec![busy("none", 1.0), busy("envoy", 2.0), busy("sluice", 4.0)]);
        let line = text.lines().find(|line| line.starts_with("| sluice")).unwrap();
        assert!(line.contains("CPU above none 3.00 ×, loses; p50 2.00 ×, loses"), "{line}");
        assert!(text.contains("CPU above none, s/GiB | CPU busy, s/GiB"), "{text}");
    }

    #[test]
    fn every_ratio_stands_with_the_interval_that_its_spread_allows() {
        let trip = "round trip, 1 connection, 2000/s, MTU 1500/1500, offload on";
        let p50 = |round, subject, value| Entry::Sample(sample(round, trip, subject, &[("p50", value, "µs")]));
        let text =
            markdown(vec![p50(1, "envoy", 10.0), p50(2, "envoy", 8.0), p50(1, "sluice", 4.0), p50(2, "sluice", 5.0)]);
        let interval = "0.50 × (0.40–0.63)";
        assert!(text.contains(&format!("p50 {interval}")), "the last column: {text}");
        let goal = text.lines().find(|line| line.starts_with("| round trip p50")).unwrap();
        assert!(goal.contains(interval), "{goal}");
        assert!(text.contains(RULE) && text.contains(DAYS), "{text}");
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
