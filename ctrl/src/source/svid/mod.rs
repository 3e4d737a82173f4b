//! Whether what somebody else has issued is right, before it is taken: an SVID with its key, its chain and
//! its roots. The same for files and for an agent; a `path` says where a part came from.
//!
//! The rules for the leaf are in [`leaf`].

mod fault;
pub mod key;
mod leaf;

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use snapshot::{IdPattern, KeyId, Svid};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::der_parser::asn1_rs::Any;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{IssuedSvid, roots};
use crate::config::roots::Certificate;
use crate::config::{SpiffeId, TrustDomain};
use crate::rotate::utc;

pub use fault::Fault;

/// Whose SVID is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub id: SpiffeId,
    /// `namespace/name`.
    pub workload: String,
    pub trust_domain: TrustDomain,
}

/// Where the parts of an SVID came from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
    pub bundle: &'a Path,
}

/// The leaf, its key and its time. The chain is not empty, and leads nowhere yet: [`check_chain`].
pub fn check_leaf(
    chain: &[Vec<u8>],
    key: impl FnOnce() -> Result<key::Key, Fault>,
    origin: &Origin<'_>,
    expected: &Expected,
    now: u64,
) -> Result<IssuedSvid, Fault> {
    if chain.len() > LONGEST_CHAIN {
        let (path, certificates) = (origin.certificate.to_owned(), chain.len());
        return Err(Fault::LongChain { path, certificates, most: LONGEST_CHAIN });
    }
    let leaf = parse(&chain[0], origin.certificate, 1)?;
    leaf::check(&leaf, expected, origin.certificate)?;
    let key = key()?;
    leaf::check_key(&leaf, key.algorithm, origin.certificate)?;
    let own = leaf.public_key().subject_public_key.data.as_ref();
    if key.public != own {
        return Err(Fault::KeyMismatch {
            key: origin.key.to_owned(),
            certificate: origin.certificate.to_owned(),
            found: fingerprint(&key.public),
            want: fingerprint(own),
        });
    }
    let (not_before, not_after) = life(chain, origin.certificate, now)?;
    let svid = Svid {
        key: KeyId(digest(&SHA256, leaf.public_key().raw).as_ref().try_into().expect("SHA-256 has 32 bytes")),
        serial: serial(leaf.tbs_certificate.raw_serial()),
        not_before,
        not_after,
        chain: chain.to_vec(),
    };
    Ok(IssuedSvid { svid, key: key.private })
}

/// Values in DER, one behind the other: the first `most` of them, and how many there are. Err: what comes
/// behind so many is none.
pub fn split(ders: &[u8], most: usize) -> Result<(Vec<Vec<u8>>, usize), usize> {
    let (mut found, mut count, mut left) = (Vec::new(), 0, ders);
    while !left.is_empty() {
        let (rest, _) = Any::from_der(left).map_err(|_| count)?;
        if count < most {
            found.push(left[..left.len() - rest.len()].to_vec());
        }
        (count, left) = (count + 1, rest);
    }
    Ok((found, count))
}

/// The time in which every certificate of the chain is valid, which has to be now.
fn life(chain: &[Vec<u8>], path: &Path, now: u64) -> Result<(u64, u64), Fault> {
    let (mut from, mut until) = (0, u64::MAX);
    for (nth, der) in (1..).zip(chain) {
        let certificate = parse(der, path, nth)?;
        let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
        let validity = certificate.validity();
        let own = (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()));
        let what = if nth == 1 { "the leaf".to_owned() } else { format!("certificate {nth} of the chain") };
        within(path, &what, own, now)?;
        (from, until) = (from.max(own.0), until.min(own.1));
    }
    Ok((from, until))
}

/// What time alone changes.
pub fn within(path: &Path, what: &str, (from, until): (u64, u64), now: u64) -> Result<(), Fault> {
    let (path, what) = (path.to_owned(), what.to_owned());
    match now {
        _ if now >= until => Err(Fault::Expired { path, what, at: until }),
        _ if now < from => Err(Fault::NotYetValid { path, what, at: from }),
        _ => Ok(()),
    }
}

/// Those that are valid now; the rest is warned about.
pub fn check_roots(
    found: &[Vec<u8>],
    trust_domain: &str,
    path: &Path,
    now: u64,
    warnings: &mut Vec<String>,
) -> Result<Vec<Vec<u8>>, Fault> {
    if found.len() > roots::MOST {
        return Err(Fault::ManyRoots { path: path.to_owned(), count: found.len(), most: roots::MOST });
    }
    for (nth, root) in (1..).zip(found) {
        let checked = roots::check(root, trust_domain);
        checked.map_err(|reason| Fault::Root { path: path.to_owned(), nth, reason })?;
        if let Some(end) = roots::not_after(root).filter(|end| *end <= now) {
            let (shown, end) = (path.display(), utc(end));
            warnings.push(format!("{shown}: root {nth} expired at {end} and is left out; take it off the bundle"));
        }
    }
    let valid = roots::valid(found.to_vec(), now);
    if valid.is_empty() {
        let at = found.iter().filter_map(|root| roots::not_after(root)).max().unwrap_or(0);
        return Err(Fault::RootsExpired { path: path.to_owned(), count: found.len(), at });
    }
    Ok(valid)
}

/// As a peer will build it, in either role. One role that fails is a warning: there are certificates
/// for servers only.
pub fn check_chain(
    chain: &[Vec<u8>],
    roots: &[Vec<u8>],
    origin: &Origin<'_>,
    now: u64,
    warnings: &mut Vec<String>,
) -> Result<(), Fault> {
    let verify = |usage: KeyUsage| lead(chain, roots, usage, now);
    let (called, calls) = (verify(KeyUsage::server_auth()), verify(KeyUsage::client_auth()));
    let shown = origin.certificate.display();
    match (called, calls) {
        (Ok(()), Ok(())) => {}
        (Ok(()), Err(error)) => warnings.push(format!("{shown}: its workload cannot call others by it: {error}")),
        (Err(error), Ok(())) => warnings.push(format!("{shown}: its workload cannot be called by it: {error}")),
        (Err(error), Err(_)) => {
            return Err(Fault::Chain {
                path: origin.certificate.to_owned(),
                bundle: origin.bundle.to_owned(),
                roots: roots.len(),
                reason: error.to_string(),
            });
        }
    }
    Ok(())
}

/// A server's chain, as its client has to see it: X509-SVID, one ID that is meant, and a way to one of the roots,
/// which are those of the ID's trust domain.
pub fn check_server(
    chain: &[Vec<u8>],
    roots: &[Vec<u8>],
    whom: &IdPattern,
    path: &Path,
    now: u64,
) -> Result<(), Fault> {
    if chain.len() > LONGEST_CHAIN {
        return Err(Fault::LongChain { path: path.to_owned(), certificates: chain.len(), most: LONGEST_CHAIN });
    }
    let leaf = parse(&chain[0], path, 1)?;
    let id = match whom {
        IdPattern::Exact(id) => SpiffeId::parse(id).expect("it was checked when it was read"),
        IdPattern::Under(_) => leaf::id_of(&leaf, whom, path)?,
    };
    let trust_domain = TrustDomain::parse(id.trust_domain()).expect("an ID has a trust domain");
    let bundle = format!("the bundle of {trust_domain}").into();
    let expected = Expected { id, workload: "the endpoint".into(), trust_domain };
    leaf::check(&leaf, &expected, path)?;
    life(&chain[..1], path, now)?;
    // webpki asks no CA whether it may sign, nor for whom.
    for (nth, der) in (2..).zip(&chain[1..]) {
        let checked = Certificate::of(der.clone(), &expected.trust_domain);
        checked.map_err(|reason| Fault::Certificate { path: path.to_owned(), nth, reason })?;
    }
    lead(chain, roots, KeyUsage::server_auth(), now).map_err(|error| {
        let reason = error.to_string();
        Fault::Chain { path: path.to_owned(), bundle, roots: roots.len(), reason }
    })
}

/// Whether the chain leads to one of the roots.
fn lead(chain: &[Vec<u8>], roots: &[Vec<u8>], usage: KeyUsage, now: u64) -> Result<(), webpki::Error> {
    let ders: Vec<CertificateDer<'_>> = roots.iter().map(|root| CertificateDer::from(root.as_slice())).collect();
    let anchors: Vec<TrustAnchor<'_>> =
        ders.iter().filter_map(|der| webpki::anchor_from_trusted_cert(der).ok()).collect();
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|one| CertificateDer::from(one.as_slice())).collect();
    let (leaf, between) = chain.split_first().expect("a chain has a leaf");
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let leaf = EndEntityCert::try_from(leaf)?;
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, between, at, usage, None, None).map(drop)
}

pub fn self_signed(der: &[u8]) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, one)| one.issuer() == one.subject() && one.is_ca() && one.verify_signature(None).is_ok())
}

fn parse<'a>(der: &'a [u8], path: &Path, nth: usize) -> Result<X509Certificate<'a>, Fault> {
    let fault = |reason: String| Fault::Certificate { path: path.to_owned(), nth, reason };
    let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| fault(format!("does not parse: {error}")))?;
    match rest.is_empty() {
        true => Ok(parsed),
        false => Err(fault("has bytes behind it".into())),
    }
}

/// As OpenSSL prints it, in lower case: no sign byte.
fn serial(raw: &[u8]) -> String {
    let digits = raw.strip_prefix(&[0]).filter(|rest| !rest.is_empty()).unwrap_or(raw);
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Enough to tell two keys apart.
fn fingerprint(public: &[u8]) -> String {
    let hash = digest(&SHA256, public);
    hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "…"
}

/// webpki goes no deeper than six intermediates.
pub const LONGEST_CHAIN: usize = 7;
