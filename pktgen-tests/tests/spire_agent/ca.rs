//! The CA of a SPIRE server, and what it never signs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose as Eku, IsCa, KeyPair,
    KeyUsagePurpose as Use, SanType, SerialNumber, date_time_ymd,
};

/// An SVID as an agent hands it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    /// The agent's word; the certificate has its own.
    pub id: String,
    /// DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS#8 in DER.
    pub key: Vec<u8>,
    /// As ctrl writes it.
    pub serial: String,
}

pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn of(trust_domain: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("root of {trust_domain}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![Use::KeyCertSign, Use::CrlSign];
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{trust_domain}").try_into().unwrap())];
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2044, 1, 1));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// DER.
    pub fn root(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// One that is as SPIRE signs it, for so long from now.
    pub fn issue(&self, id: &str, life: Duration) -> Svid {
        self.issue_with(id, life, |_| {})
    }

    pub fn issue_with(&self, id: &str, life: Duration, change: impl FnOnce(&mut CertificateParams)) -> Svid {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = (0x4000_0000_0000_0000 | NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let at = |since: Duration| date_time_ymd(1970, 1, 1) + since;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "SPIRE");
        params.serial_number = Some(SerialNumber::from_slice(&number));
        params.key_usages = vec![Use::DigitalSignature];
        params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        (params.not_before, params.not_after) = (at(now - Duration::from_secs(10)), at(now + life));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Svid {
            id: id.to_owned(),
            chain: vec![certificate.der().to_vec()],
            key: key.serialize_der(),
            serial: number.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}
