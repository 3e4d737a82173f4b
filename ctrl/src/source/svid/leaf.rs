//! What X509-SVID and RFC 5280 ask of a leaf by itself.
//!
//! Peers hold it to these rules, and so does the dataplane when it imports: one file that broke them
//! would have the whole snapshot refused. So nothing may pass here that is refused there.

use std::path::Path;

use rustls_pki_types::AlgorithmIdentifier;
use snapshot::IdPattern;
use x509_parser::der_parser::asn1_rs::Any;
use x509_parser::oid_registry as oid;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

use super::{Expected, Fault};
use crate::config::SpiffeId;

/// X509-SVID §4 and the one SPIFFE ID.
pub fn check(leaf: &X509Certificate<'_>, expected: &Expected, path: &Path) -> Result<(), Fault> {
    let certificate = |reason: &str| fault(path, reason);
    let wrong = |field, found, want| Fault::NotASvid { path: path.to_owned(), field, found, want };
    match leaf.basic_constraints() {
        Ok(Some(basic)) if basic.value.ca => {
            return Err(wrong("basicConstraints of the first certificate", "CA:TRUE", "the leaf first, and no CA"));
        }
        Ok(_) => {}
        Err(_) => return Err(certificate("its basicConstraints do not parse")),
    }
    check_id(leaf, expected, path)?;
    match leaf.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() || usage.value.crl_sign() => {
            return Err(wrong("keyUsage", "keyCertSign or cRLSign", "digitalSignature without them"));
        }
        Ok(Some(usage)) if !usage.value.digital_signature() => {
            return Err(wrong("keyUsage", "no digitalSignature", "digitalSignature"));
        }
        Ok(Some(usage)) if !usage.critical => return Err(wrong("keyUsage", "not critical", "a critical one")),
        Ok(Some(_)) => {}
        Ok(None) => return Err(wrong("keyUsage", "no digitalSignature", "digitalSignature")),
        Err(_) => return Err(certificate("its keyUsage does not parse")),
    }
    let names_critical = leaf.subject_alternative_name().is_ok_and(|names| names.is_some_and(|names| names.critical));
    if leaf.subject().iter().next().is_none() && !names_critical {
        return Err(wrong("subjectAltName", "not critical", "a critical one, since the subject is empty"));
    }
    check_extensions(leaf).map_err(|reason| certificate(&reason))
}

/// The certificate says of its key what it is.
pub fn check_key(leaf: &X509Certificate<'_>, algorithm: AlgorithmIdentifier, path: &Path) -> Result<(), Fault> {
    let info = only(leaf.public_key().raw).and_then(|info| Some(Any::from_der(info.data).ok()?.1.data));
    match info {
        Some(own) if own == algorithm.as_ref() => Ok(()),
        Some(_) | None => Err(fault(path, "its key is said to be of another kind than the private key is")),
    }
}

fn fault(path: &Path, reason: &str) -> Fault {
    Fault::Certificate { path: path.to_owned(), nth: 1, reason: reason.to_owned() }
}

fn check_id(leaf: &X509Certificate<'_>, expected: &Expected, path: &Path) -> Result<(), Fault> {
    let id = the_id(leaf, path)?;
    if id == [expected.id.as_str()] && SpiffeId::parse(id[0].as_str()).is_ok() {
        return Ok(());
    }
    let found = listed(&id);
    let (want, workload) = (expected.id.clone(), expected.workload.clone());
    Err(Fault::OtherId { path: path.to_owned(), found, want, workload })
}

/// The one ID that it has, if it is one of these.
pub fn id_of(leaf: &X509Certificate<'_>, whom: &IdPattern, path: &Path) -> Result<SpiffeId, Fault> {
    let ids = the_id(leaf, path)?;
    if let [id] = ids.as_slice()
        && whom.matches(id)
        && let Ok(id) = SpiffeId::parse(id)
    {
        return Ok(id);
    }
    Err(Fault::NoneOf { path: path.to_owned(), found: listed(&ids), want: whom.to_string() })
}

fn listed(ids: &[String]) -> String {
    match ids {
        [] => "none".into(),
        some => some.iter().map(|uri| uri.escape_debug().to_string()).collect::<Vec<_>>().join(" and "),
    }
}

/// Every URI SAN as it stands; one that is no text counts too.
fn the_id(leaf: &X509Certificate<'_>, path: &Path) -> Result<Vec<String>, Fault> {
    let names = leaf
        .subject_alternative_name()
        .map_err(|_| fault(path, "its subjectAltName does not parse"))?
        .map(|extension| &extension.value.general_names);
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        // Six is uniformResourceIdentifier (RFC 5280 §4.2.1.6).
        GeneralName::Invalid(tag, _) if tag.0 == 6 => Some("(not text)".to_owned()),
        _ => None,
    };
    Ok(names.into_iter().flatten().filter_map(uri).collect())
}

/// RFC 5280 §4.2: each once, and none critical that nobody here understands.
fn check_extensions(leaf: &X509Certificate<'_>) -> Result<(), String> {
    for (nth, extension) in leaf.extensions().iter().enumerate() {
        let id = &extension.oid;
        if leaf.extensions()[..nth].iter().any(|earlier| earlier.oid == *id) {
            return Err(format!("its extension {id} is there twice"));
        }
        if extension.critical && !UNDERSTOOD.contains(id) {
            return Err(format!("its critical extension {id} is not one that is understood"));
        }
        let broken = matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. });
        let alone = !READ.contains(id) || only(extension.value).is_some();
        let named = *id != oid::OID_X509_EXT_SUBJECT_ALT_NAME || names_known(extension.value);
        if broken || !alone || !named {
            return Err(format!("its extension {id} does not parse"));
        }
        if *id == oid::OID_X509_EXT_NAME_CONSTRAINTS {
            return Err("it has nameConstraints, which are for CAs".into());
        }
    }
    Ok(())
}

/// The one value that the bytes are.
fn only(bytes: &[u8]) -> Option<Any<'_>> {
    Any::from_der(bytes).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, value)| value)
}

/// Whether each name is of a form that there is (RFC 5280 §4.2.1.6).
fn names_known(value: &[u8]) -> bool {
    let Some(names) = only(value) else { return false };
    let mut left = names.data;
    while let Some(&form) = left.first() {
        match Any::from_der(left) {
            Ok((rest, _)) if FORMS.contains(&form) => left = rest,
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

const UNDERSTOOD: [oid::Oid<'static>; 5] = [
    oid::OID_X509_EXT_KEY_USAGE,
    oid::OID_X509_EXT_SUBJECT_ALT_NAME,
    oid::OID_X509_EXT_BASIC_CONSTRAINTS,
    oid::OID_X509_EXT_NAME_CONSTRAINTS,
    oid::OID_X509_EXT_EXTENDED_KEY_USAGE,
];

/// Those and the hints: read to the end.
const READ: [oid::Oid<'static>; 7] = [
    oid::OID_X509_EXT_KEY_USAGE,
    oid::OID_X509_EXT_SUBJECT_ALT_NAME,
    oid::OID_X509_EXT_BASIC_CONSTRAINTS,
    oid::OID_X509_EXT_NAME_CONSTRAINTS,
    oid::OID_X509_EXT_EXTENDED_KEY_USAGE,
    oid::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
    oid::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
];

/// Identifier octets: otherName to registeredID.
const FORMS: [u8; 9] = [0xa0, 0x81, 0x82, 0xa3, 0xa4, 0xa5, 0x86, 0x87, 0x88];
