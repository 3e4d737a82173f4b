//! Root certificates out of text: PEM, or a SPIFFE bundle in JSON, told by the content.
//!
//! What is taken here is what the dataplane can verify by. It refuses a snapshot whole for one root
//! that is none, so nothing of that kind may get as far.

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};
use serde::Deserialize;
use snapshot::root_material;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::TrustDomain;

/// A certificate that peers of a trust domain are verified against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub der: Vec<u8>,
    pub subject: String,
    /// Of the DER, in lower-case hex, as `openssl x509 -fingerprint -sha256` has it without the colons.
    pub sha256: String,
    /// The name that the root has wherever it comes from; see [`root_material`].
    pub id: String,
    /// Seconds since the epoch.
    pub not_before: u64,
    pub not_after: u64,
}

/// All of them, or what is wrong with the first that is none.
pub fn read(text: &str, trust_domain: &TrustDomain) -> Result<Vec<Certificate>, String> {
    match text.trim_start().starts_with('{') {
        true => Ok(SpiffeBundle::read(text, trust_domain)?.certificates),
        false => check(of_pem(text)?, trust_domain),
    }
}

/// What a SPIFFE bundle says of X.509 (SPIFFE Trust Domain and Bundle §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeBundle {
    /// At least one.
    pub certificates: Vec<Certificate>,
    /// `spiffe_sequence`: a number that grows with each change.
    pub sequence: Option<u64>,
    /// `spiffe_refresh_hint`: after how many seconds to look again.
    pub refresh_hint: Option<u64>,
}

impl SpiffeBundle {
    pub fn read(text: &str, trust_domain: &TrustDomain) -> Result<Self, String> {
        let keys: KeySet = serde_json::from_str(text).map_err(|error| format!("is no SPIFFE bundle: {error}"))?;
        let certificates = check(keys.certificates()?, trust_domain)?;
        Ok(Self { certificates, sequence: keys.spiffe_sequence, refresh_hint: keys.spiffe_refresh_hint })
    }
}

fn check(ders: Vec<Vec<u8>>, trust_domain: &TrustDomain) -> Result<Vec<Certificate>, String> {
    if ders.len() > MOST {
        return Err(format!("holds {} certificates, at most {MOST} are taken", ders.len()));
    }
    let count = ders.len();
    let one = |(nth, der)| {
        Certificate::of(der, trust_domain).map_err(|why| match count {
            1 => format!("its certificate {why}"),
            _ => format!("certificate {} of {count} {why}", nth + 1),
        })
    };
    ders.into_iter().enumerate().map(one).collect()
}

fn of_pem(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes()).map(|one| one.map(|der| der.to_vec()));
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| broken_pem(&error))?;
    match found.is_empty() {
        true => Err("holds no certificate: it is neither PEM nor a SPIFFE bundle".into()),
        false => Ok(found),
    }
}

/// Of a cut-off one without the bytes, which the library's own words show.
pub fn broken_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "is cut off within a certificate".to_owned(),
        other => format!("is no PEM: {other}"),
    }
}

/// SPIFFE Trust Domain and Bundle §4: a JWK set.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<u64>,
}

#[derive(Deserialize)]
struct Key {
    #[serde(rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    x5c: Vec<String>,
}

impl KeySet {
    /// Keys of another use (`jwt-svid`), and of one that is not known, are passed over.
    fn certificates(&self) -> Result<Vec<Vec<u8>>, String> {
        let keys = self.keys.iter().enumerate().filter(|(_, key)| key.usage.as_deref() == Some("x509-svid"));
        let found: Vec<_> = keys
            .map(|(nth, key)| match key.x5c.as_slice() {
                [only] => of_base64(only).ok_or_else(|| format!("keys[{nth}].x5c[0] is not base64")),
                all => Err(format!("keys[{nth}].x5c has {} entries; a SPIFFE bundle has one a key", all.len())),
            })
            .collect::<Result<_, _>>()?;
        match found.is_empty() {
            true => Err("is a SPIFFE bundle without a key of use x509-svid".into()),
            false => Ok(found),
        }
    }
}

/// By the decoder that reads PEM.
fn of_base64(text: &str) -> Option<Vec<u8>> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
    let armoured = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    let der = CertificateDer::from_pem_slice(armoured.as_bytes()).ok().filter(|_| plain)?;
    Some(der.to_vec())
}

impl Certificate {
    /// Whatever it is, for people: where nothing was verified by it, nothing has to be right.
    pub fn shown(der: &[u8]) -> Self {
        let sha256 = hex(digest(&SHA256, der).as_ref());
        let parsed = X509Certificate::from_der(der).ok().map(|(_, parsed)| parsed);
        let subject = parsed.as_ref().map_or("unreadable".into(), |p| p.subject().to_string().escape_debug().collect());
        let (not_before, not_after) = parsed.as_ref().map_or((0, 0), life);
        Self { der: der.to_vec(), subject, sha256, id: id_of(der).unwrap_or_default(), not_before, not_after }
    }

    /// A root that peers of `trust_domain` can be verified by; Err says what it is instead.
    pub fn of(der: Vec<u8>, trust_domain: &TrustDomain) -> Result<Self, String> {
        let (rest, parsed) =
            X509Certificate::from_der(&der).map_err(|error| format!("is no X.509 certificate: {error}"))?;
        if !rest.is_empty() {
            return Err("has bytes behind it".into());
        }
        let subject: String = parsed.subject().to_string().escape_debug().collect();
        if !parsed.is_ca() {
            return Err(format!("is not one of a CA ({subject}): it signs nobody"));
        }
        let usage = parsed.key_usage().map_err(|_| format!("has a key usage that does not parse ({subject})"))?;
        // Without one, too, the dataplane refuses whatever leads to it.
        if !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
            return Err(format!("may not sign others ({subject}): its key usage lacks keyCertSign"));
        }
        if let Some(foreign) = foreign_id(&parsed, trust_domain)? {
            return Err(format!("is of {foreign} ({subject}), not of trust domain {trust_domain}"));
        }
        let id = id_of(&der).map_err(|error| format!("cannot be trusted ({subject}): {error}"))?;
        let (not_before, not_after) = life(&parsed);
        Ok(Self { sha256: hex(digest(&SHA256, &der).as_ref()), subject, id, not_before, not_after, der })
    }
}

/// By name and key; whether it may sign is another question.
pub fn signed_by(certificate: &[u8], root: &[u8]) -> bool {
    match (X509Certificate::from_der(certificate), X509Certificate::from_der(root)) {
        (Ok((_, certificate)), Ok((_, root))) => {
            certificate.issuer() == root.subject() && certificate.verify_signature(Some(root.public_key())).is_ok()
        }
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn id_of(der: &[u8]) -> Result<String, webpki::Error> {
    let certificate = CertificateDer::from(der);
    let anchor = webpki::anchor_from_trusted_cert(&certificate)?;
    let constraints = anchor.name_constraints.as_ref().map(|names| names.as_ref());
    let material = root_material(&anchor.subject, &anchor.subject_public_key_info, constraints);
    Ok(hex(digest(&SHA256, &material).as_ref()))
}

/// Seconds since the epoch; what is before it is 0.
fn life(certificate: &X509Certificate<'_>) -> (u64, u64) {
    let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
    let validity = certificate.validity();
    (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()))
}

/// X509-SVID §3.2: the SPIFFE ID of a signing certificate says which trust domain it is for.
fn foreign_id(certificate: &X509Certificate<'_>, trust_domain: &TrustDomain) -> Result<Option<String>, String> {
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|_| "has alternative names that do not parse".to_owned())?;
    let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
        _ => None,
    });
    let mut foreign = uris.filter(|id| id.split('/').next() != Some(trust_domain.as_str()));
    Ok(foreign.next().map(|id| format!("spiffe://{}", id.escape_debug())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of one TrustBundle. A rotation by overlap needs two or three; where many share a name, each
/// handshake may have to try them all.
pub const MOST: usize = 100;
/// Of a file.
pub const LARGEST: usize = 1 << 20;
