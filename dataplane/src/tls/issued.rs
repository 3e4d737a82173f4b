//! By whom a certificate was issued, and under which serial: the name that a CRL has for it.
//!
//! A serial is unique among those of its issuer only (RFC 5280 §4.1.2.2), so neither means anything
//! without the other. A chain's intermediates are kept with its leaf: who revokes an intermediate
//! revokes all that it has signed.

use aws_lc_rs::digest::{SHA256, digest};

use super::certificate::Certificate;
use super::identity::hex_serial;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// As [`Crl::issuer`](::snapshot::Crl::issuer) has it.
    pub issuer: [u8; 32],
    /// Lower-case hex.
    pub serial: Box<str>,
}

impl Issued {
    pub(super) fn of(certificate: &Certificate<'_>) -> Self {
        let issuer = digest(&SHA256, certificate.issuer);
        Self {
            issuer: issuer.as_ref().try_into().expect("SHA-256 has 32 bytes"),
            serial: hex_serial(certificate.serial()).into(),
        }
    }
}
