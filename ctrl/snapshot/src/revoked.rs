//! Whom nobody speaks to any more: deny lists of a trust domain, and how serials are written.
//!
//! They stand beside the trust domain's [`Bundle`](crate::Bundle), not in it: a changed list leaves
//! the roots what they were, and with them all that was verified by them.

use serde::{Deserialize, Serialize};

use crate::{IdPattern, RuleId};

/// The deny lists of one trust domain, each entry with the place that it stands in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Revoked {
    pub trust_domain: String,
    pub ids: Vec<(IdPattern, RuleId)>,
    /// As [`normal_serial`] writes them. Whichever CA of the trust domain has signed.
    pub serials: Vec<(String, RuleId)>,
    /// At most one of each issuer.
    pub crls: Vec<Crl>,
}

/// What the CRL of one issuer says (RFC 5280 §5). A serial in it is one of that issuer's and of no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crl {
    /// SHA-256 of the issuer's Name, without the header of its SEQUENCE.
    pub issuer: [u8; 32],
    /// As [`normal_serial`] writes them.
    pub serials: Vec<String>,
    pub rule: RuleId,
    /// Its nextUpdate, in seconds since the epoch, if peers of the trust domain are refused after it.
    pub fails_after: Option<u64>,
    /// Whether that was over when the snapshot was made: what tells living connections.
    pub is_stale: bool,
}

impl Revoked {
    pub fn rules(&self) -> impl Iterator<Item = RuleId> {
        let listed = self.ids.iter().map(|(_, rule)| *rule).chain(self.serials.iter().map(|(_, rule)| *rule));
        listed.chain(self.crls.iter().map(|crl| crl.rule))
    }

    /// IDs and serials, those of CRLs among them.
    pub fn entries(&self) -> usize {
        self.ids.len() + self.serials.len() + self.crls.iter().map(|crl| crl.serials.len()).sum::<usize>()
    }
}

/// A serial as [`Svid::serial`](crate::Svid) has it: lower-case hex of whole bytes, without colons,
/// without bytes of zero before it. None if the text is none of at most 20 bytes (RFC 5280 §4.1.2.2).
pub fn normal_serial(text: &str) -> Option<String> {
    let colons_ok = !text.contains(':') || text.split(':').all(|byte| byte.len() == 2);
    let digits: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    if !colons_ok || digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    let normal = match significant.len() {
        0 => "00".to_owned(),
        odd if odd % 2 == 1 => format!("0{significant}"),
        _ => significant.to_owned(),
    };
    (normal.len() <= 2 * MOST_SERIAL_BYTES).then_some(normal)
}

const MOST_SERIAL_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_written_in_one_way_whatever_tool_it_was_copied_from() {
        let longest = "7f".repeat(20);
        for (text, want) in [
            ("beef", Some("beef")),
            ("BE:EF", Some("beef")),
            ("00:BE:EF", Some("beef")),
            ("0000beef", Some("beef")),
            ("bee", Some("0bee")),
            ("b", Some("0b")),
            ("0", Some("00")),
            ("00:00", Some("00")),
            (longest.as_str(), Some(longest.as_str())),
            (&format!("00{longest}"), Some(longest.as_str())),
            (&format!("01{longest}"), None),
            ("", None),
            (":", None),
            ("b:eef", None),
            ("be:ef:", None),
            ("0xbeef", None),
            ("be ef", None),
            ("-beef", None),
        ] {
            assert_eq!(normal_serial(text).as_deref(), want, "{text:?}");
        }
    }
}
