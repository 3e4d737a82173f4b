//! `bench/scale`: a node with many identities and rules, from its files to what one verdict costs.
//!
//! Twice: [`inline`] in this process, phase by phase in CPU time, and [`live`] with the programs as
//! users run them, on a node of its own, by the clock.

mod files;
mod inline;
mod live;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cli::number;

pub const HELP: &str = "\
bench/scale: what a node with many identities and rules costs, from its files to a verdict.

Writes a configuration with so many WorkloadIdentities and Policy rules. Then, in this process and in
CPU time: reading, issuing, assembling, sending, compiling, a verdict. Then with the programs as users
run them, in a network namespace, by the clock: from the start until all is in force, and from
`sluice apply` of one changed rule until that is. Needs root.

Usage: bench/scale [OPTIONS]

  --identities N      WorkloadIdentities, all of this node [10000]
  --rules N           rules in Policies of 1000 each [100000]
  --changes N         how many changes are timed; the median is shown [5]
  --rotate SECONDS    also watches what the programs spend meanwhile, in CPU time: see --ttl [0]
  --ttl TIME          life of the SVIDs: half of it after the start they are renewed [1h]
  --json              as JSON
  -h, --help          this text

Examples:
  bench/scale
  bench/scale --identities 1000 --rules 10000
  bench/scale --rotate 1200 --ttl 20m      # renewals of all, 9 to 11 minutes after the start
";

#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub identities: usize,
    pub rules: usize,
    pub changes: usize,
    /// Seconds.
    pub rotate: f64,
    pub ttl: String,
    pub json: bool,
}

/// None: help was asked for.
pub fn parse(arguments: &[String]) -> Result<Option<Options>> {
    let mut options =
        Options { identities: 10_000, rules: 100_000, changes: 5, rotate: 0.0, ttl: "1h".into(), json: false };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().cloned().with_context(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--identities" => options.identities = number(argument, &value()?, 1.0, 20_000.0)? as usize,
            "--rules" => options.rules = number(argument, &value()?, 1_000.0, 500_000.0)? as usize,
            "--changes" => options.changes = number(argument, &value()?, 1.0, 1_000.0)? as usize,
            "--rotate" => options.rotate = number(argument, &value()?, 0.0, 86_400.0)?,
            "--ttl" => options.ttl = value()?,
            "--json" => options.json = true,
            "-h" | "--help" => return Ok(None),
            other => bail!("{other} is no option: see bench/scale --help"),
        }
    }
    Ok(Some(options))
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub what: &'static str,
    pub value: f64,
    pub unit: &'static str,
}

pub(crate) fn row(what: &'static str, value: f64, unit: &'static str) -> Row {
    Row { what, value, unit }
}

pub fn run(options: &Options) -> Result<()> {
    let mut rows = inline::measure(options)?;
    rows.extend(live::measure(options)?);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!("{} identities, {} rules\n", options.identities, options.rules);
    let width = rows.iter().map(|row| row.what.len()).max().unwrap_or(0);
    for row in rows {
        println!("{:width$}  {:>10} {}", row.what, shown(row.value), row.unit);
    }
    Ok(())
}

fn shown(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_what_is_said_and_else_those_of_the_issue() {
        let parsed = |line: &str| parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = parsed("").unwrap().unwrap();
        assert_eq!((options.identities, options.rules), (10_000, 100_000));
        let options = parsed("--identities 7 --rules 2000 --json").unwrap().unwrap();
        assert_eq!((options.identities, options.rules, options.json), (7, 2_000, true));
        assert!(parsed("--help").unwrap().is_none());
        for wrong in ["--rules 1", "--rules", "--speed 7"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
