//! A run: turn after turn, every sample written down as it is taken, and a report at the end.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::agree;
use crate::cli::Options;
use crate::contender::Contender;
use crate::environment::Environment;
use crate::limits::{Limit, SUBJECT};
use crate::plan::{Scope, Turn, Work, baseline, case, turns};
use crate::progress::Progress;
use crate::report::{Report, goal_table};
use crate::samples::{Entry, Log, Place, Sample, Terms};
use crate::stage::{NO_SABOTAGE, Sabotage, Stage};
use crate::summary::Summary;
use crate::{figures, files, plot};

/// How often a sample is taken again that strangers disturbed.
const TRIES: u32 = 3;

/// Whether all of it was measured, and agrees with the earlier run if one was named.
pub fn run(options: &Options) -> Result<bool> {
    files::take_all()?;
    // Before anything is measured: a wrong path should not cost half an hour.
    let earlier = options.against.as_deref().map(|path| agree::read(Path::new(path))).transpose()?;
    let out = Path::new(&options.out);
    fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
    let terms = Terms {
        environment: Environment::read(&options.contenders)?,
        scope: options.scope,
        rounds: options.rounds,
        seconds: options.seconds,
        foreign: options.foreign,
    };
    let mut log = Log::open(&out.join("samples.jsonl"), &terms, options.fresh)?;
    take_all(options, &terms, &mut log)?;
    // To the second: no run is shorter.
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let summary = Summary::of(&terms, &log, Some(now));
    write(out, &summary, &log)?;
    let agrees = earlier.map_or(Ok(true), |earlier| compare(&earlier, &summary))?;
    Ok(log.failures().is_empty() && agrees)
}

fn compare(earlier: &Summary, summary: &Summary) -> Result<bool> {
    let comparison = agree::compare(earlier, summary, false)?;
    println!("\n{}", comparison.text());
    comparison.all_agree().context("nothing of the two runs can be compared")
}

fn take_all(options: &Options, terms: &Terms, log: &mut Log) -> Result<()> {
    let chosen = |name: &str| options.cases.is_empty() || options.cases.iter().any(|part| name.contains(part));
    let mut all = turns(options.scope, &options.contenders, &chosen);
    let sluices = all.iter_mut().filter(|turn| turn.contender == Contender::Sluice);
    sluices.for_each(|turn| turn.subject.clone_from(&options.sluice));
    let wanted = |round: &u32| options.round.is_none_or(|only| only == *round);
    let open = |round: u32| if wanted(&round) { left(&all, round, log) } else { vec![] };
    let rounds: Vec<Vec<Turn>> = (1..=terms.rounds).map(open).collect();
    let mut progress = Progress::new(&rounds.concat(), terms.seconds);
    for (round, turns) in (1..).zip(&rounds) {
        for limit in Limit::ALL.into_iter().filter(|limit| wanted(&round) && chosen(limit.case())) {
            take_limit(limit, round, terms, log)?;
        }
        for turn in turns {
            progress.say(round, terms.rounds, turn);
            take(turn, round, terms, log, NO_SABOTAGE)?;
            progress.done(turn, terms.seconds);
        }
    }
    Ok(())
}

fn take_limit(limit: Limit, round: u32, terms: &Terms, log: &mut Log) -> Result<()> {
    let place = Place { round, case: limit.case().into(), subject: SUBJECT.into() };
    if log.has(&place) {
        return Ok(());
    }
    Progress::limit(limit, round, terms.rounds);
    for attempt in 1..=TRIES {
        let (figures, foreign) = match limit.measure(terms.seconds) {
            Ok(measured) => measured,
            Err(error) => {
                eprintln!("    FAILED: {error:#}");
                return log.add(Entry::Failed { place, why: format!("{error:#}") });
            }
        };
        if foreign <= terms.foreign {
            return log.add(Entry::Sample(Sample { place, baseline: None, figures, curve: vec![], foreign }));
        }
        Progress::thrown_away(limit.case(), attempt, TRIES, foreign);
        log.add(Entry::ThrownAway { place: place.clone(), foreign })?;
    }
    log.add(too_foreign(place, terms))
}

fn too_foreign(place: Place, terms: &Terms) -> Entry {
    Entry::Failed { place, why: format!("foreign load was above {:.0} % in {TRIES} tries", terms.foreign * 100.0) }
}

/// What is still to be done of a round.
fn left(all: &[Turn], round: u32, log: &Log) -> Vec<Turn> {
    let open = |turn: &Turn| {
        let works = turn.works.iter().filter(|work| !log.has(&place(turn, **work, round))).copied().collect();
        Turn { works, ..turn.clone() }
    };
    all.iter().map(open).filter(|turn| !turn.works.is_empty()).collect()
}

fn place(turn: &Turn, work: Work, round: u32) -> Place {
    Place { round, case: case(work, &turn.layout), subject: turn.subject.clone() }
}

/// What fails is in the log by its reason, and the other contenders go on. An error: the log itself.
pub fn take(turn: &Turn, round: u32, terms: &Terms, log: &mut Log, sabotage: Sabotage) -> Result<()> {
    let mut stage = match Stage::set(turn.layout, turn.contender, sabotage) {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("    FAILED: {error:#}");
            let fail = |work: &Work| Entry::Failed { place: place(turn, *work, round), why: format!("{error:#}") };
            return turn.works.iter().try_for_each(|work| log.add(fail(work)));
        }
    };
    let (layout, subject) = (turn.layout.to_string(), turn.subject.clone());
    log.add(Entry::Found { layout, subject, facts: stage.facts.clone() })?;
    for work in &turn.works {
        measure(&mut stage, turn, *work, round, terms, log)?;
    }
    Ok(())
}

/// One sample, taken again while strangers are at work, but not for ever.
pub fn measure(stage: &mut Stage, turn: &Turn, work: Work, round: u32, terms: &Terms, log: &mut Log) -> Result<()> {
    let place = place(turn, work, round);
    for attempt in 1..=TRIES {
        let outcome = match stage.measure(work, terms.seconds) {
            Ok(outcome) => outcome,
            Err(error) => {
                eprintln!("    FAILED: {work}: {error:#}\n{}", stage.logs());
                return log.add(Entry::Failed { place, why: format!("{error:#}") });
            }
        };
        let foreign = outcome.measured.spent.foreign_share(terms.environment.cpus);
        if foreign <= terms.foreign {
            let figures = figures::of(work, &outcome);
            Progress::work(work, &said(&figures));
            let curve = outcome.measured.latency.map(|latency| latency.curve).unwrap_or_default();
            let baseline = Some(baseline(work, &turn.layout));
            return log.add(Entry::Sample(Sample { place, baseline, figures, curve, foreign }));
        }
        Progress::thrown_away(&work.to_string(), attempt, TRIES, foreign);
        log.add(Entry::ThrownAway { place: place.clone(), foreign })?;
    }
    log.add(too_foreign(place, terms))
}

fn said(figures: &std::collections::BTreeMap<String, crate::samples::Figure>) -> String {
    let known = figures::ORDER.iter().filter_map(|name| Some((name, figures.get(*name)?)));
    let words = known.map(|(name, figure)| format!("{name} {} {}", crate::ratio::rounded(figure.value), figure.unit));
    words.take(5).collect::<Vec<_>>().join(", ")
}

fn write(out: &Path, summary: &Summary, log: &Log) -> Result<()> {
    let plots = plot::write(out, log, &summary.cases)?;
    let report = Report { summary, plots: &plots }.markdown();
    fs::write(out.join("summary.json"), serde_json::to_string_pretty(summary)? + "\n")?;
    fs::write(out.join("report.md"), &report)?;
    println!("{report}");
    println!("{}", goal_table(&summary.goals));
    println!("in {}: report.md, summary.json, samples.jsonl, {}", out.display(), plots.join(", "));
    if summary.terms.scope == Scope::Quick {
        println!("a smoke: these figures prove nothing");
    }
    Ok(())
}
