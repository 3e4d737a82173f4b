//! `bench/agree`: whether two runs came to the same, ratio by ratio, as far as the spread that their
//! reports state can tell.
//!
//! Compared is what a report prints as a ratio: absolute figures are a machine's, ratios should be
//! everybody's. The best peer is each run's own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::goals;
use crate::ratio::{DAYS, RULE, Ratio, Spread, Stated, between_runs, cases, last_column};
use crate::report::table;
use crate::samples::Terms;
use crate::summary::{Row, Summary};

pub const HELP: &str = "\
bench/agree: whether two finished runs of bench/run agree, ratio by ratio.

Compares every ratio that both reports state (sluice / best peer, and those of the goals). Each has
an interval: from the least of the one over the most of the other to the most over the least, over
all rounds, rounded outwards. Two runs agree in a ratio if its intervals overlap, and still do if
they come as near as the same programs were seen to do in other runs (within 1.25 times; the p99 and
later of one connection at a fixed rate within 6 times); that is shown apart.
What rests on a difference that is smaller than its own spread (CPU above none near zero) is too noisy to compare,
and a run of one round states no spread: neither is an agreement.

Usage: bench/agree [OPTIONS] EARLIER LATER

  EARLIER, LATER   a summary.json, or a directory that has one
  --peers          also each peer / best other peer: whether the machine differs, or Sluice
  -o json          for programs
  -h, --help       this text

Examples:
  bench/agree bench/results/2026-11-26 target/bench
  bench/run --against bench/results/2026-11-26       # measures, then compares

Exits with 0 if all that can be compared agrees, 1 if something does not, 2 if nothing can be
compared or the command is wrong.
";

#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub earlier: PathBuf,
    pub later: PathBuf,
    pub peers: bool,
    pub json: bool,
}

/// None: help was asked for.
pub fn parse(arguments: &[String]) -> Result<Option<Options>> {
    let (mut runs, mut peers, mut json) = (vec![], false, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-h" | "--help" => return Ok(None),
            "--peers" => peers = true,
            "-o" => match rest.next().map(String::as_str) {
                Some("json") => json = true,
                other => bail!("-o is {}: use json", other.unwrap_or("without a value")),
            },
            other if other.starts_with('-') => bail!("{other} is no option: see bench/agree --help"),
            path => runs.push(PathBuf::from(path)),
        }
    }
    let Ok([earlier, later]) = <[PathBuf; 2]>::try_from(runs) else {
        bail!("two runs are compared: bench/agree EARLIER LATER")
    };
    Ok(Some(Options { earlier, later, peers, json }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Agree,
    /// Not within the rounds of either, but within what runs differ by.
    Runs,
    Differ,
    TooNoisy,
    OneRound,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    pub earlier: Stated,
    pub later: Stated,
    pub verdict: Verdict,
}

#[derive(Debug, Serialize)]
pub struct Comparison {
    pub rule: &'static str,
    pub earlier: Run,
    pub later: Run,
    pub ratios: Vec<Compared>,
    /// Stated by one of the two only.
    pub alone: usize,
}

/// Which run it was.
#[derive(Debug, Serialize)]
pub struct Run {
    pub finished: Option<String>,
    pub terms: Terms,
}

/// A summary, or the one in a directory.
pub fn read(path: &Path) -> Result<Summary> {
    let file = if path.is_dir() { path.join("summary.json") } else { path.to_owned() };
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no summary of a run", file.display()))
}

/// An error: they have nothing that could be compared.
pub fn compare(earlier: &Summary, later: &Summary, peers: bool) -> Result<Comparison> {
    let (before, after) = (stated(&earlier.cases, peers), stated(&later.cases, peers));
    let same = |a: &Stated, b: &Stated| (&a.case, &a.figure, &a.subject) == (&b.case, &b.figure, &b.subject);
    let pair = |later: &Stated| {
        let earlier = before.iter().find(|earlier| same(earlier, later))?.clone();
        Some(Compared { verdict: verdict(&earlier.ratio, &later.ratio, later), earlier, later: later.clone() })
    };
    let ratios: Vec<Compared> = after.iter().filter_map(pair).collect();
    ensure!(!ratios.is_empty(), "the two runs have no ratio in common");
    let alone = before.len() + after.len() - 2 * ratios.len();
    let run = |summary: &Summary| Run { finished: summary.finished.clone(), terms: summary.terms.clone() };
    Ok(Comparison { rule: RULE, earlier: run(earlier), later: run(later), ratios, alone })
}

/// Every ratio that the report of these rows states, each once.
fn stated(rows: &[Row], peers: bool) -> Vec<Stated> {
    let mut subjects = vec!["sluice"];
    if peers {
        let others = rows.iter().map(|row| row.subject.as_str());
        for other in others.filter(|other| *other != "none") {
            if !subjects.contains(&other) {
                subjects.push(other);
            }
        }
    }
    let of = |case: &str| subjects.iter().flat_map(|subject| last_column(rows, case, subject)).collect::<Vec<_>>();
    let mut all: Vec<Stated> = cases(rows).into_iter().flat_map(of).collect();
    for goal in goals::ratios(rows) {
        // One against its own figure elsewhere is another ratio than that to the best peer.
        let own = goal.against.starts_with(OWN);
        let goal = if own { Stated { figure: format!("{} / quiet", goal.figure), ..goal } } else { goal };
        if !all.iter().any(|one| (&one.case, &one.figure, &one.subject) == (&goal.case, &goal.figure, &goal.subject)) {
            let behind = all.iter().rposition(|one| one.case == goal.case).map_or(all.len(), |at| at + 1);
            all.insert(behind, goal);
        }
    }
    all
}

/// How [`goals::ratios`] says that a ratio is to Sluice's own figure.
const OWN: &str = "sluice";

fn verdict(earlier: &Ratio, later: &Ratio, of: &Stated) -> Verdict {
    match earlier.agrees(later, 1.0) {
        Some(true) => Verdict::Agree,
        Some(false) if earlier.agrees(later, between_runs(&of.case, &of.figure)) == Some(true) => Verdict::Runs,
        Some(false) => Verdict::Differ,
        None if [earlier.spread, later.spread].contains(&Spread::NearZero) => Verdict::TooNoisy,
        None => Verdict::OneRound,
    }
}

impl Comparison {
    pub fn count(&self, verdict: Verdict) -> usize {
        self.ratios.iter().filter(|ratio| ratio.verdict == verdict).count()
    }

    /// None: nothing could be compared.
    pub fn all_agree(&self) -> Option<bool> {
        match (self.count(Verdict::Agree) + self.count(Verdict::Runs), self.count(Verdict::Differ)) {
            (0, 0) => None,
            (_, differ) => Some(differ == 0),
        }
    }

    pub fn text(&self) -> String {
        let mut cells = vec![["ratio to the best peer", "earlier", "later", ""].map(str::to_owned).to_vec()];
        let mut case = "";
        for ratio in &self.ratios {
            if ratio.later.case != case {
                case = &ratio.later.case;
                cells.push(vec![case.to_owned()]);
            }
            cells.push(line(ratio));
        }
        let (agree, differ) = (self.count(Verdict::Agree), self.count(Verdict::Differ));
        let runs = match self.count(Verdict::Runs) {
            0 => String::new(),
            runs => format!(", {runs} of them only within what runs differ by"),
        };
        let agree = agree + self.count(Verdict::Runs);
        let (noisy, once) = (self.count(Verdict::TooNoisy), self.count(Verdict::OneRound));
        let once = if once == 0 { String::new() } else { format!("; {once} of one round have no spread") };
        let alone = match self.alone {
            0 => String::new(),
            alone => format!("; {alone} are in one of the runs only"),
        };
        format!(
            "earlier: {}\nlater:   {}\n\n{}\n{agree} agree{runs}, {differ} differ; {noisy} are too noisy to \
             compare{once}{alone}.\nIn brackets, {RULE}; {DAYS}.\n",
            self.earlier,
            self.later,
            table(&cells)
        )
    }
}

fn line(Compared { earlier, later, verdict }: &Compared) -> Vec<String> {
    let figure =
        if later.subject == OWN { later.figure.clone() } else { format!("{}: {}", later.subject, later.figure) };
    let side = |stated: &Stated| format!("{}, {}", stated.ratio, stated.against);
    let verdict = match verdict {
        Verdict::Agree => "agree",
        Verdict::Runs => "agree, as runs do",
        Verdict::Differ => "DIFFER",
        Verdict::TooNoisy => "too noisy to compare",
        Verdict::OneRound => "one round: no spread",
    };
    vec![format!("  {figure}"), side(earlier), side(later), verdict.into()]
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Terms { environment, scope: _, rounds, seconds, foreign: _ } = &self.terms;
        let finished = self.finished.as_deref().unwrap_or("of unknown date");
        let commit = environment.commit.as_deref().unwrap_or("unknown");
        write!(
            f,
            "{finished}, commit {commit}; {} × {}, kernel {}; {rounds} rounds of {seconds} s",
            environment.cpus, environment.cpu, environment.kernel
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::ABOVE;
    use crate::ratio::tests::row;
    use crate::samples::tests::terms;

    fn summary(rows: Vec<Row>) -> Summary {
        Summary { finished: Some("2026-11-22T10:00:00Z".into()), cases: rows, ..Summary::empty(terms()) }
    }

    fn spread(value: f64) -> (f64, f64, f64) {
        (value * 0.95, value, value * 1.05)
    }

    #[test]
    fn ratios_are_compared_and_not_a_machines_figures() {
        let run = |scale: f64, sluice: f64| {
            let peers = [row("haproxy", "p50", spread(9.0 * scale)), row("envoy", "p50", spread(2.0 * scale))];
            summary([&[row("sluice", "p50", spread(sluice * scale))], &peers[..]].concat())
        };
        let slower = compare(&run(1.0, 3.0), &run(7.0, 3.1), false).unwrap();
        assert_eq!((slower.ratios.len(), slower.all_agree()), (1, Some(true)));
        let other = compare(&run(1.0, 3.0), &run(1.0, 6.0), false).unwrap();
        assert_eq!(other.all_agree(), Some(false));
        assert!(other.text().contains("1.50 × (1.35–1.66), envoy"), "{}", other.text());
        assert!(other.text().contains("0 agree, 1 differ"), "{}", other.text());
    }

    #[test]
    fn what_lies_as_near_as_runs_do_agrees_and_is_told_apart() {
        let run = |figure: &str, sluice| {
            summary(vec![row("sluice", figure, spread(sluice)), row("envoy", figure, spread(1.0))])
        };
        for (figure, later, want) in [
            ("p50", 1.15, Verdict::Agree),
            ("p50", 1.4, Verdict::Runs),
            ("p50", 1.6, Verdict::Differ),
            ("p99", 1.6, Verdict::Differ),
        ] {
            let comparison = compare(&run(figure, 1.0), &run(figure, later), false).unwrap();
            assert_eq!(comparison.ratios[0].verdict, want, "{figure} {later}");
            assert_eq!(comparison.all_agree(), Some(want != Verdict::Differ));
        }
        let text = compare(&run("p50", 1.0), &run("p50", 1.4), false).unwrap().text();
        assert!(text.contains("1 agree, 1 of them only within what runs differ by, 0 differ"), "{text}");
    }

    #[test]
    fn what_is_too_noisy_neither_agrees_nor_differs() {
        let run = |above| summary(vec![row("sluice", ABOVE, above), row("envoy", ABOVE, spread(1.0))]);
        let comparison = compare(&run((0.1, 1.0, 1.2)), &run(spread(9.0)), false).unwrap();
        assert_eq!(comparison.ratios[0].verdict, Verdict::TooNoisy);
        assert_eq!(comparison.all_agree(), None);
        assert!(comparison.text().contains("1.00 × (too noisy), envoy"), "{}", comparison.text());
    }

    #[test]
    fn peers_are_compared_with_each_other_when_asked() {
        let rows = || ["sluice", "haproxy", "envoy", "none"].map(|subject| row(subject, "p50", spread(1.0))).to_vec();
        let comparison = compare(&summary(rows()), &summary(rows()), true).unwrap();
        let subjects: Vec<_> = comparison.ratios.iter().map(|ratio| ratio.later.subject.as_str()).collect();
        assert_eq!(subjects, ["sluice", "haproxy", "envoy"]);
        assert_eq!(comparison.ratios[1].later.against, "envoy");
    }

    #[test]
    fn a_goal_against_the_own_quiet_figure_is_a_ratio_too() {
        let isolation = |noise| format!("isolation, {noise} 10x, MTU 1500/1500, offload on");
        let rows = || {
            let of = |noise, value| Row { case: isolation(noise), ..row("sluice", "p99", spread(value)) };
            summary(vec![of("dropped", 1.0), of("storm", 3.0)])
        };
        let comparison = compare(&rows(), &rows(), false).unwrap();
        assert_eq!(comparison.ratios.len(), 1);
        assert!(comparison.text().contains("  p99 / quiet"), "{}", comparison.text());
    }

    #[test]
    fn runs_without_a_ratio_in_common_are_no_agreement() {
        let run = |case: &str| {
            let rows = ["sluice", "envoy"].map(|subject| Row { case: case.into(), ..row(subject, "p50", spread(1.0)) });
            summary(rows.to_vec())
        };
        assert!(compare(&run("a"), &run("b"), false).is_err());
    }

    #[test]
    fn the_command_names_what_is_wrong_with_it() {
        let parsed = |line: &str| parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = parsed("a -o json b --peers").unwrap().unwrap();
        assert_eq!((options.earlier, options.later, options.json), ("a".into(), "b".into(), true));
        for (line, want) in [
            ("a", "two runs are compared: bench/agree EARLIER LATER"),
            ("a b -o yaml", "-o is yaml: use json"),
            ("a b --all", "--all is no option: see bench/agree --help"),
        ] {
            assert_eq!(parsed(line).unwrap_err().to_string(), want, "{line}");
        }
    }
}
