//! Ratios between contenders, each with the interval that the spread of its two ends allows.
//!
//! The rule, for every ratio that the bench states: from the least of the one over the most of the
//! other, to the most over the least, over all rounds, rounded outwards to the digits that are
//! shown. That is wider than a confidence interval would be, and says so plainly: whatever rounds
//! are put beside each other, the ratio was in it.
//!
//! The rounds of one run share a machine's mood, so another day's may lie beyond: by how much was seen
//! in runs of the same programs on several days ([`between_runs`]).

use serde::Serialize;

use crate::figures::{ABOVE, BUSY, ORDER, is_difference, more_is_better};
use crate::summary::{Row, find};

pub const RULE: &str = "the interval of a ratio is from the least of the one over the most of the other to the most \
                        over the least, over all rounds, rounded outwards";

/// What a report says of [`between_runs`].
pub const DAYS: &str = "in another run a ratio of the same programs was seen up to 1.23 × beyond its interval, one of \
                        the p99 or later of one connection at a fixed rate up to 5.2 ×";

/// By which factor a ratio may lie beyond its interval in another run. Seen between peers, whose programs
/// were the same, in four runs on two machines (2026-11-22, three on 2026-11-26), each with each: of 858
/// ratios 847 had intervals that overlap, eight came as near as 1.01 to 1.23, and three, nginx's p99 of
/// one connection at 2000/s, as near as 1.8 to 5.2: one pause of the machine decides that.
pub fn between_runs(case: &str, figure: &str) -> f64 {
    let one_pause = case.starts_with("round trip, 1 connection, 2000/s") && figure.starts_with("p99");
    if one_pause { 6.0 } else { 1.25 }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Of the medians.
    pub value: f64,
    pub spread: Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spread {
    Between {
        least: f64,
        most: f64,
    },
    /// One sample has none.
    OneRound,
    /// An end is a difference that is smaller than its own spread, or not above zero in every round.
    NearZero,
}

/// A ratio that a report states.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stated {
    pub case: String,
    pub figure: String,
    pub subject: String,
    /// Whom it is measured by.
    pub against: String,
    #[serde(flatten)]
    pub ratio: Ratio,
}

impl Ratio {
    pub fn of(own: &Row, other: &Row) -> Self {
        let spread = match (near_zero(own) || near_zero(other), own.n.min(other.n)) {
            (true, _) => Spread::NearZero,
            (false, 1) => Spread::OneRound,
            (false, _) => Spread::Between {
                least: outwards(own.min / other.max, f64::floor),
                most: outwards(own.max / other.min, f64::ceil),
            },
        };
        Self { value: own.median / other.median, spread }
    }

    /// Whether both could be of the same thing, if one may lie beyond its interval by a factor. None:
    /// their spread does not say.
    pub fn agrees(&self, other: &Self, factor: f64) -> Option<bool> {
        match (self.spread, other.spread) {
            (Spread::Between { least, most }, Spread::Between { least: low, most: high }) => {
                Some(least <= high * factor && low <= most * factor)
            }
            (Spread::OneRound | Spread::NearZero, _) | (_, Spread::OneRound | Spread::NearZero) => None,
        }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = rounded(self.value);
        match self.spread {
            Spread::Between { least, most } => write!(f, "{value} × ({}–{})", rounded(least), rounded(most)),
            Spread::OneRound => write!(f, "{value} ×"),
            Spread::NearZero => write!(f, "{value} × (too noisy)"),
        }
    }
}

fn near_zero(row: &Row) -> bool {
    row.min <= 0.0 || (is_difference(&row.figure) && row.median < row.max - row.min)
}

/// What the report sets in its last column: the figures that decide. The first one, CPU, the median
/// latency and its tail, where a peer was measured too.
pub fn last_column(rows: &[Row], case: &str, subject: &str) -> Vec<Stated> {
    let figures = figures(rows, case);
    // Between two commits there is nothing to take off.
    let cpu = if figures.contains(&ABOVE) { ABOVE } else { BUSY };
    let decides = |at: usize, figure: &str| at == 0 || [cpu, "p50", "p99"].contains(&figure);
    let stated = |(_, figure): (usize, &&str)| {
        let own = find(rows, case, subject, figure)?;
        to_best_peer(rows, own)
    };
    figures.iter().enumerate().filter(|(at, figure)| decides(*at, figure)).filter_map(stated).collect()
}

/// In the order of columns.
pub fn figures<'a>(rows: &'a [Row], case: &str) -> Vec<&'a str> {
    let mut figures: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| row.case == case) {
        if !figures.contains(&row.figure.as_str()) {
            figures.push(&row.figure);
        }
    }
    figures.sort_by_key(|figure| ORDER.iter().position(|known| known == figure));
    figures
}

pub fn to_best_peer(rows: &[Row], own: &Row) -> Option<Stated> {
    let best = best_peer(rows, &own.case, &own.figure, &own.subject)?;
    Some(Stated {
        case: own.case.clone(),
        figure: own.figure.clone(),
        subject: own.subject.clone(),
        against: best.subject.clone(),
        ratio: Ratio::of(own, best),
    })
}

/// Of the peers that were measured in this case, beside `own`.
pub fn best_peer<'a>(rows: &'a [Row], case: &str, figure: &str, own: &str) -> Option<&'a Row> {
    let peer = |row: &&Row| !["none", "sluice", own].contains(&row.subject.as_str());
    let peers = rows.iter().filter(|row| row.case == case && row.figure == figure).filter(peer);
    let by = |a: &&Row, b: &&Row| a.median.total_cmp(&b.median);
    if more_is_better(figure) { peers.max_by(by) } else { peers.min_by(by) }
}

/// In the order in which they were measured.
pub fn cases(rows: &[Row]) -> Vec<&str> {
    let mut cases: Vec<&str> = Vec::new();
    for row in rows {
        if !cases.contains(&row.case.as_str()) {
            cases.push(&row.case);
        }
    }
    cases
}

/// Three digits that mean something.
pub fn rounded(value: f64) -> String {
    if value.is_finite() { format!("{value:.*}", digits(value)) } else { "–".into() }
}

fn outwards(value: f64, round: fn(f64) -> f64) -> f64 {
    let scale = 10_f64.powi(i32::try_from(digits(value)).expect("three at most"));
    // What is a round number but for the last bit stays it.
    let scaled = value * scale;
    if (scaled - scaled.round()).abs() < 1e-9 { scaled.round() / scale } else { round(scaled) / scale }
}

/// Behind the point.
fn digits(value: f64) -> usize {
    match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.095 => 2,
        _ => 3,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn row(subject: &str, figure: &str, (min, median, max): (f64, f64, f64)) -> Row {
        let (case, figure, subject) = ("case".into(), figure.into(), subject.into());
        Row { case, figure, unit: "u".into(), subject, median, min, max, n: 3 }
    }

    #[test]
    fn an_interval_spans_what_any_two_rounds_could_say_and_never_less() {
        let ratio = Ratio::of(&row("sluice", "p50", (5.74, 6.22, 6.5)), &row("envoy", "p50", (3.71, 3.78, 3.85)));
        assert_eq!(ratio.spread, Spread::Between { least: 1.49, most: 1.76 }, "5.74 / 3.85 and 6.5 / 3.71, outwards");
        assert_eq!(ratio.to_string(), "1.65 × (1.49–1.76)");
        let exact = Ratio::of(&row("sluice", "p50", (1.1, 1.1, 1.1)), &row("envoy", "p50", (1.0, 1.0, 1.0)));
        assert_eq!(exact.spread, Spread::Between { least: 1.1, most: 1.1 });
    }

    #[test]
    fn a_difference_below_its_own_spread_has_no_interval_and_a_latency_does() {
        let wide = (0.5, 1.0, 1.6);
        for (name, own, want) in [
            ("above none, below its spread", row("sluice", ABOVE, wide), Spread::NearZero),
            ("below none in a round", row("sluice", ABOVE, (-0.01, 1.0, 0.9)), Spread::NearZero),
            ("a tail", row("sluice", "p99", wide), Spread::Between { least: 0.5, most: 1.6 }),
            ("one round", Row { n: 1, ..row("sluice", ABOVE, (1.0, 1.0, 1.0)) }, Spread::OneRound),
        ] {
            let peer = row("envoy", &own.figure, (1.0, 1.0, 1.0));
            assert_eq!(Ratio::of(&own, &peer).spread, want, "{name}");
            let turned = Ratio::of(&peer, &own).spread;
            assert_eq!(turned == Spread::NearZero, want == Spread::NearZero, "{name}, as the other end");
        }
    }

    #[test]
    fn intervals_agree_if_they_touch() {
        let ratio = |least, most| Ratio { value: 1.0, spread: Spread::Between { least, most } };
        assert_eq!(ratio(1.0, 1.2).agrees(&ratio(1.2, 1.5), 1.0), Some(true));
        assert_eq!(ratio(1.21, 1.5).agrees(&ratio(1.0, 1.2), 1.0), Some(false));
        assert_eq!(ratio(1.21, 1.5).agrees(&ratio(1.0, 1.2), 1.25), Some(true));
        assert_eq!(ratio(1.0, 1.2).agrees(&ratio(1.51, 1.6), 1.25), Some(false));
        let none = Ratio { value: 1.0, spread: Spread::NearZero };
        assert_eq!(none.agrees(&ratio(1.0, 1.2), 3.5), None);
    }

    #[test]
    fn only_the_tail_that_one_pause_decides_has_more_room_between_runs() {
        let alone = "round trip, 1 connection, 2000/s, MTU 1500/1500, offload on";
        assert_eq!([between_runs(alone, "p99.9"), between_runs(alone, "p50")], [6.0, 1.25]);
        assert_eq!(between_runs("isolation, storm 10x, MTU 1500/1500, offload on", "p99"), 1.25);
    }

    #[test]
    fn the_last_column_has_the_figures_that_decide() {
        let even = (1.0, 1.0, 1.0);
        let figures = ["p99.9", "p99", "p50", BUSY, ABOVE, "rate"];
        let rows: Vec<Row> = figures.iter().flat_map(|f| [row("sluice", f, even), row("envoy", f, even)]).collect();
        let stated = last_column(&rows, "case", "sluice");
        let names: Vec<_> = stated.iter().map(|stated| stated.figure.as_str()).collect();
        assert_eq!(names, ["rate", ABOVE, "p50", "p99"]);
        assert!(last_column(&rows, "case", "envoy").is_empty(), "no other peer");
    }
}
