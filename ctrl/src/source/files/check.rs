//! Whether the files of an identity are right together, before any of them is taken.
//!
//! The rules for the leaf are in [`leaf`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use snapshot::{KeyId, Svid};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::fault::Fault;
use super::layout::Paths;
use super::pem::{Blocks, blocks};
use super::{Expected, key, leaf, read};
use crate::source::{IssuedSvid, roots};

/// An SVID with its key and the roots that it came with; all of it right when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub issued: IssuedSvid,
    /// DER, without those that have expired.
    pub roots: Vec<Vec<u8>>,
    /// What is taken and still not as it should be.
    pub warnings: Vec<String>,
    pub certificate: PathBuf,
    /// `namespace/name`.
    pub workload: String,
}

impl Identity {
    /// What time alone changes.
    pub fn check_time(&self, now: u64) -> Result<(), Fault> {
        let Svid { not_before, not_after, .. } = self.issued.svid;
        within(&self.certificate, "its chain", (not_before, not_after), now)
    }
}

pub fn check(paths: &Paths, expected: &Expected, now: u64) -> Result<Identity, Fault> {
    let files = Files::read(paths)?;
    let (chain, found_roots) = files.certificates(paths)?;
    let leaf = parse(&chain[0], &paths.certificate, 1)?;
    leaf::check(&leaf, expected, &paths.certificate)?;
    let key = files.key(paths)?;
    leaf::check_key(&leaf, key.algorithm, &paths.certificate)?;
    let own = leaf.public_key().subject_public_key.data.as_ref();
    if key.public != own {
        return Err(Fault::KeyMismatch {
            key: paths.key.clone(),
            certificate: paths.certificate.clone(),
            found: fingerprint(&key.public),
            want: fingerprint(own),
        });
    }
    let (not_before, not_after) = life(&chain, &paths.certificate, now)?;
    let mut warnings = files.warnings;
    let roots = check_roots(&found_roots, expected, &paths.bundle, now, &mut warnings)?;
    check_chain(&chain, &roots, paths, now, &mut warnings)?;
    let svid = Svid {
        key: KeyId(digest(&SHA256, leaf.public_key().raw).as_ref().try_into().expect("SHA-256 has 32 bytes")),
        serial: serial(leaf.tbs_certificate.raw_serial()),
        not_before,
        not_after,
        chain: chain.clone(),
    };
    Ok(Identity {
        issued: IssuedSvid { svid, key: key.private },
        roots,
        warnings,
        certificate: paths.certificate.clone(),
        workload: expected.workload.clone(),
    })
}

/// Certificates, as they are signed.
type Ders = Vec<Vec<u8>>;

/// All blocks of all files; a file that is two of them is read once, so that it is one state.
struct Files {
    certificate: Blocks,
    key: Option<Blocks>,
    bundle: Option<Blocks>,
    warnings: Vec<String>,
}

impl Files {
    fn read(paths: &Paths) -> Result<Self, Fault> {
        let mut warnings = Vec::new();
        let mut one = |path: &Path| -> Result<Blocks, Fault> {
            let content = read::read(path)?;
            let found = blocks(path, &content.bytes)?;
            if !found.keys.is_empty() || found.encrypted {
                warnings.extend(check_mode(path, content.mode)?);
            }
            Ok(found)
        };
        let certificate = one(&paths.certificate)?;
        let key = if paths.key == paths.certificate { None } else { Some(one(&paths.key)?) };
        let bundle = if paths.bundle == paths.certificate { None } else { Some(one(&paths.bundle)?) };
        Ok(Self { certificate, key, bundle, warnings })
    }

    /// The chain, leaf first and without a root, and the roots. Where there is one file for both, the
    /// self-signed ones of it are the roots.
    fn certificates(&self, paths: &Paths) -> Result<(Ders, Ders), Fault> {
        let given = &self.certificate.certificates;
        let Some((leaf, rest)) = given.split_first() else {
            return Err(Fault::NoCertificate { path: paths.certificate.clone() });
        };
        let (own_roots, between): (Vec<_>, Vec<_>) = rest.iter().cloned().partition(|one| self_signed(one));
        let chain: Vec<_> = std::iter::once(leaf.clone()).chain(between).collect();
        if chain.len() > LONGEST_CHAIN {
            let (path, certificates) = (paths.certificate.clone(), chain.len());
            return Err(Fault::LongChain { path, certificates, most: LONGEST_CHAIN });
        }
        match &self.bundle {
            None if own_roots.is_empty() => Err(Fault::NoRoot { path: paths.bundle.clone() }),
            None => Ok((chain, own_roots)),
            Some(bundle) if bundle.certificates.is_empty() => Err(Fault::NoCertificate { path: paths.bundle.clone() }),
            Some(bundle) => Ok((chain, bundle.certificates.clone())),
        }
    }

    fn key(&self, paths: &Paths) -> Result<key::Key, Fault> {
        let found = self.key.as_ref().unwrap_or(&self.certificate);
        let path = paths.key.clone();
        match found.keys.as_slice() {
            _ if found.encrypted => Err(Fault::EncryptedKey { path }),
            [] => Err(Fault::NoKey { path }),
            [(form, der)] => key::import(*form, der).ok_or(Fault::KeyKind { path, wanted: key::KINDS }),
            several => Err(Fault::SeveralKeys { path, count: several.len() }),
        }
    }
}

/// Refused where everybody can read it, as the embedded CA's key is, though a group may (`fsGroup`).
/// In a volume of the kubelet that is only warned about: its files are 0644 unless the pod's author
/// says otherwise, and no other user reaches the directory of a pod's volumes.
fn check_mode(path: &Path, mode: u32) -> Result<Option<String>, Fault> {
    if mode & 0o007 == 0 {
        return Ok(None);
    }
    let volume = path.with_file_name("..data").symlink_metadata().is_ok();
    if !volume {
        return Err(Fault::Mode { path: path.to_owned(), mode });
    }
    let shown = path.display();
    Ok(Some(format!("{shown}: mode {mode:04o} lets everybody read a private key; set defaultMode: 0400 on the volume")))
}

fn parse<'a>(der: &'a [u8], path: &Path, nth: usize) -> Result<X509Certificate<'a>, Fault> {
    let fault = |reason: String| Fault::Certificate { path: path.to_owned(), nth, reason };
    let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| fault(format!("does not parse: {error}")))?;
    match rest.is_empty() {
        true => Ok(parsed),
        false => Err(fault("has bytes behind it".into())),
    }
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

fn within(path: &Path, what: &str, (from, until): (u64, u64), now: u64) -> Result<(), Fault> {
    let (path, what) = (path.to_owned(), what.to_owned());
    match now {
        _ if now >= until => Err(Fault::Expired { path, what, at: until }),
        _ if now < from => Err(Fault::NotYetValid { path, what, at: from }),
        _ => Ok(()),
    }
}

fn check_roots(
    found: &[Vec<u8>],
    expected: &Expected,
    path: &Path,
    now: u64,
    warnings: &mut Vec<String>,
) -> Result<Vec<Vec<u8>>, Fault> {
    if found.len() > roots::MOST {
        return Err(Fault::ManyRoots { path: path.to_owned(), count: found.len(), most: roots::MOST });
    }
    for (nth, root) in (1..).zip(found) {
        let checked = roots::check(root, expected.trust_domain.as_str());
        checked.map_err(|reason| Fault::Root { path: path.to_owned(), nth, reason })?;
        if let Some(end) = roots::not_after(root).filter(|end| *end <= now) {
            let (shown, end) = (path.display(), crate::rotate::utc(end));
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
fn check_chain(
    chain: &[Vec<u8>],
    roots: &[Vec<u8>],
    paths: &Paths,
    now: u64,
    warnings: &mut Vec<String>,
) -> Result<(), Fault> {
    let ders: Vec<CertificateDer<'_>> = roots.iter().map(|root| CertificateDer::from(root.as_slice())).collect();
    let anchors: Vec<TrustAnchor<'_>> =
        ders.iter().filter_map(|der| webpki::anchor_from_trusted_cert(der).ok()).collect();
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|one| CertificateDer::from(one.as_slice())).collect();
    let (leaf, between) = chain.split_first().expect("a chain has a leaf");
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let verify = |usage: KeyUsage| {
        let leaf = EndEntityCert::try_from(leaf)?;
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        leaf.verify_for_usage(algorithms, &anchors, between, at, usage, None, None).map(drop)
    };
    let (called, calls) = (verify(KeyUsage::server_auth()), verify(KeyUsage::client_auth()));
    let shown = paths.certificate.display();
    match (called, calls) {
        (Ok(()), Ok(())) => {}
        (Ok(()), Err(error)) => warnings.push(format!("{shown}: its workload cannot call others by it: {error}")),
        (Err(error), Ok(())) => warnings.push(format!("{shown}: its workload cannot be called by it: {error}")),
        (Err(error), Err(_)) => {
            return Err(Fault::Chain {
                path: paths.certificate.clone(),
                bundle: paths.bundle.clone(),
                roots: roots.len(),
                reason: error.to_string(),
            });
        }
    }
    Ok(())
}

fn self_signed(der: &[u8]) -> bool {
    X509Certificate::from_der(der)
        .is_ok_and(|(_, one)| one.issuer() == one.subject() && one.is_ca() && one.verify_signature(None).is_ok())
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
const LONGEST_CHAIN: usize = 7;
