//! An authority as users run one: a root, an intermediate for each kind of key, and SVIDs below it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pktgen_tests::netns::gateway::BACKEND;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose as Eku, IsCa, KeyPair,
    KeyUsagePurpose as Use, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SanType, SerialNumber,
    SignatureAlgorithm, date_time_ymd,
};

/// Of what kind a certificate's key and its issuer's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    P256,
    Rsa2048,
    P384,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::P256, Self::Rsa2048, Self::P384];

    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Self::P256 => &PKCS_ECDSA_P256_SHA256,
            Self::Rsa2048 => &PKCS_RSA_SHA256,
            Self::P384 => &PKCS_ECDSA_P384_SHA384,
        }
    }
}

type Issuer = CertifiedIssuer<'static, KeyPair>;

pub struct Pki {
    pub root: PathBuf,
    directory: PathBuf,
    intermediates: [Issuer; 3],
    /// Of all leaves of a kind: to make an RSA key takes a good part of a second.
    keys: [KeyPair; 3],
}

/// Files of an X.509-SVID, and what its reports show.
#[derive(Debug, Clone)]
pub struct Svid {
    /// Leaf and intermediate.
    pub chain: PathBuf,
    pub key: PathBuf,
    /// As reports write it.
    pub serial: String,
    pub id: String,
}

static SERIAL: AtomicU64 = AtomicU64::new(0x4f00_0000_0000_0000);

impl Pki {
    pub fn new(directory: PathBuf) -> Self {
        fs::create_dir(&directory).unwrap();
        let key = KeyPair::generate().unwrap();
        let top = CertifiedIssuer::self_signed(authority("root", BasicConstraints::Unconstrained), key).unwrap();
        let root = directory.join("root.pem");
        fs::write(&root, top.pem()).unwrap();
        let intermediates = Kind::ALL.map(|kind| {
            let params = authority(&format!("intermediate of {kind:?}"), BasicConstraints::Constrained(0));
            let key = KeyPair::generate_for(kind.algorithm()).unwrap();
            CertifiedIssuer::signed_by(params, key, &top).unwrap()
        });
        let keys = Kind::ALL.map(|kind| KeyPair::generate_for(kind.algorithm()).unwrap());
        Self { root, directory, intermediates, keys }
    }

    /// With the ID, and with the backend's name for those who verify names.
    pub fn issue(&self, kind: Kind, name: &str, id: &str) -> Svid {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "SPIFFE");
        params.serial_number = Some(SerialNumber::from(serial));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![Use::DigitalSignature];
        params.extended_key_usages = vec![Eku::ServerAuth, Eku::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names =
            vec![SanType::URI(id.try_into().unwrap()), SanType::DnsName(BACKEND.try_into().unwrap())];
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2044, 1, 1));
        let (key, issuer) = (&self.keys[kind as usize], &self.intermediates[kind as usize]);
        let leaf = params.signed_by(key, issuer).unwrap();
        let path = |end: &str| self.directory.join(format!("{name}-{kind:?}.{end}"));
        let svid = Svid { chain: path("crt"), key: path("key"), serial: format!("{serial:x}"), id: id.into() };
        fs::write(&svid.chain, leaf.pem() + &issuer.pem()).unwrap();
        fs::write(&svid.key, key.serialize_pem()).unwrap();
        svid
    }

    /// Puts the SVID where a gateway's source `files` looks for it.
    pub fn install(&self, svid: &Svid, volume: &Path) {
        fs::create_dir_all(volume).unwrap();
        for (from, name) in [(&svid.chain, "tls.crt"), (&svid.key, "tls.key"), (&self.root, "ca.crt")] {
            let beside = volume.join(format!(".{name}"));
            fs::copy(from, &beside).unwrap();
            fs::set_permissions(&beside, fs::Permissions::from_mode(0o400)).unwrap();
            fs::rename(beside, volume.join(name)).unwrap();
        }
    }
}

fn authority(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![Use::KeyCertSign, Use::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![SanType::URI("spiffe://example.com".try_into().unwrap())];
    (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2044, 1, 1));
    params
}
