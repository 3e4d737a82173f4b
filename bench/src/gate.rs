//! The gate for commits on the hot path: which instruction counts grew by more than is put up with.

use std::collections::BTreeMap;

/// Instructions per unit, by case and unit: `flow table, 100 flows, per packet`.
pub type Results = BTreeMap<String, f64>;

/// More than this share more than before is a loss. Counts are the same on each run of one build;
/// another build of the same code moves them by less.
pub const TOLERANCE: f64 = 0.02;

/// The same for what asks few tables that are keyed by chance: between two runs of one build it was
/// seen to differ by 6 %.
const KEYED: f64 = 0.08;

fn tolerance(name: &str) -> f64 {
    let keyed = ["egress route", "policy verdict"];
    if keyed.iter().any(|few| name.starts_with(few)) { KEYED } else { TOLERANCE }
}

/// The names of what takes more than `base` and the tolerance. What the base does not know is new,
/// and no loss.
pub fn losses(base: &Results, results: &Results) -> Vec<String> {
    let lost = |(name, value): &(&String, &f64)| {
        base.get(*name).is_some_and(|before| **value > before * (1.0 + tolerance(name)))
    };
    results.iter().filter(lost).map(|(name, _)| name.clone()).collect()
}

/// The names of what the base knows and these results do not.
pub fn missing(base: &Results, results: &Results) -> Vec<String> {
    base.keys().filter(|name| !results.contains_key(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_longer_counted_is_named() {
        let of = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 1.0)).collect::<Results>();
        assert_eq!(missing(&of(&["a", "b", "c"]), &of(&["b", "new"])), ["a", "c"]);
        assert_eq!(missing(&of(&["a"]), &of(&["a"])), Vec::<String>::new());
    }

    #[test]
    fn three_percent_more_is_a_loss_and_one_is_not() {
        let base = Results::from([("parse".into(), 1_000.0), ("seal".into(), 500.0)]);
        for (name, parse, want) in [
            ("planted growth", 1_030.0, vec!["parse"]),
            ("just above", 1_020.1, vec!["parse"]),
            ("just below", 1_019.9, vec![]),
            ("one percent", 1_010.0, vec![]),
            ("the same", 1_000.0, vec![]),
            ("fewer", 10.0, vec![]),
        ] {
            let results = Results::from([("parse".into(), parse), ("seal".into(), 500.0), ("new".into(), 9e9)]);
            assert_eq!(losses(&base, &results), want, "{name}");
        }
    }

    #[test]
    fn what_chance_moves_has_more_room_and_not_without_end() {
        let name = "egress route, 10 rules, per decision";
        let base = Results::from([(name.into(), 100.0)]);
        for (value, want) in [(107.0, 0), (109.0, 1)] {
            assert_eq!(losses(&base, &Results::from([(name.into(), value)])).len(), want, "{value}");
        }
    }

    #[test]
    fn each_loss_is_named() {
        let base = Results::from([("a".into(), 100.0), ("b".into(), 100.0), ("c".into(), 100.0)]);
        let results = Results::from([("a".into(), 103.0), ("b".into(), 100.0), ("c".into(), 200.0)]);
        assert_eq!(losses(&base, &results), ["a", "c"]);
    }
}
