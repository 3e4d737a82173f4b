//! `bench/cut`: how long after a change is in force the last connection that it takes back is cut, with
//! thousands open, and that no other was touched.
//!
//! ```text
//!   frontend (the others)  ┐                      ┌─ the change: a file of node-b's
//!   intruder (the matching)┴ node-a ── wire ── node-b ── server
//! ```
//! Both callers' connections stand, each having carried a message. Then one file of node-b changes: an ID
//! or a serial is revoked, a root is dropped, a rule is taken out. From then on every socket is watched:
//! the matching ones have to hear an end, and the others have to hear nothing and still to be answered.
//! The change counts as in force from when node-b was last *asked* and still said that it was not.

mod site;
mod watch;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::cli::number;
use crate::contender::server;
use crate::cpu::Reading;
use crate::load::held;
use crate::report::table;
use site::{Change, Cutting};
use watch::Watched;

pub const HELP: &str = "\
bench/cut: from a change in force to the last connection cut that it takes back.

Opens connections of two callers through both gateways, takes one of the two back by a revoked ID, a
revoked serial, a dropped root and a rule taken out, one after the other, and says how long each took:
from the file's rename to in force, and from there to the last end that a caller heard. Fails if a
matching one is left, or another one was touched.

Usage: bench/cut [OPTIONS]

  --connections N   open at once [10000]
  --matching N      how many of them the change takes back [5000]
  --rounds N        of all four changes [1]
  -o json           for programs
  -h, --help        this text

Exits with 0 if all was cut within a second and nothing else touched, 1 if not, 2 if the command is
wrong.
";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub connections: u32,
    pub matching: u32,
    pub rounds: u32,
    pub json: bool,
}

/// What one change came to; times in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub change: &'static str,
    pub matching: u32,
    pub others: u32,
    /// From the file's rename until node-b said that it is in force.
    pub in_force: f64,
    /// From in force to the first and the last end that a matching caller heard.
    pub first: f64,
    pub last: f64,
    /// Connections of the others that heard anything, or were not answered after.
    pub touched: u32,
    /// CPU time of all that is the bench's, gateways, kernel and both callers, from the rename on.
    pub cpu: f64,
    /// The share of the machine that strangers had meanwhile.
    pub foreign: f64,
}

/// The promise: within a second of being in force.
const PROMISE: f64 = 1000.0;

/// A matching connection that has not ended by then is left.
const PATIENCE: Duration = Duration::from_secs(20);

/// None: help was asked for.
pub fn parse(arguments: &[String]) -> Result<Option<Options>> {
    let mut options = Options { connections: 10_000, matching: 5_000, rounds: 1, json: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--connections" => options.connections = number(argument, value()?, 2.0, 17000.0)? as u32,
            "--matching" => options.matching = number(argument, value()?, 1.0, 17000.0)? as u32,
            "--rounds" => options.rounds = number(argument, value()?, 1.0, 100.0)? as u32,
            "-o" => match value()?.as_str() {
                "json" => options.json = true,
                other => bail!("-o {other}: use json"),
            },
            other => bail!("there is no option {other}; bench/cut --help lists them"),
        }
    }
    let Options { connections, matching, .. } = options;
    ensure!((1..connections).contains(&matching), "--matching {matching}: use 1 to {}", connections.saturating_sub(1));
    Ok(Some(options))
}

/// Whether every change kept the promise.
pub fn run(options: &Options) -> Result<bool> {
    crate::files::ensure_enough(options.connections)?;
    let site = Cutting::lay()?;
    let others = options.connections - options.matching;
    eprintln!("opening {others} connections that no change is about");
    let others = site.in_frontend(|| held::open(server(), others))??;
    let mut rows = Vec::new();
    for _ in 0..options.rounds {
        for change in Change::ALL {
            rows.push(measure(&site, change, options.matching, &others)?);
        }
    }
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&rows)?),
        false => print!("{}", text(&rows)),
    }
    Ok(rows.iter().all(|row| row.last <= PROMISE && row.touched == 0))
}

fn measure(site: &Cutting, change: Change, count: u32, others: &[std::net::TcpStream]) -> Result<Row> {
    eprintln!("{}: opening {count} connections that it takes back", change.name());
    let matching = site.in_intruder(|| held::open(server(), count))??;
    let (mut matching, mut untouched) = (Watched::new(&matching)?, Watched::new(others)?);
    let (gateways, root) = (site.gateways(), std::process::id());
    let before = Reading::take(&gateways, root)?;
    let written = Instant::now();
    let forced = site.make(change)?;
    let ends = matching.until_all_ended(written + PATIENCE);
    let spent = before.until(&Reading::take(&gateways, root)?);
    let forced = forced.join().map_err(|_| anyhow::anyhow!("asking node-b panicked"))??;
    ensure!(
        ends.len() == count as usize,
        "{}: {} of {count} were cut within {PATIENCE:?}; node-b's log:\n{}",
        change.name(),
        ends.len(),
        site.node_b.tail()
    );
    let since = |at: Instant| at.saturating_duration_since(forced.asked).as_secs_f64() * 1000.0;
    let (first, last) = (ends.iter().min().copied(), ends.iter().max().copied());
    let touched = untouched.heard() + watch::unanswered(others);
    site.undo(change)?;
    Ok(Row {
        change: change.name(),
        matching: count,
        others: others.len() as u32,
        in_force: forced.said.duration_since(written).as_secs_f64() * 1000.0,
        first: since(first.context("there is at least one")?),
        last: since(last.context("there is at least one")?),
        touched,
        cpu: spent.own() * 1000.0,
        foreign: spent.foreign_share(std::thread::available_parallelism()?.get()),
    })
}

fn text(rows: &[Row]) -> String {
    let mut lines = vec![
        [
            "change",
            "matching",
            "others",
            "to in force, ms",
            "to first cut, ms",
            "to last cut, ms",
            "others touched",
            "CPU, ms",
            "foreign load",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    lines.extend(rows.iter().map(|row| {
        let Row { change, matching, others, in_force, first, last, touched, cpu, foreign } = row;
        vec![
            (*change).to_owned(),
            matching.to_string(),
            others.to_string(),
            format!("{in_force:.0}"),
            format!("{first:.1}"),
            format!("{last:.1}"),
            touched.to_string(),
            format!("{cpu:.0}"),
            format!("{:.0} %", foreign * 100.0),
        ]
    }));
    table(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Options>> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_that_would_measure_nothing_is_refused() {
        let default = Options { connections: 10_000, matching: 5_000, rounds: 1, json: false };
        assert_eq!(parsed("").unwrap(), Some(default.clone()));
        let few = parsed("--connections 100 --matching 1 -o json").unwrap();
        assert_eq!(few, Some(Options { connections: 100, matching: 1, json: true, ..default }));
        assert_eq!(parsed("--help").unwrap(), None);
        for wrong in ["--matching 0", "--matching 10000", "--rounds 0", "--connections 1 --matching 1", "-o xml", "x"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
