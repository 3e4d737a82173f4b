//! Which CRLs are taken: what an issuer of their trust domain has signed, and nothing older than what is held.
//!
//! Of files that is asked before a configuration is, and before each snapshot; of what is fetched, when it comes.
//! One that was taken stays: it is known by its digest, so that its issuer's root may go, after which nobody
//! chains to it any more.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use snapshot::check::MOST_REVOKED;

use crate::config::crl::RevocationList;
use crate::config::crls::Crl;
use crate::config::roots::{Certificate, signed_by};
use crate::config::{Diagnostic, Loaded, TrustBundle};
use crate::rotate::Identities;
use crate::web::Url;

/// Those that were taken, by trust domain and issuer.
#[derive(Debug, Default)]
pub struct Held(HashMap<(String, [u8; 32]), One>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct One {
    sha256: [u8; 32],
    number: String,
    issued: u64,
}

/// The same for the next process, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known(Vec<(String, [u8; 32], One)>);

impl From<Known> for Held {
    fn from(known: Known) -> Self {
        Self(known.0.into_iter().map(|(domain, issuer, one)| ((domain, issuer), one)).collect())
    }
}

impl Held {
    /// All that is wrong with those of `loaded`.
    pub fn check(&self, loaded: &Loaded, identities: &Identities, now: u64) -> Result<(), Vec<Diagnostic>> {
        let mut faults = Vec::new();
        for bundle in loaded.bundles.iter().filter(|bundle| !bundle.crls.is_empty()) {
            let known = issuers(bundle, loaded, identities, now);
            for crl in bundle.crls.iter().filter(|crl| !crl.is_fetched) {
                let of_one = other(bundle, crl).map_or(Ok(()), |why| Err((why, ONE.into())));
                if let Err((why, help)) = of_one.and_then(|()| self.check_one(bundle, crl, &known, now)) {
                    let message = format!("{:?}: {why}", crl.from);
                    faults.push(Diagnostic::error(&crl.place, &crl.path, message).help(help));
                }
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Whether what was fetched for this URL is taken, in place of what was fetched before.
    pub fn judge(
        &self,
        (domain, url, list): (&str, &Url, &Arc<RevocationList>),
        loaded: &Loaded,
        identities: &Identities,
        now: u64,
    ) -> Result<(), String> {
        let of_domain = |bundle: &&TrustBundle| bundle.trust_domain.as_str() == domain;
        let bundle = loaded.bundles.iter().find(of_domain).ok_or("nobody wants it any more")?;
        let entry = bundle.crl_urls.iter().find(|crl| crl.url == *url).ok_or("nobody wants it any more")?;
        let crl = entry.with(list.clone());
        let last = bundle.crls.iter().find(|last| last.path == crl.path).map(|last| &last.list);
        if let Some(last) = last.filter(|last| last.issuer_id != list.issuer_id) {
            // What it revokes would be revoked no more; over http that may be somebody on the way.
            let (was, is) = (&last.issuer, &list.issuer);
            return Err(format!("it is of {is}, and {was} is whose CRL was here; if that is meant, {AGAIN}"));
        }
        if let Some(last) = last.filter(|last| list.is_older_than((&last.number, last.issued))) {
            return Err(format!("its CRL number is {}, older than number {}, which is held", list.number, last.number));
        }
        if let Some(why) = other(bundle, &crl) {
            return Err(format!("{why}; {ONE}"));
        }
        let left = bundle.crls.iter().filter(|left| bundle.is_left(left) && left.list.issuer_id == list.issuer_id);
        let replaced = last.into_iter().chain(left.map(|left| &left.list));
        let (entries, gone) = (list.serials.len(), replaced.map(|list| list.serials.len()).sum::<usize>());
        let all: usize = loaded.bundles.iter().map(TrustBundle::revokes).sum();
        let of_all: usize = loaded.bundles.iter().map(fetched).sum();
        for (before, most, what) in [
            (fetched(bundle), MOST_OF_DOMAIN, "fetched for one trust domain"),
            (of_all, MOST_FETCHED, "fetched for all trust domains"),
            (all, MOST_REVOKED, "revoked"),
        ] {
            if before + entries - gone > most {
                return Err(format!("with its {entries} entries more than {most} would be {what}"));
            }
        }
        let known = issuers(bundle, loaded, identities, now);
        self.check_one(bundle, &crl, &known, now).map_err(|(why, help)| format!("{why}; want {help}"))
    }

    fn check_one(&self, bundle: &TrustBundle, crl: &Crl, known: &[Vec<u8>], now: u64) -> Result<(), (String, String)> {
        let list = &crl.list;
        let held = self.0.get(&(bundle.trust_domain.to_string(), list.issuer_id));
        if held.is_some_and(|held| held.sha256 == list.sha256) {
            return Ok(());
        }
        if let Some(held) = held.filter(|held| list.is_older_than((&held.number, held.issued))) {
            let why = format!("its CRL number is {}, older than number {}, which is held", list.number, held.number);
            return Err((why, "put the newest in place; to go back for once, take the entry out before".into()));
        }
        let domain = &bundle.trust_domain;
        let given = !crl.issuers.is_empty();
        let led: Vec<_> = crl.issuers.iter().filter(|der| leads_up(der, &crl.issuers, known, DEEPEST, now)).collect();
        if given && led.is_empty() {
            let why = format!("no certificate of its `issuer` is valid now and leads up to a root of {domain}");
            return Err((why, "the CA that signs it, and those between it and a root".into()));
        }
        let may_sign = known.iter().filter(|_| !given).chain(led);
        let mut refusal = None;
        for found in may_sign.filter_map(|der| list.signed_by(der)) {
            match found {
                Ok(()) => return Ok(()),
                // Of several by one name, any may be the one.
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        let nobody = || match given {
            true => format!("its issuer {} is no CA of its `issuer`", list.issuer),
            false => {
                format!("its issuer {} is no root of {domain}, nor an intermediate that is known of it", list.issuer)
            }
        };
        let help = format!("a CRL that a CA of {domain} has signed, whose certificate has the key usage cRLSign");
        Err((refusal.unwrap_or_else(nobody), help))
    }

    /// What [`Held::from`] makes the same of.
    pub fn known(&self) -> Known {
        let mut all: Vec<_> =
            self.0.iter().map(|((domain, issuer), one)| (domain.clone(), *issuer, one.clone())).collect();
        all.sort_unstable_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        Known(all)
    }

    /// They are in force from now on. What is configured no longer is forgotten; what has yet to be fetched may be
    /// one of those that are known.
    pub fn take(&mut self, loaded: &Loaded) {
        let awaits = |domain: &str| {
            let mut of_domain = loaded.bundles.iter().filter(|bundle| bundle.trust_domain.as_str() == domain);
            of_domain.any(|bundle| bundle.awaited().next().is_some())
        };
        let mut before = std::mem::take(&mut self.0);
        before.retain(|(domain, _), _| awaits(domain));
        let all = loaded.bundles.iter().flat_map(|bundle| bundle.crls.iter().map(move |crl| (bundle, crl)));
        let one = |(bundle, Crl { list, .. }): (&TrustBundle, &Crl)| {
            let held = One { sha256: list.sha256, number: list.number.clone(), issued: list.issued };
            ((bundle.trust_domain.to_string(), list.issuer_id), held)
        };
        self.0 = before;
        self.0.extend(all.map(one));
    }
}

/// Entries of the CRLs that others publish.
fn fetched(bundle: &TrustBundle) -> usize {
    bundle.crls.iter().filter(|crl| crl.is_fetched).map(|crl| crl.list.serials.len()).sum()
}

/// Where else its issuer's CRL comes from.
fn other(bundle: &TrustBundle, crl: &Crl) -> Option<String> {
    let same =
        |other: &&Crl| other.path != crl.path && other.list.issuer_id == crl.list.issuer_id && !bundle.is_left(other);
    let other = bundle.crls.iter().find(same)?;
    Some(format!("it is of {}, as {} is", crl.list.issuer, other.from))
}

/// Whether the certificate is valid now, and signed by a CA of `known`, or by one of `given` of which the same holds.
fn leads_up(certificate: &[u8], given: &[Vec<u8>], known: &[Vec<u8>], steps: usize, now: u64) -> bool {
    let shown = Certificate::shown(certificate);
    let valid = (shown.not_before..=shown.not_after).contains(&now);
    let by_given = |steps| {
        let mut above = given.iter().filter(|one| one.as_slice() != certificate && signed_by(certificate, one));
        above.any(|one| leads_up(one, given, known, steps, now))
    };
    let by_known = || known.iter().any(|one| one == certificate || signed_by(certificate, one));
    valid && (by_known() || steps.checked_sub(1).is_some_and(by_given))
}

const ONE: &str = "an issuer has one complete CRL: take one of them out";
const AGAIN: &str = "take the entry out and put it in again";
/// Certificates between a CA and a root. A path that goes round ends there, too.
const DEEPEST: usize = 4;

/// What others publish leaves room: for each other's, and for whom the operator revokes.
pub const MOST_OF_DOMAIN: usize = MOST_REVOKED / 4;
pub const MOST_FETCHED: usize = MOST_REVOKED / 2;

/// The roots that somebody of the trust domain is verified by now.
pub fn roots_of(domain: &str, loaded: &Loaded, identities: &Identities, now: u64) -> Vec<Vec<u8>> {
    let bundle = loaded.bundles.iter().find(|bundle| bundle.trust_domain.as_str() == domain);
    let mut roots: Vec<_> = bundle
        .into_iter()
        .flat_map(|bundle| bundle.valid_roots(now))
        .map(|root| root.certificate.der.clone())
        .collect();
    if domain == loaded.gateway.trust_domain.as_str() {
        roots.extend(identities.bundle(now).roots);
    } else if !bundle.is_some_and(|bundle| bundle.decides(domain)) {
        let brought = identities.federated(now).into_iter().filter(|one| one.trust_domain == domain);
        roots.extend(brought.flat_map(|one| one.roots));
    }
    roots
}

/// Certificates of CAs that may have signed for the trust domain: its roots, and of our own what stands
/// between them and our SVIDs.
fn issuers(bundle: &TrustBundle, loaded: &Loaded, identities: &Identities, now: u64) -> Vec<Vec<u8>> {
    let mut issuers: Vec<_> = bundle.roots.iter().map(|root| root.certificate.der.clone()).collect();
    if bundle.trust_domain == loaded.gateway.trust_domain {
        issuers.extend(identities.bundle(now).roots);
        issuers.extend(identities.iter().flat_map(|(_, svid)| svid.chain.iter().skip(1).cloned()));
    }
    let brought = identities.federated(now).into_iter();
    issuers.extend(brought.filter(|one| one.trust_domain == bundle.trust_domain.as_str()).flat_map(|one| one.roots));
    issuers.sort_unstable();
    issuers.dedup();
    issuers
}
