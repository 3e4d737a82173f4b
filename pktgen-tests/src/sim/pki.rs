//! Certificates of a simulation: roots, SVIDs right and wrong, all from the seed.
//!
//! Keys are Ed25519 from drawn bytes, since an ECDSA signature takes a random number that no seed
//! reaches. The same seed gives the same certificates to the last byte.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose as Eku, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose as Use, PKCS_ED25519, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use snapshot::channel::PrivateKey;
use snapshot::{Bundle, KeyId, Svid};

use super::chance::Chance;

pub const TRUST_DOMAIN: &str = "example.com";

/// A root and the intermediate that signs for nodes.
pub struct Authority {
    chance: Chance,
    trust_domain: String,
    root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    serial: u64,
}

/// A leaf certificate with its key, as ctrl would send both.
#[derive(Debug, Clone)]
pub struct Identity {
    pub svid: Svid,
    pub key: PrivateKey,
}

impl Identity {
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect()
    }

    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.pkcs8().to_vec()))
    }
}

impl Authority {
    pub fn new(mut chance: Chance, trust_domain: &str) -> Self {
        let (root_key, intermediate_key) = (key_pair(&mut chance).0, key_pair(&mut chance).0);
        let root_params = ca(&format!("{trust_domain} root"), 1);
        let root = root_params.self_signed(&root_key).expect("a root signs itself");
        let root_issuer = Issuer::new(root_params, root_key);
        let params = ca(&format!("{trust_domain} node"), 2);
        let intermediate = params.signed_by(&intermediate_key, &root_issuer).expect("a root signs an intermediate");
        Self {
            chance,
            trust_domain: trust_domain.into(),
            root: root.into(),
            intermediate: intermediate.into(),
            issuer: Issuer::new(params, intermediate_key),
            serial: 100,
        }
    }

    pub fn bundle(&self) -> Bundle {
        Bundle { trust_domain: self.trust_domain.clone(), roots: vec![self.root.to_vec()] }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    /// An X.509-SVID, valid from `from` to `to` in seconds since the epoch.
    pub fn issue(&mut self, spiffe_id: &str, from: u64, to: u64) -> Identity {
        self.issue_with(&[spiffe_id], from, to)
    }

    /// A leaf with these URI SANs, however many: an SVID has exactly one.
    pub fn issue_with(&mut self, uris: &[&str], from: u64, to: u64) -> Identity {
        self.issue_bent(uris, from, to, |_| {})
    }

    /// The CRL of those that sign leaves, which revokes `revoked`; DER.
    pub fn crl(&self, revoked: &[&Identity]) -> Vec<u8> {
        let revoked_certs = revoked.iter().map(|identity| RevokedCertParams {
            serial_number: SerialNumber::from(
                u64::from_str_radix(&identity.svid.serial, 16).expect("a serial of ours"),
            ),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2034, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("an intermediate signs its CRL").der().to_vec()
    }

    /// What no leaf may be: a certificate that signs others.
    pub fn issue_ca(&mut self, spiffe_id: &str, from: u64, to: u64) -> Identity {
        self.issue_bent(&[spiffe_id], from, to, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        })
    }

    /// A leaf signed by the holder of another leaf, who has no right to.
    pub fn issue_by_a_leaf(&mut self, spiffe_id: &str, from: u64, to: u64) -> Identity {
        let mut signer = None;
        let above = self.issue_bent(&[spiffe_id], from, to, |params| signer = Some(params.clone()));
        let der = PrivatePkcs8KeyDer::from(above.key.pkcs8());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).expect("the key of a leaf");
        let own = Issuer::new(signer.expect("the leaf has been drafted"), key);
        let rightful = std::mem::replace(&mut self.issuer, own);
        let mut identity = self.issue(spiffe_id, from, to);
        self.issuer = rightful;
        identity.svid.chain.insert(1, above.svid.chain[0].clone());
        identity
    }

    /// A leaf with whatever `bend` makes wrong in it.
    pub fn issue_bent(
        &mut self,
        uris: &[&str],
        from: u64,
        to: u64,
        bend: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let (key, pkcs8) = key_pair(&mut self.chance);
        self.serial += 1;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "workload");
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(from);
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(to);
        params.subject_alt_names =
            uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("URIs are ASCII"))).collect();
        params.key_usages = vec![Use::DigitalSignature];
        params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        bend(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).expect("an intermediate signs a leaf");
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.serial.to_le_bytes());
        let svid = Svid {
            chain: vec![leaf.der().to_vec(), self.intermediate.to_vec()],
            key: KeyId(id),
            serial: format!("{:02x}", self.serial),
            not_before: from,
            not_after: to,
        };
        Identity { svid, key: PrivateKey::new(pkcs8) }
    }
}

fn ca(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Use::KeyCertSign, Use::CrlSign];
    params
}

/// With its PKCS#8 form (RFC 8410 §7): a fixed header and the 32 drawn bytes.
fn key_pair(chance: &mut Chance) -> (KeyPair, Vec<u8>) {
    let header = [0x30, 0x2e, 0x02, 0x01, 0, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let pkcs8: Vec<u8> = header.into_iter().chain(chance.bytes::<32>()).collect();
    let der = PrivatePkcs8KeyDer::from(pkcs8.clone());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).expect("any 32 bytes are an Ed25519 key");
    (key, pkcs8)
}
