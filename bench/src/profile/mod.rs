//! `bench/profile`: what a case costs, by cost: where the whole machine's busy time goes, under names
//! that a person understands.
//!
//! [`perf`] looks at every CPU while the load works, and only what it saw in the timed part counts:
//! the load tells when that was, by the same clock. [`script`] reads it, [`rules`] say what each
//! sample counts for, and [`costs`] adds up.

mod costs;
mod perf;
mod rules;
mod script;

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::cli::number;
use crate::contender::Contender;
use crate::environment::Environment;
use crate::figures::{self, BUSY};
use crate::plan::{Scope, Turn, Work, case, turns};
use crate::ratio::rounded;
use crate::stage::{NO_SABOTAGE, Stage};
use crate::{cpu, files};
use costs::Costs;
use rules::Who;
use script::Sample;

pub const HELP: &str = "\
bench/profile: the largest costs of a case, by perf, as shares of the machine's busy time.

Lays a case as bench/run does, with perf record looking at every CPU, and counts what it saw in the
timed part. Each sample counts for one cost: its stack is read from the innermost frame outwards,
and the first that a rule of bench/src/profile/rules.rs knows decides. Builds Sluice once more, with
frame pointers, so that stacks are whole.

Usage: bench/profile [OPTIONS]

  --case PART         cases whose name contains this; may be given several times
                      [bulk, connections and round trips at MTU 1500, one case each]
  --contender NAME    none, haproxy, nginx, envoy, sluice [sluice]
  --top N             how many costs are named [5]
  --seconds S         how long a stream is timed; connections and requests take 5/4 of it [2.5]
  --foreign PERCENT   share of the machine that others may use meanwhile [5]
  --out DIRECTORY     for profile.md and perf's own files, for perf report [target/bench]
  -h, --help          this text

Examples:
  bench/profile
  bench/profile --case 'bulk, 8 streams, MTU 1500/1500, offload on' --contender envoy --top 8

Exits with 0 if every case was profiled, 1 if not, 2 if the command is wrong.
";

/// One for each path of the gateway.
const PATHS: [&str; 3] = [
    "bulk, 1 stream, MTU 1500/1500, offload on",
    "new connections, 16 clients, MTU 1500/1500, offload on",
    "round trip, 1 connection, 2000/s, MTU 1500/1500, offload on",
];

/// How often a profile is taken again that strangers disturbed.
const TRIES: u32 = 3;

#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Parts of names. Empty: [`PATHS`].
    pub cases: Vec<String>,
    pub contender: Contender,
    pub top: usize,
    pub seconds: f64,
    /// As a share.
    pub foreign: f64,
    pub out: String,
}

/// None: help was asked for. An error also for cases that there are none of.
pub fn parse(arguments: &[String]) -> Result<Option<Options>> {
    let mut options = Options {
        cases: vec![],
        contender: Contender::Sluice,
        top: 5,
        seconds: 2.5,
        foreign: 0.05,
        out: "target/bench".into(),
    };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{name} needs a value"));
        match name.as_str() {
            "--case" => options.cases.push(value()?.clone()),
            "--contender" => {
                let wanted = value()?;
                let known = Contender::ALL.into_iter().find(|contender| contender.name() == wanted);
                let names = || Contender::ALL.map(Contender::name).join(", ");
                options.contender = known.with_context(|| format!("--contender is {wanted}: there are {}", names()))?;
            }
            "--top" => options.top = number(name, value()?, 1.0, 100.0)? as usize,
            "--seconds" => options.seconds = number(name, value()?, 0.2, 60.0)?,
            "--foreign" => options.foreign = number(name, value()?, 0.0, 100.0)? / 100.0,
            "--out" => options.out.clone_from(value()?),
            "-h" | "--help" => return Ok(None),
            other => bail!("{other} is no option: see bench/profile --help"),
        }
    }
    ensure!(
        !chosen(&options).is_empty(),
        "there is no such case of {}: see bench/run --full --list",
        options.contender
    );
    Ok(Some(options))
}

fn chosen(options: &Options) -> Vec<Turn> {
    let wanted = |name: &str| match options.cases.is_empty() {
        true => PATHS.contains(&name),
        false => options.cases.iter().any(|part| name.contains(part)),
    };
    let mut turns = turns(Scope::Full, &[options.contender], &wanted);
    // No time to be busy in: it opens connections and waits.
    turns.iter_mut().for_each(|turn| turn.works.retain(|work| !matches!(work, Work::Idle { .. })));
    turns.retain(|turn| !turn.works.is_empty());
    turns
}

/// Whether every case was profiled.
pub fn run(options: &Options) -> Result<bool> {
    files::take_all()?;
    let out = Path::new(&options.out);
    std::fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
    let environment = Environment::read(&[options.contender])?;
    let mut text = heading(&environment);
    let (mut number, mut whole) = (0, true);
    for turn in chosen(options) {
        for work in &turn.works {
            number += 1;
            let name = case(*work, &turn.layout);
            eprintln!("bench/profile: {}, {name}", turn.contender);
            // Laid for itself: what one piece of work leaves behind is no cost of the next.
            let profiled = profile(&turn, *work, &out.join(format!("perf-{number}.data")), options, environment.cpus);
            text += &format!("\n## {name}: {}\n\n", turn.contender);
            text += &profiled.unwrap_or_else(|error| {
                whole = false;
                eprintln!("    FAILED: {error:#}");
                format!("Failed: {error:#}\n")
            });
        }
    }
    std::fs::write(out.join("profile.md"), &text)?;
    println!("{text}");
    println!("in {}: profile.md, and perf-N.data for perf report", out.display());
    Ok(whole)
}

fn heading(environment: &Environment) -> String {
    let commit = environment.commit.as_deref().unwrap_or("unknown");
    format!(
        "# The largest costs\n\n{} × {}, kernel {}; commit {commit}; {}.\n\n\
         Shares are of the busy time of the whole machine in the timed part, client and server and kernel included, by \
         {} samples a second and CPU. The third column is that share of what bench/run calls CPU busy. \"while A or B \
         ran\": of this cost, what fell into the time of the gateways' processes; on a veth, softirq work is done by \
         whoever runs. \"mostly\": innermost functions. Sluice is built with frame pointers.\n",
        environment.cpus,
        environment.cpu,
        environment.kernel,
        environment.versions.join("; "),
        perf::FREQUENCY,
    )
}

fn profile(turn: &Turn, work: Work, data: &Path, options: &Options, cpus: usize) -> Result<String> {
    let mut stage = Stage::set(turn.layout, turn.contender, NO_SABOTAGE)?;
    for attempt in 1..=TRIES {
        let recording = perf::Recording::start(data)?;
        let outcome = stage.measure(work, options.seconds).with_context(|| stage.logs());
        // Before the error is told: perf would run on.
        let seen = recording.finish();
        let (outcome, seen) = (outcome?, seen?);
        let spent = outcome.measured.spent;
        let foreign = spent.foreign_share(cpus);
        if foreign > options.foreign {
            eprintln!(
                "    taken again ({attempt} of {TRIES}): {:.0} % of the machine was foreign load",
                foreign * 100.0
            );
            continue;
        }
        let gateways: HashSet<u32> = stage.gateways().into_iter().collect();
        let kernel = cpu::kernel_threads()?;
        let who = |sample: &Sample<'_>| match sample.program {
            "perf" | "perf-exec" => Who::Stranger,
            "bench" => Who::Load,
            _ if gateways.contains(&sample.pid) => Who::Gateway,
            _ if sample.pid == 0 || kernel.contains(&sample.pid) => Who::Kernel,
            _ => Who::Stranger,
        };
        let costs = Costs::of(&script::parse(&seen)?, (spent.began, spent.began + spent.seconds), &who);
        ensure!(costs.busy() > 0.0, "no sample is of the timed part");
        let figures = figures::of(work, &outcome);
        let busy = figures.get(BUSY).context("this work has no busy time per unit")?;
        return Ok(format!(
            "{}\n{}",
            said(&figures, &costs, spent.own(), foreign),
            costs.table(options.top, busy.value, &busy.unit)
        ));
    }
    bail!("foreign load was above {:.0} % in {TRIES} tries", options.foreign * 100.0)
}

/// What the table belongs to, and how far the samples and the kernel's own account agree.
fn said(
    figures: &std::collections::BTreeMap<String, crate::samples::Figure>,
    costs: &Costs,
    busy: f64,
    foreign: f64,
) -> String {
    let word =
        |name: &&str| figures.get(*name).map(|figure| format!("{name} {} {}", rounded(figure.value), figure.unit));
    let words: Vec<String> = figures::ORDER.iter().filter_map(word).take(4).collect();
    format!(
        "{}. The machine was busy for {} s by the kernel's account and {} s by the samples; idle {} s and \
         strangers' {} s are left out ({:.1} % of the machine was foreign load).\n",
        words.join(", "),
        rounded(busy),
        rounded(costs.busy()),
        rounded(costs.idle),
        rounded(costs.strangers),
        foreign * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> Result<Option<Options>> {
        parse(&line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn each_path_has_its_case() {
        let options = parsed(&[]).unwrap().unwrap();
        let all: Vec<String> =
            chosen(&options).iter().flat_map(|turn| turn.works.iter().map(|work| case(*work, &turn.layout))).collect();
        assert_eq!(all, PATHS);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (line, want) in [
            (&["--contender", "traefik"][..], "--contender is traefik: there are none, haproxy, nginx, envoy, sluice"),
            (&["--case", "memory"], "there is no such case of sluice: see bench/run --full --list"),
            (&["--top", "0"], "--top is 0: use a number from 1 to 100"),
            (&["--top"], "--top needs a value"),
        ] {
            assert_eq!(parsed(line).unwrap_err().to_string(), want);
        }
        assert_eq!(parsed(&["--help"]).unwrap(), None);
    }
}
