//! A CRL out of bytes: PEM or DER, told by the content (RFC 5280 §5).
//!
//! Two parsers read it, and have to agree: webpki holds it to the profile and refuses what it could
//! not apply (delta and indirect CRLs, unknown critical extensions, partitions by reason), which the
//! other, whose fields are for people, passes over. A list that ends early is one that lets somebody in.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::{self, PemObject as _};
use snapshot::check::MOST_REVOKED;
use snapshot::normal_serial;
use webpki::{BorrowedCertRevocationList, CertRevocationList, EndEntityCert, Error};
use x509_parser::asn1_rs::Any;
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer as _, X509Certificate};

/// A CRL that is one; nothing is known yet of who has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// As it was signed.
    pub der: Arc<[u8]>,
    /// Of the DER.
    pub sha256: [u8; 32],
    /// For people.
    pub issuer: String,
    /// As [`snapshot::Crl::issuer`] has it.
    pub issuer_id: [u8; 32],
    /// Decimal.
    pub number: String,
    /// thisUpdate and nextUpdate, in seconds since the epoch.
    pub issued: u64,
    pub next: u64,
    /// As [`normal_serial`] writes them.
    pub serials: Vec<String>,
}

/// The one that is there, or what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<RevocationList, String> {
    let der = match bytes.first() {
        // A SEQUENCE; text begins otherwise.
        Some(0x30) => bytes.to_vec(),
        Some(_) | None => of_pem(bytes)?,
    };
    RevocationList::of(der)
}

fn of_pem(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let found = CertificateRevocationListDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| match error {
        pem::Error::MissingSectionEnd { .. } => "is cut off within a CRL".to_owned(),
        other => format!("is no PEM: {other}"),
    })?;
    match found.as_slice() {
        [] => Err("holds no CRL: it is neither PEM nor DER".into()),
        [only] => Ok(only.to_vec()),
        more => Err(format!("holds {} CRLs; give each a file of its own", more.len())),
    }
}

impl RevocationList {
    fn of(der: Vec<u8>) -> Result<Self, String> {
        let strict = BorrowedCertRevocationList::from_der(&der).map_err(|error| in_words(&error))?;
        let serials = serials(&strict)?;
        let strict = CertRevocationList::from(strict);
        if strict.issuing_distribution_point().is_some() {
            return Err("is for a part of its issuer's certificates (issuing distribution point), which would \
                        leave the others unsaid: a complete CRL is needed"
                .into());
        }
        let (_, shown) = CertificateRevocationList::from_der(&der).map_err(|error| format!("is no CRL: {error}"))?;
        if shown.iter_revoked_certificates().count() != serials.len() {
            return Err("has an entry that does not parse".into());
        }
        let issuer: String = shown.issuer().to_string().escape_debug().collect();
        let number = shown.crl_number().ok_or("has no CRL number, by which an older one is told (RFC 5280 §5.2.3)")?;
        let (issued, next) = (seconds(shown.last_update()), shown.next_update().map_or(0, seconds));
        if next <= issued {
            return Err("has a nextUpdate that is not after its thisUpdate".into());
        }
        Ok(Self {
            sha256: sha256(&der),
            issuer_id: sha256(strict.issuer()),
            number: number.to_string(),
            issuer,
            issued,
            next,
            serials,
            der: der.into(),
        })
    }

    pub fn is_stale(&self, now: u64) -> bool {
        now > self.next
    }

    /// Whether it was issued before `other`, of the same issuer.
    pub fn is_older_than(&self, (number, issued): (&str, u64)) -> bool {
        // Decimals without leading zeros.
        (self.number.len(), self.number.as_str(), self.issued) < (number.len(), number, issued)
    }

    /// Whether the holder of `certificate` has signed it and may: None if it is of another name.
    pub fn signed_by(&self, certificate: &[u8]) -> Option<Result<(), String>> {
        let (_, issuer) = X509Certificate::from_der(certificate).ok()?;
        let (_, list) = CertificateRevocationList::from_der(&self.der).ok()?;
        if issuer.subject().as_raw() != list.issuer().as_raw() {
            return None;
        }
        let usage = issuer.key_usage().ok().flatten();
        if !usage.is_some_and(|usage| usage.value.crl_sign()) {
            return Some(Err(format!("{} may not sign CRLs: its key usage lacks cRLSign", self.issuer)));
        }
        let Some(algorithm) = signature_algorithm(&list) else {
            return Some(Err("its signature does not parse".into()));
        };
        let der = certificate.into();
        let key = EndEntityCert::try_from(&der).ok()?;
        let mut fitting = webpki::ALL_VERIFICATION_ALGS.iter().filter(|a| a.signature_alg_id().as_ref() == algorithm);
        let signed = |a: &&dyn rustls_pki_types::SignatureVerificationAlgorithm| {
            key.verify_signature(*a, list.tbs_cert_list.as_ref(), &list.signature_value.data).is_ok()
        };
        Some(match fitting.any(signed) {
            true => Ok(()),
            false => {
                Err(format!("its signature is not by the key of {}, or of a kind that is not accepted", self.issuer))
            }
        })
    }
}

/// The content of the AlgorithmIdentifier behind what is signed.
fn signature_algorithm<'a>(list: &CertificateRevocationList<'a>) -> Option<&'a [u8]> {
    let (_, whole) = Any::from_der(list.as_raw()).ok()?;
    let behind = whole.data.get(list.tbs_cert_list.as_ref().len()..)?;
    Some(Any::from_der(behind).ok()?.1.data)
}

fn serials(list: &BorrowedCertRevocationList<'_>) -> Result<Vec<String>, String> {
    let mut serials = Vec::new();
    for entry in list {
        let entry = entry.map_err(|error| in_words(&error))?;
        let text: String = entry.serial_number.iter().map(|byte| format!("{byte:02x}")).collect();
        serials.push(normal_serial(&text).ok_or_else(|| format!("revokes {text}, which has more than 20 bytes"))?);
        if serials.len() > MOST_REVOKED {
            return Err(format!("revokes more than {MOST_REVOKED} certificates, the most that are taken"));
        }
    }
    Ok(serials)
}

/// What people would do about it.
fn in_words(error: &Error) -> String {
    let complete = "a complete CRL of the issuer itself is needed";
    match error {
        Error::UnsupportedDeltaCrl => format!("is a delta CRL: {complete}"),
        Error::UnsupportedIndirectCrl => format!("is an indirect CRL: {complete}"),
        Error::UnsupportedRevocationReasonsPartitioning | Error::UnsupportedCrlIssuingDistributionPoint => {
            format!("is for a part of its issuer's certificates: {complete}")
        }
        Error::UnsupportedCriticalExtension => {
            "has a critical extension that is not known, and so may not be used (RFC 5280 §5.2)".into()
        }
        Error::UnsupportedCrlVersion => "is not of version 2 (RFC 5280 §5.1.2.1)".into(),
        Error::InvalidCrlNumber => "has a CRL number that is none of at most 20 bytes (RFC 5280 §5.2.3)".into(),
        // webpki's errors are many and grow; the rest says that it is malformed.
        other => format!("is no CRL: {other}"),
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Since the epoch; what is before it is 0.
fn seconds(at: ASN1Time) -> u64 {
    u64::try_from(at.timestamp()).unwrap_or(0)
}

/// Of a file: room for [`MOST_REVOKED`] entries.
pub const LARGEST: usize = 8 << 20;
