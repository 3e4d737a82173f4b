//! Whom of a trust domain a node speaks to now: by its roots, and unless somebody has revoked him.
//!
//! The dataplane asks its peers the same by its snapshot. Here it is for whom this process itself asks by a SPIFFE ID:
//! who answers for a bundle endpoint says whom else to trust.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use snapshot::normal_serial;
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::config::crl::RevocationList;
use crate::config::crls::OnStale;
use crate::config::{Loaded, SpiffeId, TrustBundle};
use crate::crls::roots_of;
use crate::rotate::{Identities, utc};

/// Of the trust domain of one ID. Two that are equal decide alike.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trusted {
    /// DER, each once, in order.
    pub roots: Vec<Vec<u8>>,
    /// Why nobody of that ID is spoken to, whatever he shows.
    pub(crate) nobody: Option<String>,
    /// With the places that revoke them.
    pub(crate) serials: Vec<(String, String)>,
    pub(crate) crls: Vec<List>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct List {
    list: Arc<RevocationList>,
    on_stale: OnStale,
    from: String,
}

impl Trusted {
    /// Whoever chains to these.
    pub fn by(roots: Vec<Vec<u8>>) -> Self {
        Self { roots, ..Self::default() }
    }

    pub fn of(id: &SpiffeId, loaded: &Loaded, identities: &Identities, now: u64) -> Self {
        let domain = id.trust_domain();
        let mut roots = roots_of(domain, loaded, identities, now);
        roots.sort_unstable();
        roots.dedup();
        let bundle = loaded.bundles.iter().find(|bundle| bundle.trust_domain.as_str() == domain);
        bundle.map_or(Self { roots: roots.clone(), ..Self::default() }, |bundle| Self {
            roots,
            nobody: nobody(id, bundle),
            serials: bundle.revoked_serials.iter().map(|one| (one.what.clone(), one.place.to_string())).collect(),
            crls: bundle.crls.iter().map(List::of).collect(),
        })
    }

    /// Whether everything else about the chain, which begins with the leaf, is to be looked at. Err says what it is
    /// that speaks against it.
    pub fn check(&self, chain: &[Vec<u8>], now: u64) -> Result<(), String> {
        if let Some(why) = &self.nobody {
            return Err(why.clone());
        }
        if let Some(crl) = self.crls.iter().find(|crl| crl.on_stale == OnStale::Fail && crl.list.is_stale(now)) {
            let (from, end) = (&crl.from, utc(crl.list.next));
            return Err(format!("CRL {from} is past its nextUpdate, {end}, and is to fail then (onStale)"));
        }
        let shown: Vec<_> = chain.iter().map(|der| Shown::of(der).ok_or("does not parse")).collect::<Result<_, _>>()?;
        let leaf = shown.first().ok_or("there is none")?;
        if let Some((serial, place)) = self.serials.iter().find(|(serial, _)| *serial == leaf.serial) {
            return Err(format!("its serial {serial} is revoked in {place} (spec.revoked.serials)"));
        }
        let revoked = |one: &Shown| self.crls.iter().find(|crl| crl.revokes(one)).map(|crl| (one.serial.clone(), crl));
        match shown.iter().zip(1..).find_map(|(one, nth)| Some((nth, revoked(one)?))) {
            Some((nth, (serial, crl))) => {
                let (from, issuer) = (&crl.from, &crl.list.issuer);
                Err(format!("certificate {nth} (serial {serial}) is revoked by CRL {from} of {issuer}"))
            }
            None => Ok(()),
        }
    }
}

/// By an entry, or since nobody knows who is revoked.
fn nobody(id: &SpiffeId, bundle: &TrustBundle) -> Option<String> {
    let entry = bundle.revoked_ids.iter().find(|one| one.what.matches(id.as_str()));
    let listed = entry.map(|one| format!("{id} is revoked in {} (spec.revoked.spiffeIDs)", one.place));
    let awaited = || {
        let crl = bundle.awaited().find(|crl| crl.on_stale == OnStale::Fail)?;
        Some(format!("CRL {} has not been got yet, and is to fail until then (onStale)", crl.url))
    };
    listed.or_else(awaited)
}

impl List {
    fn of(crl: &crate::config::crls::Crl) -> Self {
        Self { list: crl.list.clone(), on_stale: crl.on_stale, from: crl.from.clone() }
    }

    fn revokes(&self, one: &Shown) -> bool {
        self.list.issuer_id == one.issuer && self.list.serials.contains(&one.serial)
    }
}

/// What lists know a certificate by.
struct Shown {
    /// As [`snapshot::Crl::issuer`] has it.
    issuer: [u8; 32],
    serial: String,
}

impl Shown {
    fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let (_, name) = Any::from_der(certificate.issuer().as_raw()).ok()?;
        let issuer = digest(&SHA256, name.data).as_ref().try_into().expect("SHA-256 has 32 bytes");
        let serial: String =
            certificate.tbs_certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        // One that is longer than any may be is in no list.
        Some(Self { issuer, serial: normal_serial(&serial).unwrap_or(serial) })
    }
}
