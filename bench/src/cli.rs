//! The command line of `compare`.

use anyhow::{Context, Result, bail, ensure};

use crate::contender::Contender;
use crate::plan::Case;

pub const HELP: &str = "\
compare: measures Sluice beside HAProxy and plain forwarding, in one run on this machine.

Lays client, gateway A, wire, gateway B and server as network namespaces, once for each turn of a
contender, and removes them at the end, also on Ctrl-C or failure. Needs root, and Debian's haproxy,
iproute2, ethtool and openssl. Sluice's programs are taken from the directory that SLUICE_BIN_DIR
names, or else from beside this one. Let nothing else run on the machine meanwhile.

Usage: compare [OPTIONS]

  --case NAMES        bulk, connections, roundtrip, divided by commas [all of them]
  --contenders NAMES  none, haproxy, sluice, divided by commas [all of them]
  --runs N            how often all of it is done; the table shows medians [3]
  --seconds S         how long each task is timed; connections take 5/4 of it [4]
  --quick             one run of 1 second: shows that all works, proves nothing
  --out DIRECTORY     where compare.json and compare.md go [target/bench]
  -h, --help          this text

Examples:
  sudo target/release/compare
  sudo target/release/compare --quick
  sudo target/release/compare --case roundtrip --runs 9
  sudo target/release/compare --case bulk --contenders haproxy,sluice --seconds 10
  sudo SLUICE_BIN_DIR=/usr/lib/sluice target/release/compare --case connections

Exits with 0 if every turn of every contender came up and everything it carried added up.
";

#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub cases: Vec<Case>,
    pub contenders: Vec<Contender>,
    pub runs: u32,
    pub seconds: f64,
    pub out: String,
}

/// None: help was asked for.
pub fn parse(arguments: &[String]) -> Result<Option<Options>> {
    let mut options = Options {
        cases: Case::ALL.to_vec(),
        contenders: Contender::ALL.to_vec(),
        runs: 3,
        seconds: 4.0,
        out: "target/bench".into(),
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value =
            || inline.clone().or_else(|| rest.next().cloned()).with_context(|| format!("{name} needs a value"));
        match name {
            "--case" => options.cases = chosen(name, &value()?, &Case::ALL, Case::name)?,
            "--contenders" => options.contenders = chosen(name, &value()?, &Contender::ALL, Contender::name)?,
            "--runs" => {
                let text = value()?;
                options.runs = text
                    .parse()
                    .ok()
                    .filter(|runs| (1..=100).contains(runs))
                    .with_context(|| format!("--runs is {text}: use a number from 1 to 100"))?;
            }
            "--seconds" => {
                let text = value()?;
                options.seconds = text
                    .parse()
                    .ok()
                    .filter(|s| (0.2..=60.0).contains(s))
                    .with_context(|| format!("--seconds is {text}: use a number from 0.2 to 60"))?;
            }
            "--quick" => (options.runs, options.seconds) = (1, 1.0),
            "--out" => options.out = value()?,
            "-h" | "--help" => return Ok(None),
            other => bail!("{other} is no option: see compare --help"),
        }
    }
    Ok(Some(options))
}

/// In the order of `all`, each once.
fn chosen<T: Copy>(option: &str, text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<Vec<T>> {
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    for wanted in &names {
        let known = || all.iter().map(|one| name(*one)).collect::<Vec<_>>().join(", ");
        ensure!(all.iter().any(|one| name(*one) == *wanted), "{option} is {wanted}: there are {}", known());
    }
    Ok(all.iter().filter(|one| names.contains(&name(**one))).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Options>> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_taken_with_a_blank_or_an_equals_sign() {
        let options = parsed("--case=roundtrip,bulk --runs 9 --seconds=0.5 --contenders sluice").unwrap().unwrap();
        assert_eq!(options.cases, [Case::Bulk, Case::RoundTrip]);
        assert_eq!(options.contenders, [Contender::Sluice]);
        assert_eq!((options.runs, options.seconds), (9, 0.5));
        assert_eq!(parsed("--quick --help").unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (line, want) in [
            ("--case latency", "--case is latency: there are bulk, connections, roundtrip"),
            ("--runs 0", "--runs is 0: use a number from 1 to 100"),
            ("--seconds x", "--seconds is x: use a number from 0.2 to 60"),
            ("--runs", "--runs needs a value"),
            ("--fast", "--fast is no option: see compare --help"),
        ] {
            assert_eq!(parsed(line).unwrap_err().to_string(), want, "{line}");
        }
    }
}
