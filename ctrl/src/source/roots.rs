//! The roots of a trust domain: how many, until when, and when one is none.

use std::collections::HashSet;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Of these, those that have not expired, each once, in their order. A verifier that builds chains
/// does not look at a root's own dates.
pub fn valid(roots: Vec<Vec<u8>>, now: u64) -> Vec<Vec<u8>> {
    let mut seen = HashSet::new();
    let mut valid = Vec::new();
    for root in roots {
        // Many workloads bring the same ones: parsed once.
        if !seen.contains(&root) {
            seen.insert(root.clone());
            valid.push(root);
        }
    }
    valid.retain(|root| not_after(root).is_none_or(|end| end > now));
    valid
}

/// When it ends, in seconds since the epoch; None if that cannot be read.
pub fn not_after(certificate: &[u8]) -> Option<u64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0))
}

/// Whether peers of `trust_domain` can be verified against it; Err says what it is instead.
pub fn check(der: &[u8], trust_domain: &str) -> Result<(), String> {
    let (rest, root) = X509Certificate::from_der(der).map_err(|error| format!("does not parse: {error}"))?;
    if !rest.is_empty() {
        return Err("has bytes behind it".into());
    }
    if !root.is_ca() {
        return Err(format!("is no CA certificate (subject {})", root.subject()));
    }
    let names = root.subject_alternative_name().map_err(|_| "has alternative names that do not parse")?;
    let foreign = names.iter().flat_map(|names| &names.value.general_names).find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://").filter(|id| id.split('/').next() != Some(trust_domain)),
        _ => None,
    });
    if let Some(foreign) = foreign {
        return Err(format!("is of spiffe://{}, not of trust domain {trust_domain}", foreign.escape_debug()));
    }
    // The dataplane would refuse the whole snapshot for one that this does not take.
    let anchor = webpki::anchor_from_trusted_cert(&CertificateDer::from(der)).map(drop);
    anchor.map_err(|error| format!("cannot be trusted: {error}"))
}

/// Of one bundle: with many roots of one name each handshake would try them all.
pub const MOST: usize = 100;
/// Of all sources of a node.
pub const MOST_TOGETHER: usize = 256;
