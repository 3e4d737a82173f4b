//! "Did you mean": the nearest allowed word to a mistyped one.

/// The allowed word that `wrong` was most likely meant to be.
pub fn nearest<'a>(wrong: &str, allowed: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folded = wrong.to_lowercase();
    let reach = (folded.chars().count() / 3).clamp(1, 3);
    let scored = allowed.map(|word| (distance(&folded, &word.to_lowercase()), word));
    scored.filter(|(score, _)| *score <= reach).min_by_key(|(score, _)| *score).map(|(_, word)| word)
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(LONGEST).collect(), b.chars().take(LONGEST).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let replaced = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

/// A word that somebody pasted a file into is not compared whole.
const LONGEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let modes = ["MUTUAL", "PERMISSIVE", "SIMPLE", "DISABLE"];
        for (wrong, want) in [
            ("MUTAUL", Some("MUTUAL")),
            ("mutual", Some("MUTUAL")),
            ("DISABLED", Some("DISABLE")),
            ("PERMISIVE", Some("PERMISSIVE")),
            ("STRICT", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, modes.into_iter()), want, "{wrong}");
        }
    }
}
