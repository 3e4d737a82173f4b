//! SPIFFE IDs, and how one is read from a certificate (SPIFFE-ID §2, X509-SVID §2 and §4).
//!
//! URI SANs are counted as they stand in the certificate, also those that are no text: a library
//! that skips what it cannot parse would let a second name ride along.

use ::snapshot::RefuseReason::PeerNoSpiffeId;

use super::certificate::{Certificate, Fault, Place};
use super::{Refusal, rules};
use crate::planted::{self, Bug};

/// A valid SPIFFE ID with a path, as a workload has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpiffeId<'a> {
    pub text: &'a str,
    pub trust_domain: &'a str,
}

/// SPIFFE-ID §2.3: longer ones need not be supported, and so are not.
const MAX_ID: usize = 2048;
const MAX_TRUST_DOMAIN: usize = 255;

impl<'a> SpiffeId<'a> {
    /// None unless the text is a SPIFFE ID to the letter: no upper case in scheme or trust domain,
    /// no empty, `.` or `..` segments, no port, user, query or fragment, no percent-encoding.
    pub fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("spiffe://").filter(|_| text.len() <= MAX_ID)?;
        let (trust_domain, path) = rest.split_once('/')?;
        let ok = trust_domain_ok(trust_domain) && path.split('/').all(segment_ok);
        ok.then_some(Self { text, trust_domain })
    }
}

fn trust_domain_ok(name: &str) -> bool {
    (1..=MAX_TRUST_DOMAIN).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
}

fn segment_ok(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// The trust domain of a SPIFFE ID that has no path, as a signing certificate may have one.
pub(super) fn trust_domain(text: &str) -> Option<&str> {
    text.strip_prefix("spiffe://").filter(|name| trust_domain_ok(name))
}

/// What a leaf certificate says about its holder, none of it proven yet.
#[derive(Debug)]
pub(super) struct Claim {
    pub id: String,
    pub trust_domain: String,
    pub serial: String,
    pub not_after: u64,
}

/// Reads the SPIFFE ID of a leaf, and holds the leaf to the rules that need no path.
pub(super) fn read_leaf(der: &[u8]) -> Result<(Claim, Certificate<'_>), Refusal> {
    let read = || {
        let leaf = Certificate::read(der)?;
        let uri = the_uri(&leaf)?;
        let id = SpiffeId::parse(uri)
            .ok_or_else(|| Fault::new(PeerNoSpiffeId, format!("its URI SAN {} is no SPIFFE ID", quoted(uri))))?;
        rules::leaf(&leaf)?;
        let claim = Claim {
            id: id.text.to_owned(),
            trust_domain: id.trust_domain.to_owned(),
            serial: hex_serial(leaf.serial()),
            not_after: leaf.validity().1.try_into().unwrap_or(0),
        };
        Ok((claim, leaf))
    };
    read().map_err(|fault: Fault| fault.of(&Place::Leaf))
}

fn the_uri<'a>(leaf: &Certificate<'a>) -> Result<&'a str, Fault> {
    let none = |what: &str| Fault::new(PeerNoSpiffeId, what);
    if !leaf.has_names() {
        return Err(none("it has no subject alternative name"));
    }
    let mut uris = leaf.uris();
    let first = uris.next().ok_or_else(|| none("it has no URI SAN"))?;
    let more = uris.count();
    if more > 0 && !planted::is(Bug::SecondSanUnchecked) {
        return Err(none(&format!("it has {} URI SANs, not one", more + 1)));
    }
    std::str::from_utf8(first).map_err(|_| none("its URI SAN is not text"))
}

/// As OpenSSL prints it, in lower case: no sign byte, and no other zeros before it, which would hide a
/// revoked serial.
pub(super) fn hex_serial(raw: &[u8]) -> String {
    let first = raw.iter().position(|byte| *byte != 0).unwrap_or(raw.len().saturating_sub(1));
    raw[first..].iter().map(|b| format!("{b:02x}")).collect()
}

/// A stranger's text, fit for a log: escaped, and not long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 120;
    let shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(SHOWN).is_some() { "…" } else { "" };
    format!("\"{shown}{more}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_spiffe_ids_to_the_letter_are_taken() {
        let long = format!("spiffe://example.com/{}", "a".repeat(MAX_ID - 21));
        let too_long = format!("{long}a");
        for (text, want) in [
            ("spiffe://example.com/myapp/app/frontend", Some("example.com")),
            ("spiffe://a-b_c.9/X.y-z_1", Some("a-b_c.9")),
            (&long, Some("example.com")),
            (&too_long, None),
            ("spiffe://example.com", None),
            ("spiffe://example.com/", None),
            ("spiffe:///a", None),
            ("SPIFFE://example.com/a", None),
            ("spiffe://Example.com/a", None),
            ("spiffe://example.com:443/a", None),
            ("spiffe://user@example.com/a", None),
            ("spiffe://example.com//a", None),
            ("spiffe://example.com/a/", None),
            ("spiffe://example.com/./a", None),
            ("spiffe://example.com/../a", None),
            ("spiffe://example.com/a?b", None),
            ("spiffe://example.com/a#b", None),
            ("spiffe://example.com/%61", None),
            ("spiffe://example.com/ü", None),
            ("spiffe://example.com/a\0", None),
            ("https://example.com/a", None),
            ("", None),
        ] {
            assert_eq!(SpiffeId::parse(text).map(|id| id.trust_domain), want, "{text}");
        }
    }

    #[test]
    fn a_strangers_text_is_escaped_and_cut() {
        assert_eq!(quoted("a\n\u{1b}[2J\""), r#""a\n\u{1b}[2J\"""#);
        assert!(quoted(&"x".repeat(5000)).len() < 200);
    }
}
