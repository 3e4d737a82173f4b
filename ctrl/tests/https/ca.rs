//! CAs that the tests are: roots, intermediates and their CRLs.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationList, CertificateRevocationListParams, CertifiedIssuer,
    DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose as Use, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};

/// A CA, of the web or of a trust domain.
pub struct Ca(pub CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn of_web(name: &str) -> Self {
        Self::new(name, None)
    }

    pub fn of(trust_domain: &str) -> Self {
        Self::new(&format!("{trust_domain} root"), Some(format!("spiffe://{trust_domain}")))
    }

    pub fn new(name: &str, id: Option<String>) -> Self {
        let params = Self::params(name, id);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// An intermediate of it.
    pub fn below(&self, name: &str) -> Self {
        self.below_as(name, None)
    }

    pub fn below_as(&self, name: &str, id: Option<&str>) -> Self {
        let params = Self::params(name, id.map(str::to_owned));
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    fn params(name: &str, id: Option<String>) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Use::KeyCertSign, Use::CrlSign];
        params.subject_alt_names = id.iter().map(|id| SanType::URI(id.as_str().try_into().unwrap())).collect();
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2044, 1, 1));
        params
    }

    /// DER.
    pub fn crl(&self, number: u64, serials: &[u64], next: u64) -> Vec<u8> {
        self.crl_list(number, serials, next).der().to_vec()
    }

    /// Of this number, with these serials, issued long ago and followed by the next at `next` (seconds since the epoch).
    pub fn crl_list(&self, number: u64, serials: &[u64], next: u64) -> CertificateRevocationList {
        self.crl_of(number, serials.iter().map(|serial| SerialNumber::from(*serial)), next)
    }

    pub fn crl_of(
        &self,
        number: u64,
        serials: impl Iterator<Item = SerialNumber>,
        next: u64,
    ) -> CertificateRevocationList {
        let revoked = serials.map(|serial_number| RevokedCertParams {
            serial_number,
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(1970, 1, 1) + Duration::from_secs(next),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap()
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }
}
