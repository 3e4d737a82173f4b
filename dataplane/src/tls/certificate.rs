//! One X.509 certificate as it came, read strictly and held to no rule yet.
//!
//! Two parsers have to agree that it is one: webpki, which takes DER to the letter, and x509-parser,
//! which knows more extensions and overlooks what stands after the parts that it expected. What
//! forbids something (names, and constraints on them) is read here, by neither.

use std::fmt;

use ::snapshot::RefuseReason::{self, PeerBadCertificate};
use rustls_pki_types::{AlgorithmIdentifier, CertificateDer, alg_id};
use webpki::EndEntityCert;
use x509_parser::prelude::{ExtendedKeyUsage, FromDer, KeyUsage, ParsedExtension, X509Certificate, X509Extension};

use super::Refusal;
use super::constraints::NameConstraints;
use super::der::{self, Malformed, Value, values};
use super::identity::quoted;
use super::names;

/// What is wrong with a certificate, whichever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub reason: RefuseReason,
    pub what: String,
}

impl Fault {
    pub fn new(reason: RefuseReason, what: impl Into<String>) -> Self {
        Self { reason, what: what.into() }
    }

    pub fn bad(what: impl Into<String>) -> Self {
        Self::new(PeerBadCertificate, what)
    }

    pub fn of(self, place: &Place) -> Refusal {
        Refusal::new(self.reason, format!("{place}: {}", self.what))
    }
}

/// Which certificate of a path it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Leaf,
    /// Counted from the leaf, from 1.
    Issuer(usize, String),
    Root(String),
    /// In no path: as it was presented, the leaf's number being 1.
    Presented(usize),
}

impl Place {
    pub fn presented(index: usize) -> Self {
        if index == 0 { Self::Leaf } else { Self::Presented(index + 1) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf => f.write_str("leaf"),
            Self::Issuer(n, name) => write!(f, "issuer {n} ({name})"),
            Self::Root(name) => write!(f, "root ({name})"),
            Self::Presented(n) => write!(f, "certificate {n} of those presented"),
        }
    }
}

/// A subjectPublicKeyInfo, in the pieces that signature checks are asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key<'a> {
    /// Content of the AlgorithmIdentifier.
    pub algorithm: &'a [u8],
    pub bits: &'a [u8],
}

impl<'a> Key<'a> {
    /// From the content of a subjectPublicKeyInfo.
    pub fn read(info: &'a [u8]) -> Result<Self, Malformed> {
        let mut parts = values(info);
        let algorithm = parts.expect(der::SEQUENCE)?;
        let bits = whole_bytes(parts.expect(der::BIT_STRING)?)?;
        parts.end().map(|()| Self { algorithm, bits })
    }

    /// NIST SP 800-57 part 1 §5.6.1: at least 112 bits of strength, which is RSA of 2048.
    pub fn check(&self) -> Result<(), Fault> {
        if STRONG.iter().any(|id| id.as_ref() == self.algorithm) {
            return Ok(());
        }
        if alg_id::RSA_ENCRYPTION.as_ref() != self.algorithm {
            return Err(Fault::bad(format!("its key is of a kind that is not accepted ({})", oids(self.algorithm))));
        }
        match rsa_bits(self.bits) {
            Ok(2048..=8192) => Ok(()),
            Ok(bits) => Err(Fault::bad(format!("its RSA key has {bits} bits, not 2048 to 8192"))),
            Err(Malformed) => Err(Fault::bad("its RSA key does not parse")),
        }
    }
}

fn rsa_bits(key: &[u8]) -> Result<usize, Malformed> {
    const INTEGER: u8 = 0x02;
    let modulus = values(der::only(key, der::SEQUENCE)?).expect(INTEGER)?;
    let zeros = modulus.iter().take_while(|&&byte| byte == 0).count();
    let first = modulus.get(zeros).ok_or(Malformed)?;
    Ok((modulus.len() - zeros) * 8 - first.leading_zeros() as usize)
}

/// The object identifiers in an AlgorithmIdentifier, for people.
pub(super) fn oids(algorithm: &[u8]) -> String {
    let found = values(algorithm).flatten().filter(|value| value.tag == der::OID);
    let text: Vec<_> = found.map(|value| x509_parser::der_parser::Oid::new(value.content.into()).to_string()).collect();
    text.join(" ")
}

/// A BIT STRING of whole bytes, as keys and signatures are.
fn whole_bytes(content: &[u8]) -> Result<&[u8], Malformed> {
    content.strip_prefix(&[0]).ok_or(Malformed)
}

pub(super) struct Certificate<'a> {
    x509: X509Certificate<'a>,
    /// Contents of the Names.
    pub issuer: &'a [u8],
    pub subject: &'a [u8],
    pub key: Key<'a>,
    /// Content of the AlgorithmIdentifier that it is signed by.
    pub signature_algorithm: &'a [u8],
    pub signature: &'a [u8],
    /// Content of the GeneralNames: each value is one of RFC 5280 §4.2.1.6.
    names: &'a [u8],
    pub constraints: Option<NameConstraints<'a>>,
}

impl<'a> Certificate<'a> {
    pub fn read(der: &'a [u8]) -> Result<Self, Fault> {
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| Fault::bad("it does not parse"))?;
        if !rest.is_empty() {
            return Err(Fault::bad("bytes follow the certificate"));
        }
        check_extensions(x509.extensions())?;
        EndEntityCert::try_from(&CertificateDer::from(der))
            .map_err(|error| Fault::bad(format!("it does not parse: {error}")))?;
        Self::pieces(der, x509)
    }

    fn pieces(der: &'a [u8], x509: X509Certificate<'a>) -> Result<Self, Fault> {
        let unread = |Malformed| Fault::bad("it does not parse");
        let mut parts = values(der::only(der, der::SEQUENCE).map_err(unread)?);
        parts.expect(der::SEQUENCE).map_err(unread)?;
        let signature_algorithm = parts.expect(der::SEQUENCE).map_err(unread)?;
        let signature = parts.expect(der::BIT_STRING).and_then(whole_bytes).map_err(unread)?;
        let body = &x509.tbs_certificate;
        let info = der::only(body.subject_pki.raw, der::SEQUENCE).map_err(unread)?;
        let names = match find(&x509, SUBJECT_ALT_NAME) {
            Some(extension) => names::read(extension.value)
                .map_err(|Malformed| Fault::bad("its subject alternative names do not parse"))?,
            None => &[],
        };
        let constraints = match find(&x509, NAME_CONSTRAINTS) {
            Some(extension) => Some(NameConstraints::read(extension.value)?),
            None => None,
        };
        Ok(Self {
            issuer: der::only(body.issuer.as_raw(), der::SEQUENCE).map_err(unread)?,
            subject: der::only(body.subject.as_raw(), der::SEQUENCE).map_err(unread)?,
            key: Key::read(info).map_err(unread)?,
            signature_algorithm,
            signature,
            names,
            constraints,
            x509,
        })
    }

    /// What is signed.
    pub fn signed(&self) -> &[u8] {
        self.x509.tbs_certificate.as_ref()
    }

    pub fn serial(&self) -> &[u8] {
        self.x509.tbs_certificate.raw_serial()
    }

    /// Seconds since the epoch, both included.
    pub fn validity(&self) -> (i64, i64) {
        let validity = self.x509.validity();
        (validity.not_before.timestamp(), validity.not_after.timestamp())
    }

    /// RFC 5280 §6.1.3: such certificates are left out of what path lengths and names count.
    pub fn self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    pub fn names(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        values(self.names).flatten()
    }

    /// Contents of its URI names, as they stand there: text or not.
    pub fn uris(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.names().filter(|name| name.tag == names::URI).map(|name| name.content)
    }

    pub fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    pub fn names_critical(&self) -> bool {
        find(&self.x509, SUBJECT_ALT_NAME).is_some_and(|extension| extension.critical)
    }

    pub fn is_ca(&self) -> bool {
        self.basic().is_some_and(|(ca, _)| ca)
    }

    pub fn path_length(&self) -> Option<u32> {
        self.basic().and_then(|(_, length)| length)
    }

    fn basic(&self) -> Option<(bool, Option<u32>)> {
        match find(&self.x509, BASIC_CONSTRAINTS)?.parsed_extension() {
            ParsedExtension::BasicConstraints(basic) => Some((basic.ca, basic.path_len_constraint)),
            _ => None,
        }
    }

    /// With whether it is critical.
    pub fn usage(&self) -> Option<(&KeyUsage, bool)> {
        let extension = find(&self.x509, KEY_USAGE)?;
        match extension.parsed_extension() {
            ParsedExtension::KeyUsage(usage) => Some((usage, extension.critical)),
            _ => None,
        }
    }

    pub fn extended_usage(&self) -> Option<&ExtendedKeyUsage<'a>> {
        match find(&self.x509, EXTENDED_KEY_USAGE)?.parsed_extension() {
            ParsedExtension::ExtendedKeyUsage(usage) => Some(usage),
            _ => None,
        }
    }

    pub fn key_id(&self) -> Option<&'a [u8]> {
        match find(&self.x509, SUBJECT_KEY_ID)?.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        }
    }

    pub fn issuer_key_id(&self) -> Option<&'a [u8]> {
        match find(&self.x509, AUTHORITY_KEY_ID)?.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
            _ => None,
        }
    }

    /// The subject as a GeneralName.
    pub fn subject_name(&self) -> Value<'a> {
        Value { tag: names::DIRECTORY, content: self.x509.tbs_certificate.subject.as_raw() }
    }

    pub fn has_mail_in_subject(&self) -> bool {
        self.x509.subject().iter_email().next().is_some()
    }

    /// Its subject, for people.
    pub fn called(&self) -> String {
        quoted(&self.x509.subject().to_string())
    }

    pub fn issuer_called(&self) -> String {
        quoted(&self.x509.issuer().to_string())
    }
}

/// What extensions must be before any of them is believed (RFC 5280 §4.2).
fn check_extensions(extensions: &[X509Extension<'_>]) -> Result<(), Fault> {
    let mut ids: Vec<_> = extensions.iter().map(|extension| extension.oid.as_bytes()).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Fault::bad("one of its extensions is there twice"));
    }
    for extension in extensions {
        let (id, read) = (&extension.oid, extension.parsed_extension());
        let known = KNOWN.iter().find(|(known, _)| *known == id.as_bytes());
        let processed = KNOWN[..PROCESSED].iter().any(|(known, _)| *known == id.as_bytes());
        if extension.critical && !processed {
            return Err(Fault::bad(format!("its critical extension {id} is not one that is understood here")));
        }
        let Some((_, name)) = known else { continue };
        let alone = values(extension.value).count() == 1 && values(extension.value).all(|value| value.is_ok());
        if !alone || matches!(read, ParsedExtension::ParseError { .. }) {
            return Err(Fault::bad(format!("its {name} does not parse")));
        }
    }
    Ok(())
}

fn find<'c, 'a>(x509: &'c X509Certificate<'a>, id: &[u8]) -> Option<&'c X509Extension<'a>> {
    x509.extensions().iter().find(|extension| extension.oid.as_bytes() == id)
}

const STRONG: [AlgorithmIdentifier; 7] = [
    alg_id::ECDSA_P256,
    alg_id::ECDSA_P384,
    alg_id::ECDSA_P521,
    alg_id::ED25519,
    alg_id::ML_DSA_44,
    alg_id::ML_DSA_65,
    alg_id::ML_DSA_87,
];

const KEY_USAGE: &[u8] = &[0x55, 0x1d, 15];
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 37];
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 14];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 35];

/// The first ones are processed, so they may be critical; the others are read as hints.
const PROCESSED: usize = 5;
const KNOWN: [(&[u8], &str); 7] = [
    (KEY_USAGE, "keyUsage"),
    (SUBJECT_ALT_NAME, "subjectAltName"),
    (BASIC_CONSTRAINTS, "basicConstraints"),
    (NAME_CONSTRAINTS, "nameConstraints"),
    (EXTENDED_KEY_USAGE, "extendedKeyUsage"),
    (SUBJECT_KEY_ID, "subjectKeyIdentifier"),
    (AUTHORITY_KEY_ID, "authorityKeyIdentifier"),
];
