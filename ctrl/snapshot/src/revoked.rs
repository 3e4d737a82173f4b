//! Whom nobody speaks to any more: deny lists of a trust domain, and how serials are written.
//!
//! They stand beside the trust domain's [`Bundle`](crate::Bundle), not in it: a changed list leaves
//! the roots what they were, and with them all that was verified by them.

use serde::{Deserialize, Serialize};

use crate::{IdPattern, RuleId};

/// The deny lists of one trust domain, each entry with the place that it stands in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub trust_domain: String,
    pub ids: Vec<(IdPattern, RuleId)>,
    /// As [`normal_serial`] writes them. Whichever CA of the trust domain has signed.
    pub serials: Vec<(String, RuleId)>,
}

impl Revoked {
    pub fn rules(&self) -> impl Iterator<Item = RuleId> {
        self.ids.iter().map(|(_, rule)| *rule).chain(self.serials.iter().map(|(_, rule)| *rule))
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
