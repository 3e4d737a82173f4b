//! Which CRLs are taken: what an issuer of their trust domain has signed, and nothing older than what is held.
//!
//! Asked before a configuration is, and before each snapshot. One that was taken stays: it is known by its
//! digest, so that its issuer's root may go, after which nobody chains to it any more.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::config::crls::Crl;
use crate::config::{Diagnostic, Loaded, TrustBundle};
use crate::rotate::Identities;

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
            let issuers = issuers(bundle, loaded, identities, now);
            for crl in &bundle.crls {
                if let Err((why, help)) = self.check_one(bundle, crl, &issuers) {
                    let message = format!("{:?}: {why}", crl.from);
                    faults.push(Diagnostic::error(&crl.place, &crl.path, message).help(help));
                }
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    fn check_one(&self, bundle: &TrustBundle, crl: &Crl, issuers: &[Vec<u8>]) -> Result<(), (String, String)> {
        let list = &crl.list;
        let held = self.0.get(&(bundle.trust_domain.to_string(), list.issuer_id));
        if held.is_some_and(|held| held.sha256 == list.sha256) {
            return Ok(());
        }
        if let Some(held) = held.filter(|held| list.is_older_than((&held.number, held.issued))) {
            let why = format!("its CRL number is {}, older than number {}, which is held", list.number, held.number);
            return Err((why, "put the newest in place; to go back for once, take the entry out before".into()));
        }
        let mut refusal = None;
        for found in issuers.iter().filter_map(|der| list.signed_by(der)) {
            match found {
                Ok(()) => return Ok(()),
                // Of several by one name, any may be the one.
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        let domain = &bundle.trust_domain;
        let nobody =
            || format!("its issuer {} is no root of {domain}, nor an intermediate that is known of it", list.issuer);
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

    /// They are in force from now on. What is configured no longer is forgotten.
    pub fn take(&mut self, loaded: &Loaded) {
        let all = loaded.bundles.iter().flat_map(|bundle| bundle.crls.iter().map(move |crl| (bundle, crl)));
        let one = |(bundle, Crl { list, .. }): (&TrustBundle, &Crl)| {
            let held = One { sha256: list.sha256, number: list.number.clone(), issued: list.issued };
            ((bundle.trust_domain.to_string(), list.issuer_id), held)
        };
        self.0 = all.map(one).collect();
    }
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
