//! One SVID: a key that never leaves this process, a CSR for it, and the answer held to what was asked.
//!
//! What comes back is judged as files are ([`svid`]): for this key, this SPIFFE ID alone, valid now, and
//! leading to a root of the mount.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::api::{Api, Csr, Signed};
use super::fault::{Fault, Problem};
use super::secret::Secret;
use crate::clock;
use crate::source::signer::Signer;
use crate::source::svid::{self, Expected, Origin, key};
use crate::source::{Error, IssuedSvid};

/// Who is wanted an SVID for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub expected: Expected,
    pub dns_names: Vec<String>,
}

/// An SVID that was right when it came, and is under the roots that are trusted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub issued: IssuedSvid,
    /// What is taken and still not as it should be.
    pub warnings: Vec<String>,
}

/// Has one signed. `roots` are the mount's.
pub async fn obtain(api: &Api, token: &Secret, order: &Order, roots: &[Vec<u8>]) -> Result<Held, Fault> {
    let crypto = |error: String| api.fault(Problem::Crypto(error));
    let (signer, pkcs8) = Signer::generate().map_err(|error: Error| crypto(error.to_string()))?;
    let csr = request(&signer, order).map_err(|error| crypto(error.to_string()))?;
    let names = order.dns_names.join(",");
    let asked = Csr {
        csr: &csr,
        uri_sans: order.expected.id.as_str(),
        alt_names: &names,
        ttl: format!("{}s", api.config.ttl.as_secs()),
        exclude_cn_from_sans: true,
    };
    let signed = api.sign(token, &asked).await?;
    check(api, &signed, &pkcs8, &order.expected, roots, clock::now())
}

/// PKCS#10 in PEM: no subject, the SPIFFE ID, and host names if they are wanted.
fn request(signer: &Signer, order: &Order) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(order.expected.id.as_str().try_into()?)];
    for name in &order.dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.serialize_request(signer)?.pem()
}

fn check(
    api: &Api,
    signed: &Signed,
    pkcs8: &Zeroizing<Vec<u8>>,
    expected: &Expected,
    roots: &[Vec<u8>],
    now: u64,
) -> Result<Held, Fault> {
    let places = Places::of(api);
    let origin = places.origin();
    let unreadable = |reason: String| api.fault(Problem::Answer { url: api.url(&api.config.path()), reason });
    let chain = chain(signed).map_err(unreadable)?;
    let judged = || -> Result<Held, svid::Fault> {
        let imported = || {
            let imported = key::import(key::Form::Pkcs8, pkcs8);
            imported.ok_or(svid::Fault::KeyKind { path: origin.key.to_owned(), wanted: key::KINDS })
        };
        let issued = svid::check_leaf(&chain, imported, &origin, expected, now)?;
        let mut warnings = Vec::new();
        svid::check_chain(&chain, roots, &origin, now, &mut warnings)?;
        Ok(Held { issued, warnings })
    };
    let held = judged().map_err(|fault| api.fault(Problem::Svid(fault)))?;
    let (at, ttl) = (held.issued.svid.not_after, api.config.ttl);
    if at > now + ttl.as_secs() + MOST_SKEW {
        let (url, role) = (api.url(&api.config.path()), format!("{}/roles/{}", api.config.mount, api.config.role));
        return Err(api.fault(Problem::LongLife { url, at, ttl: ttl.as_secs(), role }));
    }
    Ok(held)
}

/// Whether it still leads to a root.
pub fn leads(api: &Api, held: &Held, roots: &[Vec<u8>], now: u64) -> Result<(), Fault> {
    let places = Places::of(api);
    let chain = &held.issued.svid.chain;
    let checked = svid::check_chain(chain, roots, &places.origin(), now, &mut Vec::new());
    checked.map_err(|fault| api.fault(Problem::Svid(fault)))
}

/// The leaf and what leads from it to a root, without that.
fn chain(signed: &Signed) -> Result<Vec<Vec<u8>>, String> {
    let leaf = certificates(&signed.certificate).map_err(|why| format!("has a `certificate` that {why}"))?;
    if leaf.len() != 1 {
        return Err(format!("has {} certificates as `certificate`; want the leaf alone", leaf.len()));
    }
    let above: Vec<&String> = match &signed.ca_chain {
        Some(all) if !all.is_empty() => all.iter().collect(),
        Some(_) | None => signed.issuing_ca.iter().collect(),
    };
    let mut chain = leaf;
    // One more than is taken, so that too many are seen to be.
    for pem in above.iter().take(svid::LONGEST_CHAIN + 1) {
        let found = certificates(pem).map_err(|why| format!("has a `ca_chain` that {why}"))?;
        chain.extend(found.into_iter().filter(|der| !svid::self_signed(der)));
    }
    Ok(chain)
}

/// In DER, of PEM. Err: what the text is instead.
pub fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, String> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).map(|one| one.map(|der| der.to_vec()));
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| format!("is no PEM: {error}"))?;
    match found.is_empty() {
        true => Err("holds no certificate (PEM is expected)".into()),
        false => Ok(found),
    }
}

/// Seconds that the server's clock may be ahead of ours.
const MOST_SKEW: u64 = 60;

/// What faults name: the paths that were asked.
struct Places {
    sign: PathBuf,
    issuers: PathBuf,
}

impl Places {
    fn of(api: &Api) -> Self {
        let at = |path: &str| PathBuf::from(api.url(path).to_string());
        Self { sign: at(&api.config.path()), issuers: at(&format!("{}/issuers", api.config.mount)) }
    }

    fn origin(&self) -> Origin<'_> {
        Origin { certificate: &self.sign, key: Path::new("the key that was made for it"), bundle: &self.issuers }
    }
}
