//! What came of it: medians in a table for people, every run in JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::contender::Contender;
use crate::environment::Environment;
use crate::load::Measured;
use crate::plan::{Layout, Task};
use crate::stage::Facts;

#[derive(Debug, Serialize)]
pub struct Report {
    pub environment: Environment,
    pub runs: u32,
    pub seconds: f64,
    pub rows: Vec<Row>,
    pub facts: Vec<(Contender, Layout, Facts)>,
    /// Why these figures may be worth less.
    pub warnings: Vec<String>,
}

/// One contender's results in one task and layout.
#[derive(Debug, Serialize)]
pub struct Row {
    pub task: Task,
    pub layout: Layout,
    pub contender: Contender,
    pub figures: Vec<Figure>,
    /// Runs that failed; they have no figures.
    pub errors: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub median: f64,
    pub runs: Vec<f64>,
}

/// A table: its title, its header, its rows.
struct Table {
    title: &'static str,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Report {
    pub fn new(environment: Environment, runs: u32, seconds: f64) -> Self {
        Self { environment, runs, seconds, rows: vec![], facts: vec![], warnings: vec![] }
    }

    fn row(&mut self, task: Task, layout: Layout, contender: Contender) -> &mut Row {
        let same = |row: &Row| row.task == task && row.layout == layout && row.contender == contender;
        let at = self.rows.iter().position(same).unwrap_or_else(|| {
            self.rows.push(Row { task, layout, contender, figures: vec![], errors: vec![] });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// `idle` is how many CPUs were busy before the contender started.
    pub fn add(&mut self, task: Task, layout: Layout, contender: Contender, measured: &Measured, idle: f64) {
        let cpus = self.environment.cpus as f64;
        let place = format!("{contender}, {layout}, {}", task.title());
        if idle / cpus > BUSY {
            let share = idle / cpus * 100.0;
            self.warnings.push(format!("{place}: the machine was {share:.0} % busy before it began"));
        }
        let stolen = measured.spent.stolen / measured.spent.seconds / cpus * 100.0;
        if stolen > 2.0 {
            self.warnings.push(format!("{place}: the hypervisor took {stolen:.0} % of the CPU time"));
        }
        let row = self.row(task, layout, contender);
        for (name, value) in figures(task, measured, idle, cpus) {
            match row.figures.iter_mut().find(|figure| figure.name == name) {
                Some(figure) => figure.runs.push(value),
                None => row.figures.push(Figure { name, median: 0.0, runs: vec![value] }),
            }
        }
        row.figures.iter_mut().for_each(|figure| figure.median = median(&figure.runs));
    }

    pub fn fail(&mut self, task: Task, layout: Layout, contender: Contender, error: &anyhow::Error) {
        self.row(task, layout, contender).errors.push(format!("{error:#}"));
    }

    pub fn found(&mut self, contender: Contender, layout: Layout, facts: &Facts) {
        let entry = (contender, layout, facts.clone());
        if !self.facts.contains(&entry) {
            self.facts.push(entry);
        }
    }

    pub fn failed(&self) -> bool {
        self.rows.iter().any(|row| !row.errors.is_empty())
    }

    fn tables(&self) -> Vec<Table> {
        Task::ALL.iter().filter_map(|task| self.table(*task)).collect()
    }

    fn table(&self, task: Task) -> Option<Table> {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.task == task).collect();
        let names: Vec<&str> = rows
            .iter()
            .find(|row| !row.figures.is_empty())
            .map_or(vec![], |row| row.figures.iter().map(|figure| figure.name).collect());
        let header = ["contender", "outside", "inside"].into_iter().chain(names).map(str::to_owned);
        let header = header.chain(["spread".to_owned(), "beside haproxy".to_owned()]).collect();
        let rows: Vec<_> = rows.iter().map(|row| self.cells(row)).collect();
        (!rows.is_empty()).then(|| Table { title: task.title(), header, rows })
    }

    fn cells(&self, row: &Row) -> Vec<String> {
        let layout = [row.layout.outside, row.layout.inside].map(|mtu| mtu.to_string());
        let mut cells = vec![row.contender.to_string()];
        cells.extend(layout);
        cells.extend(row.figures.iter().map(|figure| rounded(figure.median)));
        if let Some(first) = row.figures.first() {
            let low = first.runs.iter().copied().fold(f64::INFINITY, f64::min);
            let high = first.runs.iter().copied().fold(0.0, f64::max);
            cells.push(format!("{}–{}", rounded(low), rounded(high)));
            cells.push(self.beside(row).unwrap_or_default());
        }
        if !row.errors.is_empty() {
            cells.push(format!("{} of {} runs FAILED", row.errors.len(), self.runs));
        }
        cells
    }

    /// Ratios to HAProxy's row of the same task and layout: the first figure, and the machine's CPU.
    fn beside(&self, row: &Row) -> Option<String> {
        let peer = self.rows.iter().find(|other| {
            other.contender == Contender::Haproxy && other.task == row.task && other.layout == row.layout
        })?;
        let ratio = |at: usize| Some(row.figures.get(at)?.median / peer.figures.get(at)?.median);
        let cpu = row.figures.iter().position(|figure| figure.name.starts_with(CPU))?;
        (row.contender != Contender::Haproxy).then_some(())?;
        Some(format!("{} ×, CPU {} ×", rounded(ratio(0)?), rounded(ratio(cpu)?)))
    }

    fn notes(&self) -> Vec<String> {
        let environment = &self.environment;
        let mut notes = vec![
            format!("Machine: {} × {}, kernel {}.", environment.cpus, environment.cpu, environment.kernel),
            format!(
                "Versions: {}; commit {}.",
                environment.versions.join("; "),
                environment.commit.as_deref().unwrap_or("unknown")
            ),
            format!(
                "Medians of {} runs of {} s; contenders in turn, each in newly laid namespaces.",
                self.runs, self.seconds
            ),
        ];
        notes.extend(METHOD.iter().map(|line| (*line).to_owned()));
        let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (contender, layout, facts) in &self.facts {
            seen.entry(facts_line(*contender, facts))
                .or_default()
                .push(format!("{}/{}", layout.outside, layout.inside));
        }
        notes.extend(seen.into_iter().map(|(line, layouts)| format!("{line} (MTU {}).", layouts.join(", "))));
        notes
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        for table in self.tables() {
            out += &format!("{}\n{}\n", table.title, aligned(&table));
        }
        let mut end = String::new();
        self.end(&mut end, "");
        out + &end.lines().map(wrapped).collect::<String>()
    }

    pub fn markdown(&self) -> String {
        let mut out = String::from("# Sluice beside its peers\n\n");
        for table in self.tables() {
            out += &format!("## {}\n\n| {} |\n", table.title, table.header.join(" | "));
            out += &format!("|{}\n", " --- |".repeat(table.header.len()));
            for row in &table.rows {
                out += &format!("| {} |\n", row.join(" | "));
            }
            out.push('\n');
        }
        self.end(&mut out, "- ");
        out
    }

    fn end(&self, out: &mut String, bullet: &str) {
        for note in self.notes() {
            *out += &format!("{bullet}{note}\n");
        }
        for row in &self.rows {
            for error in &row.errors {
                *out += &format!("{bullet}FAILED: {}, {}, {}: {error}\n", row.contender, row.layout, row.task.title());
            }
        }
        for warning in &self.warnings {
            *out += &format!("{bullet}WARNING: {warning}\n");
        }
    }
}

const CPU: &str = "CPU-s";

/// Shares of the machine in other hands that are worth a warning, and that make its CPU time no figure.
const BUSY: f64 = 0.05;
const TOO_BUSY: f64 = 0.25;

/// What cannot be read from the figures.
const METHOD: [&str; 6] = [
    "CPU: busy time of the whole machine (client, server, wire and both gateways; user, nice, system, irq, softirq) \
     less what it was busy with before the contender started. \"gateways\": user and system time of the gateways' \
     processes; softirq work on a veth is billed to whoever sends, so not all of it is theirs, and not all of \
     theirs is in it.",
    "Layout: free. Client, server and HAProxy run where the scheduler puts them; Sluice pins its workers, A to the \
     first CPU and B to the last. On few CPUs all of them share.",
    "Offloads are the kernel's defaults. An XDP program turns its peer's TSO off, so beside Sluice the kernel sends \
     segments of the MTU, beside the others segments of 64 KiB.",
    "HAProxy: one thread, mode tcp, explicit addresses, the same authority and depth of chain, TLS 1.3 with \
     TLS_AES_128_GCM_SHA256, both sides verify the chain but no SPIFFE ID; no resumption. Sluice: transparent, one \
     worker, SPIFFE IDs and policy checked.",
    "Each connection of the connections task: connect, one request and one answer of 64 bytes, close by the client.",
    "Of the tunnel's TCP, Sluice runs its own; the kernel's congestion control below holds for client and server, and \
     for HAProxy's legs.",
];

fn facts_line(contender: Contender, facts: &Facts) -> String {
    let xdp = facts.xdp.as_ref().map_or(String::new(), |xdp| format!("; XDP {xdp}"));
    format!(
        "{contender}: on the wire {}; the server sees {}; TSO {}; congestion control {}{xdp}",
        facts.wire, facts.server_sees, facts.tso, facts.congestion_control
    )
}

/// CPU time of the machine is not a number if others used too much of it to be taken off.
fn figures(task: Task, measured: &Measured, idle: f64, cpus: f64) -> Vec<(&'static str, f64)> {
    let spent = measured.spent;
    let machine = if idle / cpus > TOO_BUSY { f64::NAN } else { spent.machine - idle * spent.seconds };
    let (gib, thousands) = (measured.bytes as f64 / f64::from(1 << 30), measured.count as f64 / 1000.0);
    let mut figures = Vec::new();
    match task {
        Task::Upload | Task::Download => {
            figures.push(("Gbit/s", measured.bytes as f64 * 8.0 / 1e9 / spent.seconds));
            figures.push(("CPU-s/GiB", machine / gib));
            figures.push(("gateways", spent.processes / gib));
        }
        Task::Connections => {
            figures.push(("/s", measured.count as f64 / spent.seconds));
            figures.push(("CPU-s/1000", machine / thousands));
            figures.push(("gateways", spent.processes / thousands));
            figures
                .extend(measured.latency.iter().flat_map(|l| [("p50 ms", l.p50 / 1000.0), ("p99 ms", l.p99 / 1000.0)]));
        }
        Task::RoundTrip => {
            figures.extend(
                measured.latency.iter().flat_map(|l| [("p50 µs", l.p50), ("p99 µs", l.p99), ("p99.9 µs", l.p999)]),
            );
            figures.push(("CPU-s/1000", machine / thousands));
            figures.push(("gateways", spent.processes / thousands));
        }
    }
    figures
}

fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return f64::NAN;
    }
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Three digits that mean something.
fn rounded(value: f64) -> String {
    match value {
        _ if !value.is_finite() => "–".into(),
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ if value >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// At a width that is read with ease.
fn wrapped(line: &str) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in line.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > 110 {
            out += "\n    ";
            column = 4;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out += word;
        column += width;
    }
    out + "\n"
}

/// Words to the left, figures to the right.
fn aligned(table: &Table) -> String {
    let all: Vec<&Vec<String>> = std::iter::once(&table.header).chain(&table.rows).collect();
    let columns = all.iter().map(|row| row.len()).max().unwrap_or(0);
    let width =
        |at: usize| all.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for row in &all {
        let mut line = String::new();
        for at in 0..columns {
            let cell = row.get(at).map_or("", String::as_str);
            let width = width(at);
            line += &if at == 0 { format!("  {cell:width$}") } else { format!("  {cell:>width$}") };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Spent;
    use crate::plan::BASE;

    fn report() -> Report {
        let environment = Environment {
            kernel: "6.18".into(),
            cpu: "a CPU".into(),
            cpus: 2,
            versions: vec!["sluice 0".into()],
            commit: None,
        };
        Report::new(environment, 3, 4.0)
    }

    /// So many GiB in four seconds, with so much CPU.
    fn bulk(gib: u64, machine: f64) -> Measured {
        let spent = Spent { seconds: 4.0, machine, stolen: 0.0, processes: 1.0 };
        let seen_as = "198.18.1.2:1".parse().unwrap();
        Measured { spent, bytes: gib << 30, count: 1, latency: None, seen_as }
    }

    #[test]
    fn the_table_shows_medians_less_the_idle_machine_and_ratios_to_haproxy() {
        let mut report = report();
        for (gib, machine) in [(1, 3.0), (4, 4.4), (2, 5.0)] {
            report.add(Task::Upload, BASE, Contender::Sluice, &bulk(gib, machine), 0.1);
        }
        report.add(Task::Upload, BASE, Contender::Haproxy, &bulk(1, 2.4), 0.1);
        let sluice = &report.rows[0];
        assert_eq!(sluice.figures[1].runs, [2.6, 1.0, 2.3], "CPU-s per GiB");
        let cells = report.cells(sluice);
        assert_eq!(cells, ["sluice", "1500", "1500", "4.29", "2.30", "0.50", "2.15–8.59", "2.00 ×, CPU 1.15 ×"]);
        assert!(report.warnings.is_empty() && !report.failed());
        let text = report.text();
        assert!(text.lines().any(|line| line.trim_start().starts_with("sluice  ") && line.contains("4.29")), "{text}");
    }

    #[test]
    fn what_failed_is_no_zero_but_an_error_with_its_reason() {
        let mut report = report();
        report.fail(Task::Upload, BASE, Contender::Haproxy, &anyhow::anyhow!("it has ended"));
        assert!(report.failed());
        let text = report.text();
        assert!(text.contains("1 of 3 runs FAILED") && text.contains("it has ended"), "{text}");
    }

    #[test]
    fn cpu_time_on_a_machine_that_others_use_is_no_figure_and_warned_of() {
        let mut report = report();
        report.add(Task::Upload, BASE, Contender::None, &bulk(1, 8.0), 1.9);
        assert_eq!(report.cells(&report.rows[0])[4], "–");
        assert!(report.warnings[0].contains("95 % busy"), "{:?}", report.warnings);
        assert!(report.text().contains("WARNING"));
    }
}
