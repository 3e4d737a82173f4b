//! What X509-SVID and RFC 5280 ask of each certificate by itself, and of its place in a path.
//!
//! A certificate that is wrong in itself is `PeerBadCertificate`; one that signed what it has no
//! right to sign is `PeerUntrusted`: whatever is below it does not lead to the root.

use ::snapshot::RefuseReason::{PeerBadCertificate, PeerExpired, PeerUntrusted};

use super::certificate::{Certificate, Fault};
use super::identity::{self, quoted};
use super::verified::Role;

/// X509-SVID §4.1, §4.3 and §5.2: a leaf is for authentication, and signs no certificates.
pub(super) fn leaf(leaf: &Certificate<'_>) -> Result<(), Fault> {
    if leaf.is_ca() {
        return Err(Fault::bad("basicConstraints make it a CA"));
    }
    let Some((usage, critical)) = leaf.usage() else { return Err(Fault::bad("it has no keyUsage")) };
    if usage.key_cert_sign() {
        return Err(Fault::bad("its keyUsage has keyCertSign, which is for CAs"));
    }
    if usage.crl_sign() {
        return Err(Fault::bad("its keyUsage has cRLSign, which is for CAs"));
    }
    if !usage.digital_signature() {
        return Err(Fault::bad("its keyUsage lacks digitalSignature"));
    }
    if !critical {
        return Err(Fault::bad("its keyUsage is not critical"));
    }
    // X509-SVID §3.1, RFC 5280 §4.1.2.6.
    if leaf.subject.is_empty() && !leaf.names_critical() {
        return Err(Fault::bad("its subject is empty and its subjectAltName is not critical"));
    }
    leaf.key.check()
}

/// X509-SVID §3.2, §4.1 and §4.3: what has signed a certificate must be one that may.
pub(super) fn signing(issuer: &Certificate<'_>, trust_domain: &str) -> Result<(), Fault> {
    if !issuer.is_ca() {
        return Err(Fault::new(PeerUntrusted, "it is no CA, so it may not sign certificates"));
    }
    let Some((usage, critical)) = issuer.usage() else {
        return Err(Fault::new(PeerUntrusted, "it has no keyUsage, so it may not sign certificates"));
    };
    if !usage.key_cert_sign() {
        return Err(Fault::new(PeerUntrusted, "its keyUsage lacks keyCertSign"));
    }
    issuer.key.check()?;
    let mut uris = issuer.uris().map(std::str::from_utf8);
    match (uris.next(), uris.next()) {
        (None, _) => Ok(()),
        // A CA need not be an SVID, and may then have what names it likes.
        (Some(Ok(uri)), None) if !uri.to_ascii_lowercase().starts_with("spiffe:") => Ok(()),
        (Some(Ok(uri)), None) => {
            if !critical {
                return Err(Fault::bad("its keyUsage is not critical"));
            }
            own_id(uri, trust_domain)
        }
        (Some(Err(_)), _) => Err(Fault::bad("its URI SAN is not text")),
        (Some(_), Some(_)) => Err(Fault::bad("it has more than one URI SAN")),
    }
}

/// X509-SVID §3.2: the SPIFFE ID of a signing certificate has no path. That it is of the leaf's
/// trust domain is a SHOULD there and a must here: a CA above several trust domains has no ID.
fn own_id(uri: &str, trust_domain: &str) -> Result<(), Fault> {
    match identity::trust_domain(uri) {
        Some(own) if own == trust_domain => Ok(()),
        Some(_) => Err(Fault::new(PeerUntrusted, format!("its SPIFFE ID {} is of another trust domain", quoted(uri)))),
        None => Err(Fault::bad(format!("its URI SAN {} is not the SPIFFE ID of a trust domain", quoted(uri)))),
    }
}

/// RFC 5280 §4.2.1.12: a certificate that says what it is for is for nothing else; an issuer that
/// does says it of what is below it too.
pub(super) fn purpose(certificate: &Certificate<'_>, role: Role) -> Result<(), Fault> {
    let Some(usage) = certificate.extended_usage() else { return Ok(()) };
    let (allowed, name) = match role {
        Role::Client => (usage.client_auth, "clientAuth"),
        Role::Server => (usage.server_auth, "serverAuth"),
    };
    let reason = if certificate.is_ca() { PeerUntrusted } else { PeerBadCertificate };
    if allowed { Ok(()) } else { Err(Fault::new(reason, format!("its extendedKeyUsage lacks {name}"))) }
}

/// Both ends included (RFC 5280 §4.1.2.5).
pub(super) fn time(certificate: &Certificate<'_>, now: i64) -> Result<(), Fault> {
    let (from, to) = certificate.validity();
    if now < from {
        return Err(Fault::new(PeerExpired, format!("its validity begins in {} s", from.saturating_sub(now))));
    }
    if now > to {
        return Err(Fault::new(PeerExpired, format!("its validity ended {} s ago", now.saturating_sub(to))));
    }
    Ok(())
}

/// RFC 5280 §4.2.1.9: `below` is how many certificates between it and the leaf are not self-issued.
pub(super) fn path_length(issuer: &Certificate<'_>, below: u32) -> Result<(), Fault> {
    match issuer.path_length() {
        Some(most) if below > most => {
            let what = format!("its pathLenConstraint is {most} and {below} issuers are below it");
            Err(Fault::new(PeerUntrusted, what))
        }
        Some(_) | None => Ok(()),
    }
}
