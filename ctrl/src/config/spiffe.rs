//! SPIFFE IDs and trust domains (SPIFFE-ID §2), and the patterns of allow lists.

use std::fmt;

use serde::Serialize;
use snapshot::IdPattern;

/// SPIFFE-ID §2.1: a name of at most 255 bytes out of `a-z 0-9 . - _`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct TrustDomain(String);

/// `spiffe://<trust domain>/<path>`; the path of a workload is never empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SpiffeId(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("does not begin with spiffe://")]
    Scheme,
    #[error("the trust domain is empty")]
    NoTrustDomain,
    #[error("the trust domain has {0} bytes, at most 255 are allowed")]
    LongTrustDomain(usize),
    #[error("the trust domain holds {0:?}; only a-z, 0-9, '.', '-' and '_' are allowed")]
    TrustDomainCharacter(char),
    #[error("there is no path after the trust domain")]
    NoPath,
    #[error("the path has an empty segment (// or a / at its end)")]
    EmptySegment,
    #[error("the path has the segment {0:?}; relative segments are not allowed")]
    Relative(String),
    #[error("the path holds {0:?}; only letters, digits, '.', '-' and '_' are allowed")]
    PathCharacter(char),
    #[error("{0} bytes are over the limit of 2048")]
    Long(usize),
    #[error("'*' is allowed as the whole last segment only, as in spiffe://example.com/myapp/*")]
    Star,
}

impl TrustDomain {
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::NoTrustDomain);
        }
        if text.len() > 255 {
            return Err(Error::LongTrustDomain(text.len()));
        }
        let allowed = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
        match text.chars().find(|c| !allowed(c)) {
            Some(wrong) => Err(Error::TrustDomainCharacter(wrong)),
            None => Ok(Self(text.to_owned())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SpiffeId {
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_ID {
            return Err(Error::Long(text.len()));
        }
        let (domain, path) = split(text)?;
        TrustDomain::parse(domain)?;
        check_path(path)?;
        Ok(Self(text.to_owned()))
    }

    /// `path` was checked when it was read.
    pub fn of(domain: &TrustDomain, path: &str) -> Self {
        Self(format!("spiffe://{}/{path}", domain.0))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn trust_domain(&self) -> &str {
        self.0["spiffe://".len()..].split('/').next().unwrap_or_default()
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entry of an allow list: an ID, or an ID whose last segment is `*`.
pub fn parse_pattern(text: &str) -> Result<IdPattern, Error> {
    if !text.starts_with(SCHEME) {
        return Err(Error::Scheme);
    }
    let Some(under) = text.strip_suffix("/*") else {
        return match text.contains('*') {
            true => Err(Error::Star),
            false => SpiffeId::parse(text).map(|id| IdPattern::Exact(id.0)),
        };
    };
    if text.len() > MAX_ID {
        return Err(Error::Long(text.len()));
    }
    if under.contains('*') {
        return Err(Error::Star);
    }
    // `spiffe://example.com/*` admits the whole trust domain.
    let rest = under.strip_prefix(SCHEME).ok_or(Error::NoTrustDomain)?;
    match rest.split_once('/') {
        None => drop(TrustDomain::parse(rest)?),
        Some((domain, path)) => {
            TrustDomain::parse(domain)?;
            check_path(path)?;
        }
    }
    Ok(IdPattern::Under(format!("{under}/")))
}

/// The path of an ID, without the slash before it.
pub fn check_path(path: &str) -> Result<(), Error> {
    if path.is_empty() {
        return Err(Error::NoPath);
    }
    path.split('/').try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), Error> {
    match segment {
        "" => Err(Error::EmptySegment),
        "." | ".." => Err(Error::Relative(segment.to_owned())),
        _ => match segment.chars().find(|c| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_')) {
            Some(wrong) => Err(Error::PathCharacter(wrong)),
            None => Ok(()),
        },
    }
}

fn split(text: &str) -> Result<(&str, &str), Error> {
    let rest = text.strip_prefix(SCHEME).ok_or(Error::Scheme)?;
    match rest.split_once('/') {
        Some(("", _)) | None if rest.is_empty() || rest.starts_with('/') => Err(Error::NoTrustDomain),
        Some(parts) => Ok(parts),
        None => TrustDomain::parse(rest).and(Err(Error::NoPath)),
    }
}

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID §2.3.
pub const MAX_ID: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_exactly_as_the_standard_has_it() {
        let longest = format!("spiffe://example.com/{}", "a".repeat(MAX_ID - "spiffe://example.com/".len()));
        for (text, want) in [
            ("spiffe://example.com/a", Ok(())),
            ("spiffe://example.com/myapp/App_1/a.b-c", Ok(())),
            ("spiffe://10.0.0.1/a", Ok(())),
            (longest.as_str(), Ok(())),
            (&format!("{longest}a"), Err(Error::Long(MAX_ID + 1))),
            ("", Err(Error::Scheme)),
            ("SPIFFE://example.com/a", Err(Error::Scheme)),
            ("https://example.com/a", Err(Error::Scheme)),
            ("spiffe://", Err(Error::NoTrustDomain)),
            ("spiffe:///a", Err(Error::NoTrustDomain)),
            ("spiffe://example.com", Err(Error::NoPath)),
            ("spiffe://example.com/", Err(Error::NoPath)),
            ("spiffe://example.com/a/", Err(Error::EmptySegment)),
            ("spiffe://example.com//a", Err(Error::EmptySegment)),
            ("spiffe://example.com/a/../b", Err(Error::Relative("..".into()))),
            ("spiffe://example.com/a/./b", Err(Error::Relative(".".into()))),
            ("spiffe://example.com/a%20b", Err(Error::PathCharacter('%'))),
            ("spiffe://example.com/a?b", Err(Error::PathCharacter('?'))),
            ("spiffe://example.com/ä", Err(Error::PathCharacter('ä'))),
            ("spiffe://Example.com/a", Err(Error::TrustDomainCharacter('E'))),
            ("spiffe://user@example.com/a", Err(Error::TrustDomainCharacter('@'))),
            ("spiffe://example.com:443/a", Err(Error::TrustDomainCharacter(':'))),
            (&format!("spiffe://{}/a", "a".repeat(256)), Err(Error::LongTrustDomain(256))),
        ] {
            assert_eq!(SpiffeId::parse(text).map(drop), want, "{text}");
        }
    }

    #[test]
    fn a_pattern_is_an_id_or_all_under_a_path() {
        let under = |text: &str| Ok(IdPattern::Under(text.into()));
        for (text, want) in [
            ("spiffe://example.com/a", Ok(IdPattern::Exact("spiffe://example.com/a".into()))),
            ("spiffe://example.com/a/*", under("spiffe://example.com/a/")),
            ("spiffe://example.com/*", under("spiffe://example.com/")),
            ("spiffe://*", Err(Error::NoTrustDomain)),
            ("spiffe:///*", Err(Error::NoTrustDomain)),
            ("*", Err(Error::Scheme)),
            ("/*", Err(Error::Scheme)),
            ("spiffe://example.com/a*", Err(Error::Star)),
            ("spiffe://example.com/*/*", Err(Error::Star)),
            ("spiffe://example.com//*", Err(Error::NoPath)),
            ("spiffe://example.com/../*", Err(Error::Relative("..".into()))),
        ] {
            assert_eq!(parse_pattern(text), want, "{text}");
        }
    }
}
