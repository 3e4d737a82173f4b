//! Certificates for tests: a CA per trust domain, and leaves with whatever is wrong with them.

use std::time::Duration;

use ::snapshot::{Bundle, KeyId, Svid, channel::PrivateKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SerialNumber, SignatureAlgorithm,
};

/// The time of all tests: 2026-06-01 00:00:00 UTC.
pub const NOW: u64 = 1_780_272_000;

pub struct Ca {
    pub domain: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    algorithm: &'static SignatureAlgorithm,
}

/// A leaf with its key, as a peer holds it.
#[derive(Clone)]
pub struct Leaf {
    pub chain: Vec<Vec<u8>>,
    pub pkcs8: Vec<u8>,
    pub svid: Svid,
}

/// What a leaf says; [`Says::id`] is a good one.
#[derive(Clone)]
pub struct Says {
    /// Contents of URI SANs.
    pub uris: Vec<Vec<u8>>,
    pub not_before: u64,
    pub not_after: u64,
    pub ca: bool,
    pub usages: Vec<KeyUsagePurpose>,
    pub extended: Vec<ExtendedKeyUsagePurpose>,
    pub serial: u64,
}

impl Says {
    pub fn id(id: &str) -> Self {
        Self {
            uris: vec![id.as_bytes().to_vec()],
            not_before: NOW - 60,
            not_after: NOW + 3600,
            ca: false,
            usages: vec![KeyUsagePurpose::DigitalSignature],
            extended: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            serial: 0xbeef,
        }
    }
}

fn authority(name: &str, not_after: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(NOW - 86_400);
    params.not_after = epoch + Duration::from_secs(not_after);
    params
}

impl Ca {
    pub fn new(domain: &str) -> Self {
        Self::with(domain, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub fn with(domain: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let issuer = CertifiedIssuer::self_signed(authority(domain, NOW + 864_000), key).unwrap();
        Self { domain: domain.into(), issuer, algorithm }
    }

    /// What an intermediate of this root that ends at `not_after` signs.
    pub fn by_intermediate(&self, not_after: u64) -> Signer<'_> {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let params = authority(&format!("{} node", self.domain), not_after);
        Signer { ca: self, intermediate: CertifiedIssuer::signed_by(params, key, &self.issuer).unwrap() }
    }

    /// Its root again, of the same name and key, for longer.
    pub fn signed_anew(&self) -> Vec<u8> {
        authority(&self.domain, NOW + 8_640_000).self_signed(self.issuer.key()).unwrap().der().to_vec()
    }

    pub fn bundle(&self) -> Bundle {
        Bundle { trust_domain: self.domain.clone(), roots: vec![self.issuer.der().to_vec()] }
    }

    pub fn svid(&self, id: &str) -> Leaf {
        self.leaf(&Says::id(id))
    }

    pub fn leaf(&self, says: &Says) -> Leaf {
        self.sign(says, &self.issuer, None)
    }

    fn sign(&self, says: &Says, issuer: &CertifiedIssuer<'static, KeyPair>, above: Option<Vec<u8>>) -> Leaf {
        let key = KeyPair::generate_for(self.algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(says.not_before);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(says.not_after);
        params.serial_number = Some(SerialNumber::from(says.serial));
        params.is_ca = if says.ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages = says.usages.clone();
        params.extended_key_usages = says.extended.clone();
        if !says.uris.is_empty() {
            let names: Vec<u8> = says.uris.iter().flat_map(|uri| der(0x86, uri)).collect();
            let mut names = CustomExtension::from_oid_content(&[2, 5, 29, 17], der(0x30, &names));
            // There is no subject (RFC 5280 §4.1.2.6).
            names.set_criticality(true);
            params.custom_extensions = vec![names];
        }
        let certificate = params.signed_by(&key, issuer).unwrap();
        let chain: Vec<_> = std::iter::once(certificate.der().to_vec()).chain(above).collect();
        let mut id = [0; 32];
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.public_key_raw());
        id.copy_from_slice(digest.as_ref());
        let svid = Svid {
            chain: chain.clone(),
            key: KeyId(id),
            serial: format!("{:x}", says.serial),
            not_before: says.not_before,
            not_after: says.not_after,
        };
        Leaf { chain, pkcs8: key.serialize_der(), svid }
    }
}

/// An intermediate under a [`Ca`].
pub struct Signer<'a> {
    ca: &'a Ca,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

impl Signer<'_> {
    pub fn svid(&self, id: &str) -> Leaf {
        self.leaf(&Says::id(id))
    }

    pub fn leaf(&self, says: &Says) -> Leaf {
        self.ca.sign(says, &self.intermediate, Some(self.intermediate.der().to_vec()))
    }
}

impl Leaf {
    pub fn key(&self) -> PrivateKey {
        PrivateKey::new(self.pkcs8.clone())
    }
}

/// One DER value.
pub fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = vec![tag];
    match len {
        0..128 => out.push(len as u8),
        128..256 => out.extend([0x81, len as u8]),
        _ => out.extend([0x82, (len >> 8) as u8, len as u8]),
    }
    out.extend(content);
    out
}
