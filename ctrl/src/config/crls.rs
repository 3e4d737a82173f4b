//! `spec.crls` of a TrustBundle: files and URLs, what each is to do when it is stale, and what is wrong with them.

use std::sync::Arc;
use std::time::Duration;

use super::crl::{self, RevocationList};
use super::decode::{Faults, Field};
use super::endpoint::{LONGEST, SHORTEST, decode_url};
use super::trust::{read_bytes, read_file};
use super::{Diagnostic, Place, TrustBundle, TrustDomain, roots};
use crate::rotate::utc;
use crate::web::Url;

#[derive(Debug, Clone, PartialEq)]
pub struct Crl {
    pub list: Arc<RevocationList>,
    pub on_stale: OnStale,
    /// Who may have signed it besides the CAs that are known anyway: certificates that lead up to a root.
    pub issuers: Arc<Vec<Vec<u8>>>,
    /// The file that it came from, as it is written; the URL.
    pub from: String,
    /// It was judged when it came.
    pub is_fetched: bool,
    pub place: Place,
    pub path: String,
}

/// A CRL that is fetched. What was fetched of it last stands among the others.
#[derive(Debug, Clone, PartialEq)]
pub struct CrlUrl {
    pub url: Url,
    /// It is looked at so often at least, and oftener towards its nextUpdate.
    pub refresh: Duration,
    pub on_stale: OnStale,
    pub issuers: Arc<Vec<Vec<u8>>>,
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
pub fn decode(list: &Field<'_>, trust_domain: &TrustDomain, faults: &mut Faults<'_>) -> (Vec<Crl>, Vec<CrlUrl>) {
    let entries = list.list(faults).unwrap_or_default();
    if entries.is_empty() || entries.len() > MOST {
        let message = format!("{} CRLs; 1 to {MOST} are taken", entries.len());
        faults.error(list.at(), &list.path, message, "give one for each issuer, or leave the field out");
    }
    let (mut crls, mut urls): (Vec<Crl>, Vec<CrlUrl>) = (Vec::new(), Vec::new());
    for entry in entries.iter().take(MOST) {
        match decode_entry(entry, trust_domain, faults) {
            None => {}
            Some(Entry::File(crl)) => match crls.iter().find(|earlier| earlier.list.issuer_id == crl.list.issuer_id) {
                Some(earlier) => {
                    let message = format!("{:?} is of {}, as {:?} is", crl.from, crl.list.issuer, earlier.from);
                    faults.error(entry.at(), &entry.path, message, "an issuer has one complete CRL: keep the newer");
                }
                None => crls.push(crl),
            },
            Some(Entry::Url(crl)) => match urls.iter().find(|earlier| earlier.url == crl.url) {
                Some(earlier) => {
                    let message = format!("{} is what {} is fetched from", crl.url, earlier.path);
                    faults.error(entry.at(), &entry.path, message, "take one of them out");
                }
                None => urls.push(crl),
            },
        }
    }
    (crls, urls)
}

enum Entry {
    File(Crl),
    Url(CrlUrl),
}

fn decode_entry(entry: &Field<'_>, trust_domain: &TrustDomain, faults: &mut Faults<'_>) -> Option<Entry> {
    let mut fields = entry.fields(faults)?;
    let (file, url) = (fields.optional("file"), fields.optional("url"));
    let on_stale = fields.optional("onStale").map_or(Some(OnStale::Warn), |field| field.choice(ON_STALE, faults));
    let (refresh, issuer) = (fields.optional("refreshInterval"), fields.optional("issuer"));
    fields.finish(faults);
    let place = faults.place(entry.at());
    let issuers = issuer.map_or(Some(vec![]), |map| decode_issuer(&map, trust_domain, faults)).map(Arc::new);
    if let Some(field) = refresh.as_ref().filter(|_| url.is_none()) {
        let help = "a file is watched; take it out, or give `url`";
        faults.error(field.at(), &field.path, "is for a CRL that is fetched", help);
    }
    let refresh = refresh.map_or(Some(REFRESH), |field| field.duration(SHORTEST..=LONGEST, faults));
    match (file, url) {
        (Some(field), None) => {
            let (list, from) = decode_file(&field, faults)?;
            let (on_stale, issuers, path) = (on_stale?, issuers?, entry.path.clone());
            Some(Entry::File(Crl { list, on_stale, issuers, from, is_fetched: false, place, path }))
        }
        (None, Some(field)) => {
            // What is in it is signed.
            let url = decode_url(&field, true, faults)?;
            let (on_stale, refresh, issuers) = (on_stale?, refresh?, issuers?);
            Some(Entry::Url(CrlUrl { url, refresh, on_stale, issuers, place, path: entry.path.clone() }))
        }
        // What is asked of a field that may have any value is noted once.
        (Some(file), Some(url)) if entry.is_any() => {
            let _ = (decode_file(&file, faults), decode_url(&url, true, faults));
            None
        }
        (Some(_), Some(_)) | (None, None) => {
            let help = "file: PATH, or url: http://…";
            faults.error(entry.at(), &entry.path, "a CRL has one origin", help);
            None
        }
    }
}

fn decode_file(field: &Field<'_>, faults: &mut Faults<'_>) -> Option<(Arc<RevocationList>, String)> {
    let name = field.text(faults)?;
    match read_bytes(name, crl::LARGEST, faults).and_then(|bytes| crl::read(&bytes)) {
        Ok(list) => Some((Arc::new(list), name.to_owned())),
        Err(why) => {
            faults.error(field.at(), &field.path, format!("{name:?}: {why}"), HELP);
            None
        }
    }
}

/// The certificate of the CA, and those between it and a root.
fn decode_issuer(map: &Field<'_>, trust_domain: &TrustDomain, faults: &mut Faults<'_>) -> Option<Vec<Vec<u8>>> {
    let mut fields = map.fields(faults)?;
    let file = fields.required("file", faults);
    fields.finish(faults);
    let field = file?;
    let name = field.text(faults)?;
    let read = read_file(name, faults).and_then(|text| roots::read(&text, trust_domain));
    match read {
        Ok(found) if found.len() <= MOST_ISSUERS => {
            Some(found.into_iter().map(|certificate| certificate.der).collect())
        }
        wrong => {
            let why = wrong.map_or_else(
                |why| why,
                |found| format!("holds {} certificates, at most {MOST_ISSUERS} are taken", found.len()),
            );
            let help = "the CA that signs this CRL, and those up to a root, as PEM below the configuration directory";
            faults.error(field.at(), &field.path, format!("{name:?}: {why}"), help);
            None
        }
    }
}

impl CrlUrl {
    /// As it is with what was fetched.
    pub fn with(&self, list: Arc<RevocationList>) -> Crl {
        let (on_stale, issuers, from) = (self.on_stale, self.issuers.clone(), self.url.to_string());
        Crl { list, on_stale, issuers, from, is_fetched: true, place: self.place.clone(), path: self.path.clone() }
    }
}

/// Those that are past their nextUpdate, or from the future. Time is no fault of a file.
pub fn expiry(bundles: &[TrustBundle], now: u64) -> impl Iterator<Item = Diagnostic> {
    let all = bundles.iter().flat_map(|bundle| bundle.crls.iter().map(move |crl| (bundle, crl)));
    all.filter_map(move |(bundle, Crl { list, on_stale, from, place, path, .. })| {
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
/// Of one CRL, up to a root.
const MOST_ISSUERS: usize = 8;
const REFRESH: Duration = Duration::from_secs(3_600);
