//! SPIFFE IDs, and how one is read from a certificate (SPIFFE-ID §2, X509-SVID §2 and §4).
//!
//! URI SANs are counted as they stand in the certificate, also those that are no text: a library
//! that skips what it cannot parse would let a second name ride along.

use ::snapshot::RefuseReason::{PeerBadCertificate, PeerNoSpiffeId};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::Refusal;
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
        let domain_ok = !trust_domain.is_empty()
            && trust_domain.len() <= MAX_TRUST_DOMAIN
            && trust_domain.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
        (domain_ok && path.split('/').all(segment_ok)).then_some(Self { text, trust_domain })
    }
}

fn segment_ok(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// What a leaf certificate says about its holder, none of it proven yet.
#[derive(Debug)]
pub(super) struct Claim {
    pub id: String,
    pub trust_domain: String,
    pub serial: String,
    pub not_after: u64,
}

/// Reads the SPIFFE ID and holds the leaf to the rules of X509-SVID §4 that path building does not
/// know about.
pub(super) fn read_leaf(der: &[u8]) -> Result<Claim, Refusal> {
    let bad = |why: &str| Refusal::new(PeerBadCertificate, why);
    let (rest, leaf) = X509Certificate::from_der(der).map_err(|_| bad("the certificate does not parse"))?;
    if !rest.is_empty() {
        return Err(bad("bytes follow the certificate"));
    }
    let uri = the_uri(&leaf)?;
    let id = SpiffeId::parse(uri)
        .ok_or_else(|| Refusal::new(PeerNoSpiffeId, format!("its URI SAN {} is no SPIFFE ID", quoted(uri))))?;
    check_use(&leaf).map_err(bad)?;
    Ok(Claim {
        id: id.text.to_owned(),
        trust_domain: id.trust_domain.to_owned(),
        serial: hex_serial(leaf.tbs_certificate.raw_serial()),
        not_after: leaf.validity().not_after.timestamp().try_into().unwrap_or(0),
    })
}

fn the_uri<'a>(leaf: &'a X509Certificate<'_>) -> Result<&'a str, Refusal> {
    let names = match leaf.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names,
        Ok(None) => return Err(Refusal::new(PeerNoSpiffeId, "it has no subject alternative name")),
        Err(_) => return Err(Refusal::new(PeerBadCertificate, "its subject alternative names do not parse")),
    };
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(Some(*uri)),
        // Six is uniformResourceIdentifier (RFC 5280 §4.2.1.6): it counts, whatever is in it.
        GeneralName::Invalid(tag, _) if tag.0 == 6 => Some(None),
        _ => None,
    });
    let first = uris.next().ok_or_else(|| Refusal::new(PeerNoSpiffeId, "it has no URI SAN"))?;
    let more = uris.count();
    if more > 0 && !planted::is(Bug::SecondSanUnchecked) {
        return Err(Refusal::new(PeerNoSpiffeId, format!("it has {} URI SANs, not one", more + 1)));
    }
    first.ok_or_else(|| Refusal::new(PeerNoSpiffeId, "its URI SAN is not text"))
}

fn check_use(leaf: &X509Certificate<'_>) -> Result<(), &'static str> {
    match leaf.basic_constraints() {
        Ok(Some(basic)) if basic.value.ca => return Err("the leaf is a CA certificate"),
        Ok(_) => {}
        Err(_) => return Err("its basic constraints do not parse"),
    }
    match leaf.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() || usage.value.crl_sign() => {
            Err("its key usage lets the leaf sign certificates or CRLs")
        }
        Ok(Some(usage)) if !usage.value.digital_signature() => Err("its key usage lacks digitalSignature"),
        Ok(_) => Ok(()),
        Err(_) => Err("its key usage does not parse"),
    }?;
    let broken = |e: &ParsedExtension<'_>| matches!(e, ParsedExtension::ParseError { .. });
    match leaf.extensions().iter().any(|e| broken(e.parsed_extension())) {
        true => Err("one of its extensions does not parse"),
        false => Ok(()),
    }
}

/// As OpenSSL prints it, in lower case: no sign byte, and no other zeros before it, which would hide a
/// revoked serial.
fn hex_serial(raw: &[u8]) -> String {
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
