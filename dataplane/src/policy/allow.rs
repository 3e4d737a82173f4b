//! A list of SPIFFE IDs that are allowed, fast to ask at any length.

use ::snapshot::IdPattern;

/// Exact IDs are one probe; `…/*` entries are few and tried in turn. An empty list admits nobody.
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    exact: hashbrown::HashSet<Box<str>, foldhash::fast::RandomState>,
    under: Vec<IdPattern>,
}

impl AllowList {
    pub fn new(patterns: &[IdPattern]) -> Self {
        let mut list = Self::default();
        for pattern in patterns {
            match pattern {
                IdPattern::Exact(id) => drop(list.exact.insert(id.as_str().into())),
                IdPattern::Under(_) => list.under.push(pattern.clone()),
            }
        }
        list
    }

    pub fn admits(&self, id: &str) -> bool {
        self.exact.contains(id) || self.under.iter().any(|pattern| pattern.matches(id))
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

    /// The entry that shares the longest beginning with `id`: most refusals are a typo away.
    pub fn nearest(&self, id: &str) -> Option<String> {
        let entries = self.exact().map(str::to_owned).chain(self.under.iter().map(IdPattern::to_string));
        entries.max_by(|a, b| common(a, id).cmp(&common(b, id)).then_with(|| b.cmp(a)))
    }

    /// All entries, sorted, for people; cut after `most`.
    pub fn shown(&self, most: usize) -> String {
        let mut all: Vec<_> =
            self.exact().map(str::to_owned).chain(self.under.iter().map(IdPattern::to_string)).collect();
        all.sort_unstable();
        let more = all.len().saturating_sub(most);
        all.truncate(most);
        let shown = all.join(", ");
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    }
}

fn common(a: &str, b: &str) -> usize {
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
}
