//! A list of SPIFFE IDs that are allowed, fast to ask at any length.

use ::snapshot::IdPattern;

/// Exact IDs are one probe, `…/*` entries one for each segment of the ID that is asked about, however
/// long the list. An empty list admits nobody.
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    exact: Ids,
    /// Up to and with the `/` before the star.
    under: Ids,
}

type Ids = hashbrown::HashSet<Box<str>, foldhash::fast::RandomState>;

impl AllowList {
    pub fn new(patterns: &[IdPattern]) -> Self {
        let mut list = Self::default();
        for pattern in patterns {
            match pattern {
                IdPattern::Exact(id) => drop(list.exact.insert(id.as_str().into())),
                IdPattern::Under(prefix) => drop(list.under.insert(prefix.as_str().into())),
            }
        }
        list
    }

    pub fn admits(&self, id: &str) -> bool {
        let slashes = id.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at + 1);
        let mut prefixes = slashes.filter(|end| *end < id.len()).map(|end| &id[..end]);
        self.exact.contains(id) || (!self.under.is_empty() && prefixes.any(|prefix| self.under.contains(prefix)))
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.under.is_empty()
    }

    /// The exact IDs of the list, in no order.
    pub fn exact(&self) -> impl Iterator<Item = &str> {
        self.exact.iter().map(AsRef::as_ref)
    }

    pub fn has_patterns(&self) -> bool {
        !self.under.is_empty()
    }

    fn entries(&self) -> impl Iterator<Item = String> {
        self.exact().map(str::to_owned).chain(self.under.iter().map(|prefix| format!("{prefix}*")))
    }

    /// The entry that shares the longest beginning with `id`: most refusals are a typo away.
    pub fn nearest(&self, id: &str) -> Option<String> {
        self.entries().max_by(|a, b| common(a, id).cmp(&common(b, id)).then_with(|| b.cmp(a)))
    }

    /// All entries, sorted, for people; cut after `most`.
    pub fn shown(&self, most: usize) -> String {
        let mut all: Vec<_> = self.entries().collect();
        all.sort_unstable();
        let more = all.len().saturating_sub(most);
        all.truncate(most);
        let shown = all.join(", ");
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    }
}

/// How many bytes two texts begin with that are the same.
pub(super) fn common(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_ids_and_subtrees_are_admitted_and_nothing_else() {
        let list = AllowList::new(&[
            IdPattern::Exact("spiffe://a/x".into()),
            IdPattern::Exact("spiffe://a/y".into()),
            IdPattern::Under("spiffe://a/sub/".into()),
        ]);
        for (id, want) in [
            ("spiffe://a/x", true),
            ("spiffe://a/x/y", false),
            ("spiffe://a/sub/1", true),
            ("spiffe://a/sub", false),
            ("spiffe://b/x", false),
        ] {
            assert_eq!(list.admits(id), want, "{id}");
        }
        assert_eq!(list.nearest("spiffe://a/yy").as_deref(), Some("spiffe://a/y"));
        assert_eq!(list.shown(1), "spiffe://a/sub/* and 2 more");
        assert!(!AllowList::new(&[]).admits("spiffe://a/x"));
    }

    /// Against the meaning of each pattern, one by one.
    #[test]
    fn a_list_admits_whom_one_of_its_patterns_matches() {
        let paths = ["a", "a/b", "a/b/c", "a/bb", "a/bb/c", "b", "b/a/b", "a/b/c/d/e"];
        let ids: Vec<String> = paths.iter().map(|path| format!("spiffe://x/{path}")).collect();
        for chosen in 0u32..1 << paths.len() {
            let patterns: Vec<_> = (0..paths.len())
                .filter(|at| (chosen >> at) & 1 == 1)
                .map(|at| match at % 2 {
                    0 => IdPattern::Under(format!("{}/", ids[at])),
                    _ => IdPattern::Exact(ids[at].clone()),
                })
                .collect();
            let list = AllowList::new(&patterns);
            for id in ids.iter().map(String::as_str).chain(["spiffe://x", "spiffe://x/a/", "", "/"]) {
                let want = patterns.iter().any(|pattern| pattern.matches(id));
                assert_eq!(list.admits(id), want, "{id} of {patterns:?}");
            }
        }
    }
}
