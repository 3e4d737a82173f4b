//! The command line of `bench/run`.

use anyhow::{Context, Result, bail, ensure};

use crate::contender::Contender;
use crate::plan::Scope;

pub const HELP: &str = "\
bench/run: measures Sluice beside HAProxy, nginx, Envoy and plain forwarding, in one run, here.

Lays client, gateway A, wire, gateway B and server as network namespaces, once for each turn of a
contender, and removes them at the end, also on Ctrl-C or failure. A run that was interrupted goes
on where it was. Needs root, and what `deploy/setup.sh bench` installs. Let nothing else run on the
machine meanwhile: samples with foreign load are thrown away and taken again.

Usage: bench/run [OPTIONS]           make bench, QUICK=1 make bench, FULL=1 make bench

  --quick             one short round of the core cases: shows that all works, proves nothing
  --full              every case
  --case PART         only cases whose name contains this; may be given several times
  --contenders NAMES  none, haproxy, nginx, envoy, sluice, divided by commas [all of them]
  --rounds N          how often all of it is done; the report shows medians [3]
  --seconds S         how long a stream is timed; connections and requests take 5/4 of it [2.5; full: 5]
  --foreign PERCENT   share of the machine that others may use during a sample [5; quick: 100]
  --fresh             forgets an interrupted run
  --round N           only this one of the rounds
  --as NAME           writes Sluice's samples under this name: for bench/compare
  --against EARLIER   compares with that run's summary.json, ratio by ratio: see bench/agree --help
  --list              the names of the cases, and how long the run takes
  --out DIRECTORY     for samples.jsonl, summary.json, report.md and plots [target/bench]
  -h, --help          this text

Examples:
  bench/run
  bench/run --case 'new connections' --contenders none,envoy,sluice --rounds 5
  bench/run --case 'memory' --seconds 1
  SLUICE_BIN_DIR=/usr/lib/sluice bench/run --quick      # programs of another build
  BENCH_ENVOY=/usr/bin/envoy bench/run                  # another Envoy
  BENCH_XDP=native bench/run --case bulk --fresh        # Sluice's ports in their default mode, not generic

Exits with 0 if every sample was taken: every contender came up, verified its clients, and carried
what it was asked to; with --against, also only if all that can be compared agrees. With 1 if not,
with 2 if the command is wrong.
";

#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub scope: Scope,
    /// Parts of names. Empty: all.
    pub cases: Vec<String>,
    pub contenders: Vec<Contender>,
    pub rounds: u32,
    pub seconds: f64,
    /// As a share.
    pub foreign: f64,
    pub fresh: bool,
    pub list: bool,
    /// The summary of an earlier run.
    pub against: Option<String>,
    pub round: Option<u32>,
    /// What Sluice is called in the samples.
    pub sluice: String,
    pub out: String,
}

/// None: help was asked for.
pub fn parse(arguments: &[String]) -> Result<Option<Options>> {
    let mut options = Options {
        scope: Scope::Core,
        cases: vec![],
        contenders: Contender::ALL.to_vec(),
        rounds: 3,
        seconds: 2.5,
        foreign: 0.05,
        fresh: false,
        list: false,
        against: None,
        round: None,
        sluice: "sluice".into(),
        out: "target/bench".into(),
    };
    // First, wherever they stand: what is said beside them has the last word.
    if arguments.iter().any(|argument| argument == "--full") {
        options.seconds = 5.0;
    }
    if arguments.iter().any(|argument| argument == "--quick") {
        (options.scope, options.rounds, options.seconds, options.foreign) = (Scope::Quick, 1, 0.6, 1.0);
    }
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value =
            || inline.clone().or_else(|| rest.next().cloned()).with_context(|| format!("{name} needs a value"));
        match name {
            "--quick" => {}
            "--full" => options.scope = Scope::Full,
            "--case" => options.cases.push(value()?),
            "--contenders" => options.contenders = contenders(&value()?)?,
            "--rounds" => options.rounds = number(name, &value()?, 1.0, 100.0)? as u32,
            "--seconds" => options.seconds = number(name, &value()?, 0.2, 60.0)?,
            "--foreign" => options.foreign = number(name, &value()?, 0.0, 100.0)? / 100.0,
            "--round" => options.round = Some(number(name, &value()?, 1.0, 100.0)? as u32),
            "--as" => options.sluice = value()?,
            "--fresh" => options.fresh = true,
            "--against" => options.against = Some(value()?),
            "--list" => options.list = true,
            "--out" => options.out = value()?,
            "-h" | "--help" => return Ok(None),
            other => bail!("{other} is no option: see bench/run --help"),
        }
    }
    Ok(Some(options))
}

pub(crate) fn number(name: &str, text: &str, least: f64, most: f64) -> Result<f64> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.with_context(|| format!("{name} is {text}: use a number from {least} to {most}"))
}

/// In their own order, each once.
fn contenders(text: &str) -> Result<Vec<Contender>> {
    let names: Vec<&str> = text.split(',').map(str::trim).collect();
    for wanted in &names {
        let known = || Contender::ALL.map(Contender::name).join(", ");
        let found = Contender::ALL.iter().any(|one| one.name() == *wanted);
        ensure!(found, "--contenders is {wanted}: there are {}", known());
    }
    Ok(Contender::ALL.into_iter().filter(|one| names.contains(&one.name())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Option<Options>> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_taken_with_a_blank_or_an_equals_sign() {
        let options = parsed("--case=round --rounds 9 --seconds=0.5 --contenders sluice,none").unwrap().unwrap();
        assert_eq!((options.cases, options.rounds, options.seconds), (vec!["round".to_owned()], 9, 0.5));
        assert_eq!(options.contenders, [Contender::None, Contender::Sluice]);
        assert_eq!(parsed("--quick --help").unwrap(), None);
        assert_eq!(parsed("--quick --foreign 7").unwrap().unwrap().foreign, 0.07);
    }

    #[test]
    fn quick_takes_nothing_back_that_is_said_beside_it() {
        let options = parsed("--rounds 2 --quick").unwrap().unwrap();
        assert_eq!((options.rounds, options.scope), (2, Scope::Quick));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (line, want) in [
            ("--contenders traefik", "--contenders is traefik: there are none, haproxy, nginx, envoy, sluice"),
            ("--rounds 0", "--rounds is 0: use a number from 1 to 100"),
            ("--seconds x", "--seconds is x: use a number from 0.2 to 60"),
            ("--rounds", "--rounds needs a value"),
            ("--fast", "--fast is no option: see bench/run --help"),
        ] {
            assert_eq!(parsed(line).unwrap_err().to_string(), want, "{line}");
        }
    }
}
