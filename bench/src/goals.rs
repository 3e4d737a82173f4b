//! What Sluice wants to reach, and how far it is: printed with each run, whether it looks good or not.

use serde::Serialize;

use crate::figures::{ABOVE, MEMORY, RATE, more_is_better};
use crate::ratio::{Ratio, Spread, Stated, best_peer, to_best_peer};
use crate::summary::{Row, find};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Goal {
    pub figure: String,
    /// Sluice's: a ratio to the best peer, or in the unit that `goal` names. None: not measured.
    pub value: Option<f64>,
    /// Of a ratio.
    pub spread: Option<Spread>,
    pub goal: String,
    pub best_peer: Option<String>,
    pub ok: Option<bool>,
    /// By what factor it is missed.
    pub missed: Option<f64>,
}

/// What is wanted of a figure in a case.
struct Wanted {
    what: &'static str,
    case: &'static str,
    figure: &'static str,
    bound: Bound,
}

enum Bound {
    /// So many times the best peer's, at most (or at least, where more is better).
    Ratio(f64),
    /// So much, at most.
    Absolute(f64),
    /// So many times Sluice's own figure in another case, at most.
    Own(f64, &'static str),
}

const WANTED: [Wanted; 12] = [
    Wanted {
        what: "CPU, bulk 1500, offload off",
        case: "bulk, 1 stream at 1.0 Gbit/s, MTU 1500/1500, offload off",
        figure: ABOVE,
        bound: Bound::Ratio(0.6),
    },
    Wanted {
        what: "CPU, bulk 1500, offload on",
        case: "bulk, 1 stream at 1.0 Gbit/s, MTU 1500/1500, offload on",
        figure: ABOVE,
        bound: Bound::Ratio(1.0),
    },
    Wanted {
        what: "CPU, bulk 9000, inside 65535",
        case: "bulk, 1 stream at 1.0 Gbit/s, MTU 9000/65535, offload on",
        figure: ABOVE,
        bound: Bound::Ratio(0.8),
    },
    Wanted {
        what: "CPU, full handshakes",
        case: "new connections, 400/s, MTU 1500/1500, offload on",
        figure: ABOVE,
        bound: Bound::Ratio(0.45),
    },
    Wanted {
        what: "CPU, resumed handshakes",
        case: "new connections, 400/s, MTU 1500/1500, offload on, resumed",
        figure: ABOVE,
        bound: Bound::Absolute(0.2),
    },
    trip("round trip p50", "p50", 0.2),
    trip("round trip p99", "p99", 0.5),
    trip("round trip p99.9", "p99.9", 1.0),
    Wanted {
        what: "requests/s, 64 connections",
        case: "round trip, 64 connections, closed loop, MTU 1500/1500, offload on",
        figure: RATE,
        bound: Bound::Ratio(1.5),
    },
    Wanted {
        what: "p99 during a 10× storm of handshakes",
        case: "isolation, storm 10x, MTU 1500/1500, offload on",
        figure: "p99",
        bound: Bound::Own(2.0, "isolation, dropped 10x, MTU 1500/1500, offload on"),
    },
    idle("memory, 1000 idle connections", "memory, 1000 idle connections, MTU 1500/1500, offload on"),
    idle("memory, 9000 idle connections", "memory, 9000 idle connections, MTU 1500/1500, offload on"),
];

const fn trip(what: &'static str, figure: &'static str, ratio: f64) -> Wanted {
    let case = "round trip, 1 connection, 2000/s, MTU 1500/1500, offload on";
    Wanted { what, case, figure, bound: Bound::Ratio(ratio) }
}

const fn idle(what: &'static str, case: &'static str) -> Wanted {
    Wanted { what, case, figure: MEMORY, bound: Bound::Absolute(12.0) }
}

pub fn goals(rows: &[Row]) -> Vec<Goal> {
    WANTED.iter().map(|wanted| goal(rows, wanted)).collect()
}

/// Those of them that are ratios: to the best peer, or to Sluice's own figure in another case.
pub fn ratios(rows: &[Row]) -> Vec<Stated> {
    WANTED.iter().filter_map(|wanted| ratio(rows, wanted)).collect()
}

fn ratio(rows: &[Row], wanted: &Wanted) -> Option<Stated> {
    let own = find(rows, wanted.case, "sluice", wanted.figure)?;
    match wanted.bound {
        Bound::Ratio(_) => to_best_peer(rows, own),
        Bound::Absolute(_) => None,
        Bound::Own(_, other) => {
            let quiet = find(rows, other, "sluice", wanted.figure)?;
            let (case, figure, subject) = (own.case.clone(), own.figure.clone(), own.subject.clone());
            Some(Stated { case, figure, subject, against: own.subject.clone(), ratio: Ratio::of(own, quiet) })
        }
    }
}

fn goal(rows: &[Row], wanted: &Wanted) -> Goal {
    let own = find(rows, wanted.case, "sluice", wanted.figure);
    let best = best_peer(rows, wanted.case, wanted.figure, "sluice");
    let unit = own.or(best).map_or("", |row| row.unit.as_str());
    let ratio = ratio(rows, wanted).map(|stated| stated.ratio).filter(|ratio| ratio.value.is_finite());
    let ratio_value = ratio.map(|ratio| ratio.value);
    let (value, bound, goal) = match wanted.bound {
        Bound::Ratio(bound) if more_is_better(wanted.figure) => (ratio_value, bound, format!("≥ {bound} × best peer")),
        Bound::Ratio(bound) => (ratio_value, bound, format!("≤ {bound} × best peer")),
        Bound::Absolute(bound) => (own.map(|row| row.median), bound, format!("≤ {bound} {unit}").trim_end().to_owned()),
        Bound::Own(bound, _) => (ratio_value, bound, format!("≤ {bound} × quiet")),
    };
    let excess = value.map(|value| if more_is_better(wanted.figure) { bound / value } else { value / bound });
    Goal {
        figure: wanted.what.into(),
        value,
        spread: ratio.map(|ratio| ratio.spread),
        goal,
        best_peer: best.map(|row| format!("{} ({:.3} {})", row.subject, row.median, row.unit)),
        ok: excess.map(|excess| excess <= 1.0),
        missed: excess.filter(|excess| *excess > 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Scope, case, cases};

    fn row(case: &str, subject: &str, figure: &str, median: f64) -> Row {
        let (case, figure, subject) = (case.into(), figure.into(), subject.into());
        Row { case, figure, unit: "u".into(), subject, median, min: median, max: median, n: 3 }
    }

    #[test]
    fn the_best_peer_is_the_one_to_beat_and_a_miss_says_by_how_much() {
        let wanted = &WANTED[0];
        let of = |subject, median| row(wanted.case, subject, wanted.figure, median);
        let rows = [of("none", 0.1), of("haproxy", 4.0), of("envoy", 2.0), of("sluice", 2.4)];
        let goal = goal(&rows, wanted);
        assert_eq!((goal.value, goal.ok, goal.missed), (Some(1.2), Some(false), Some(2.0)));
        assert_eq!(goal.best_peer.as_deref(), Some("envoy (2.000 u)"));
    }

    #[test]
    fn more_requests_are_better() {
        let wanted = WANTED.iter().find(|wanted| wanted.figure == RATE).unwrap();
        let of = |subject, median| row(wanted.case, subject, RATE, median);
        let goal = goal(&[of("haproxy", 10.0), of("envoy", 20.0), of("sluice", 40.0)], wanted);
        assert_eq!((goal.value, goal.ok, goal.missed), (Some(2.0), Some(true), None));
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        assert!(goals(&[]).iter().all(|goal| goal.value.is_none() && goal.ok.is_none()));
    }

    #[test]
    fn every_goal_names_a_case_that_the_full_run_has() {
        let names: Vec<_> =
            cases(Scope::Full).iter().flat_map(|(l, works)| works.iter().map(|w| case(*w, l))).collect();
        for wanted in &WANTED {
            assert!(names.iter().any(|name| name == wanted.case), "{}", wanted.case);
        }
    }
}
