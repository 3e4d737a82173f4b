//! `spec.crls` of a TrustBundle: the files, what each is to do when it is stale, and what is wrong with them.

use std::sync::Arc;

use super::crl::{self, RevocationList};
use super::decode::{Faults, Field};
use super::trust::read_bytes;
use super::{Diagnostic, Place, TrustBundle};
use crate::rotate::utc;

#[derive(Debug, Clone, PartialEq)]
pub struct Crl {
    pub list: Arc<RevocationList>,
    pub on_stale: OnStale,
    /// The file that it came from, as it is written.
    pub from: String,
    pub place: Place,
    pub path: String,
}

/// What happens once a CRL is past its nextUpdate. What it revokes stays revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStale {
    Warn,
    /// Peers of its trust domain are refused: who was revoked since, nobody knows.
    Fail,
}

const ON_STALE: &[(&str, OnStale)] = &[("warn", OnStale::Warn), ("fail", OnStale::Fail)];

impl OnStale {
    pub fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What is wrong with one of them was noted.
pub fn decode(list: &Field<'_>, faults: &mut Faults<'_>) -> Vec<Crl> {
    let entries = list.list(faults).unwrap_or_default();
    if entries.is_empty() || entries.len() > MOST {
        let message = format!("{} CRLs; 1 to {MOST} are taken", entries.len());
        faults.error(list.at(), &list.path, message, "give one for each issuer, or leave the field out");
    }
    let mut crls: Vec<Crl> = Vec::new();
    for entry in entries.iter().take(MOST) {
        let Some(crl) = decode_entry(entry, faults) else { continue };
        match crls.iter().find(|earlier| earlier.list.issuer_id == crl.list.issuer_id) {
            Some(earlier) => {
                let message = format!("{:?} is of {}, as {:?} is", crl.from, crl.list.issuer, earlier.from);
                faults.error(entry.at(), &entry.path, message, "an issuer has one complete CRL: keep the newer");
            }
            None => crls.push(crl),
        }
    }
    crls
}

fn decode_entry(entry: &Field<'_>, faults: &mut Faults<'_>) -> Option<Crl> {
    let mut fields = entry.fields(faults)?;
    let file = fields.required("file", faults);
    let on_stale = fields.optional("onStale").map_or(Some(OnStale::Warn), |field| field.choice(ON_STALE, faults));
    fields.finish(faults);
    let (field, on_stale) = (file?, on_stale?);
    let name = field.text(faults)?;
    match read_bytes(name, crl::LARGEST, faults).and_then(|bytes| crl::read(&bytes)) {
        Ok(list) => {
            let (list, from, place) = (Arc::new(list), name.to_owned(), faults.place(entry.at()));
            Some(Crl { list, on_stale, from, place, path: entry.path.clone() })
        }
        Err(why) => {
            faults.error(field.at(), &field.path, format!("{name:?}: {why}"), HELP);
            None
        }
    }
}

/// Those that are past their nextUpdate, or from the future. Time is no fault of a file.
pub fn expiry(bundles: &[TrustBundle], now: u64) -> impl Iterator<Item = Diagnostic> {
    let all = bundles.iter().flat_map(|bundle| bundle.crls.iter().map(move |crl| (bundle, crl)));
    all.filter_map(move |(bundle, Crl { list, on_stale, from, place, path })| {
        let domain = &bundle.trust_domain;
        let (message, help) = if list.is_stale(now) {
            let so = match on_stale {
                OnStale::Warn => "it still holds, and who was revoked since is let in".to_owned(),
                OnStale::Fail => format!("peers of {domain} are refused (CrlStale)"),
            };
            let message = format!("CRL {from} of {} is past its nextUpdate, {}: {so}", list.issuer, utc(list.next));
            (message, "put the next one in its place")
        } else if now < list.issued {
            let message = format!("CRL {from} of {} is from the future, {}", list.issuer, utc(list.issued));
            (message, "check the clock")
        } else {
            return None;
        };
        Some(Diagnostic::warning(place, path, message).help(help))
    })
}

/// When the next of them is stale.
pub fn next_stale(bundles: &[TrustBundle], now: u64) -> Option<u64> {
    let ends = bundles.iter().flat_map(|bundle| &bundle.crls).map(|crl| crl.list.next);
    ends.filter(|end| now <= *end).min()
}

/// Of one TrustBundle: one for its root, and one for each intermediate.
const MOST: usize = 32;
const HELP: &str = "one complete CRL (PEM or DER), in a file below the configuration directory";
