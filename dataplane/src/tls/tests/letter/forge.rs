//! Certificates as they should be, and bent in any way: what a library would refuse to make.

use std::sync::OnceLock;

use ::snapshot::{Bundle, KeyId, Svid};
use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SigningKey};
use rustls_pki_types::alg_id;
use x509_parser::time::ASN1Time;

use crate::tls::tests::certs::{Leaf, NOW, der};

/// Kinds of keys, each with the signature that goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

pub const KINDS: [Kind; 4] = [Kind::P256, Kind::P384, Kind::Ed25519, Kind::Rsa];

/// Keys take long to make: each kind has these few, by who holds one.
const HOLDERS: usize = 12;
static KEYS: [[OnceLock<KeyPair>; HOLDERS]; KINDS.len()] =
    [const { [const { OnceLock::new() }; HOLDERS] }; KINDS.len()];

const ROOT: usize = 0;
const LEAF: usize = 1;
const ISSUERS: usize = 2;

fn key(kind: Kind, holder: usize) -> &'static KeyPair {
    KEYS[kind as usize][holder].get_or_init(|| match kind {
        Kind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap(),
        Kind::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap(),
        Kind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap(),
        Kind::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
    })
}

fn signature_algorithm(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::P256 => &alg_id::ECDSA_SHA256,
        Kind::P384 => &alg_id::ECDSA_SHA384,
        Kind::Ed25519 => &alg_id::ED25519,
        Kind::Rsa => &alg_id::RSA_PKCS1_SHA256,
    }
}

/// A certificate before it is signed.
#[derive(Debug, Clone)]
pub struct Draft {
    /// 2 is version 3.
    pub version: u8,
    /// A whole Name.
    pub subject: Vec<u8>,
    /// Instead of the subject of who signs it.
    pub issuer: Option<Vec<u8>>,
    pub from: u64,
    pub to: u64,
    pub kind: Kind,
    /// Instead of its own: a whole subjectPublicKeyInfo.
    pub key: Option<Vec<u8>>,
    /// Instead of the signer's: content of an AlgorithmIdentifier.
    pub signed_with: Option<Vec<u8>>,
    pub signature_broken: bool,
    /// Content of the object identifier, critical, value.
    pub extensions: Vec<(Vec<u8>, bool, Vec<u8>)>,
}

impl Draft {
    fn new(name: &str, kind: Kind) -> Self {
        Self {
            version: 2,
            subject: common_name(name),
            issuer: None,
            from: NOW - 60,
            to: NOW + 3600,
            kind,
            key: None,
            signed_with: None,
            signature_broken: false,
            extensions: Vec::new(),
        }
    }

    fn ca(name: &str, kind: Kind) -> Self {
        let mut draft = Self::new(name, kind);
        draft.set(BASIC, true, basic(true, None));
        draft.set(USAGE, true, usage(&[CERT_SIGN, CRL_SIGN]));
        draft
    }

    pub fn leaf(id: &str, kind: Kind) -> Self {
        let mut draft = Self::new("workload", kind);
        draft.set(BASIC, true, basic(false, None));
        draft.set(USAGE, true, usage(&[DIGITAL_SIGNATURE]));
        draft.set(EXTENDED, false, extended(&[SERVER_AUTH, CLIENT_AUTH]));
        draft.set(NAMES, false, uris(&[id]));
        draft
    }

    /// In place of the extension that it has, or anew.
    pub fn set(&mut self, id: &[u8], critical: bool, value: Vec<u8>) {
        self.unset(id);
        self.extensions.push((id.to_vec(), critical, value));
    }

    pub fn unset(&mut self, id: &[u8]) {
        self.extensions.retain(|(have, ..)| have != id);
    }

    fn sign(&self, holder: usize, by: &Self, signer: usize, serial: u8) -> Vec<u8> {
        let algorithm = self.signed_with.as_deref().unwrap_or(signature_algorithm(by.kind));
        let algorithm = der(0x30, algorithm);
        let extensions: Vec<u8> = self.extensions.iter().flat_map(extension).collect();
        let mut parts = Vec::new();
        if self.version > 0 {
            parts.extend(der(0xa0, &der(0x02, &[self.version])));
        }
        parts.extend(der(0x02, &[serial]));
        parts.extend(&algorithm);
        parts.extend(self.issuer.as_ref().unwrap_or(&by.subject));
        parts.extend(der(0x30, &[time(self.from), time(self.to)].concat()));
        parts.extend(&self.subject);
        parts.extend(self.key.clone().unwrap_or_else(|| key(self.kind, holder).subject_public_key_info()));
        if !extensions.is_empty() {
            parts.extend(der(0xa3, &der(0x30, &extensions)));
        }
        let signed = der(0x30, &parts);
        let mut signature = key(by.kind, signer).sign(&signed).unwrap();
        if self.signature_broken {
            *signature.last_mut().unwrap() ^= 1;
        }
        der(0x30, &[signed, algorithm, der(0x03, &[vec![0], signature].concat())].concat())
    }
}

/// A whole chain before it is made, as it should be until it is bent.
#[derive(Debug, Clone)]
pub struct Plan {
    pub root: Draft,
    /// The one that signs the leaf first.
    pub issuers: Vec<Draft>,
    pub leaf: Draft,
    /// How the presented certificates are bent once they are made.
    pub bytes: fn(&mut Vec<Vec<u8>>),
}

impl Plan {
    /// A root, two issuers and a leaf, all with keys of one kind.
    pub fn good(id: &str, kind: Kind) -> Self {
        Self {
            root: Draft::ca("root", kind),
            issuers: vec![Draft::ca("issuer one", kind), Draft::ca("issuer two", kind)],
            leaf: Draft::leaf(id, kind),
            bytes: |_| {},
        }
    }

    pub fn root(&self) -> Vec<u8> {
        self.root.sign(ROOT, &self.root, ROOT, 1)
    }

    pub fn bundle(&self) -> Bundle {
        Bundle { trust_domain: "example.com".into(), roots: vec![self.root()] }
    }

    pub fn leaf(&self) -> Leaf {
        let drafts: Vec<(&Draft, usize)> = std::iter::once((&self.leaf, LEAF))
            .chain(self.issuers.iter().zip(ISSUERS..))
            .chain([(&self.root, ROOT)])
            .collect();
        let sign = |pair: &[(&Draft, usize)], serial| pair[0].0.sign(pair[0].1, pair[1].0, pair[1].1, serial);
        let mut chain: Vec<_> = drafts.windows(2).zip(2..).map(|(pair, serial)| sign(pair, serial)).collect();
        (self.bytes)(&mut chain);
        let svid = Svid {
            chain: chain.clone(),
            key: KeyId([0; 32]),
            serial: "02".into(),
            not_before: self.leaf.from,
            not_after: self.leaf.to,
        };
        Leaf { chain, pkcs8: key(self.leaf.kind, LEAF).serialize_der(), svid }
    }
}

fn extension((id, critical, value): &(Vec<u8>, bool, Vec<u8>)) -> Vec<u8> {
    let critical = if *critical { der(0x01, &[0xff]) } else { vec![] };
    der(0x30, &[der(0x06, id), critical, der(0x04, value)].concat())
}

fn time(at: u64) -> Vec<u8> {
    let t = ASN1Time::from_timestamp(at.try_into().unwrap()).unwrap().to_datetime();
    let (date, clock) = ((t.year() % 100, u8::from(t.month()), t.day()), (t.hour(), t.minute(), t.second()));
    let text = format!("{:02}{:02}{:02}{:02}{:02}{:02}Z", date.0, date.1, date.2, clock.0, clock.1, clock.2);
    der(0x17, text.as_bytes())
}

/// A Name of these attributes, one a part: the last number of their types (2.5.4.x), and text.
pub fn name(parts: &[(u8, &str)]) -> Vec<u8> {
    let part = |&(kind, text): &(u8, &str)| {
        let attribute = [der(0x06, &[0x55, 4, kind]), der(0x0c, text.as_bytes())].concat();
        der(0x31, &der(0x30, &attribute))
    };
    der(0x30, &parts.iter().flat_map(part).collect::<Vec<_>>())
}

pub fn common_name(text: &str) -> Vec<u8> {
    name(&[(3, text)])
}

pub fn basic(ca: bool, path_length: Option<u8>) -> Vec<u8> {
    let ca = if ca { der(0x01, &[0xff]) } else { vec![] };
    der(0x30, &[ca, path_length.map_or(vec![], |length| der(0x02, &[length]))].concat())
}

/// Of bits by their numbers in RFC 5280 §4.2.1.3.
pub fn usage(bits: &[u8]) -> Vec<u8> {
    let byte = bits.iter().fold(0_u8, |byte, bit| byte | 0x80 >> bit);
    der(0x03, &[byte.trailing_zeros().min(7) as u8, byte])
}

/// Of purposes by their last number under id-kp.
pub fn extended(purposes: &[u8]) -> Vec<u8> {
    let id = |&last: &u8| der(0x06, &[0x2b, 6, 1, 5, 5, 7, 3, last]);
    der(0x30, &purposes.iter().flat_map(id).collect::<Vec<_>>())
}

pub fn names(names: &[(u8, &[u8])]) -> Vec<u8> {
    der(0x30, &names.iter().flat_map(|(tag, content)| der(*tag, content)).collect::<Vec<_>>())
}

pub fn uris(uris: &[&str]) -> Vec<u8> {
    names(&uris.iter().map(|uri| (0x86, uri.as_bytes())).collect::<Vec<_>>())
}

/// Of bases, permitted and excluded.
pub fn constraints(permitted: &[(u8, &[u8])], excluded: &[(u8, &[u8])]) -> Vec<u8> {
    let subtrees = |tag, bases: &[(u8, &[u8])]| match bases.is_empty() {
        true => vec![],
        false => der(tag, &bases.iter().flat_map(|(tag, base)| der(0x30, &der(*tag, base))).collect::<Vec<_>>()),
    };
    der(0x30, &[subtrees(0xa0, permitted), subtrees(0xa1, excluded)].concat())
}

/// A subjectPublicKeyInfo with an RSA key of so many bits, that nobody holds.
pub fn rsa_key(bits: usize) -> Vec<u8> {
    let mut modulus = vec![0; bits / 8 + 1];
    (modulus[1], modulus[bits / 8]) = (0x80, 1);
    let key = der(0x30, &[der(0x02, &modulus), der(0x02, &[1, 0, 1])].concat());
    der(0x30, &[der(0x30, &alg_id::RSA_ENCRYPTION), der(0x03, &[vec![0], key].concat())].concat())
}

/// The public key of whoever holds the given one of a kind.
pub fn public_key(kind: Kind, holder: usize) -> Vec<u8> {
    key(kind, holder).subject_public_key_info()
}

pub fn key_id(id: &[u8]) -> Vec<u8> {
    der(0x04, id)
}

pub fn authority_key_id(id: &[u8]) -> Vec<u8> {
    der(0x30, &der(0x80, id))
}

/// One on the curve with this object identifier (its content), that nobody holds.
pub fn curve_key(curve: &[u8], size: usize) -> Vec<u8> {
    let algorithm = [der(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), der(0x06, curve)].concat();
    let point = [vec![0, 4], vec![7; 2 * size]].concat();
    der(0x30, &[der(0x30, &algorithm), der(0x03, &point)].concat())
}

pub const USAGE: &[u8] = &[0x55, 0x1d, 15];
pub const NAMES: &[u8] = &[0x55, 0x1d, 17];
pub const BASIC: &[u8] = &[0x55, 0x1d, 19];
pub const CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];
pub const EXTENDED: &[u8] = &[0x55, 0x1d, 37];
pub const SUBJECT_KEY: &[u8] = &[0x55, 0x1d, 14];
pub const AUTHORITY_KEY: &[u8] = &[0x55, 0x1d, 35];

pub const DIGITAL_SIGNATURE: u8 = 0;
pub const KEY_ENCIPHERMENT: u8 = 2;
pub const CERT_SIGN: u8 = 5;
pub const CRL_SIGN: u8 = 6;

pub const SERVER_AUTH: u8 = 1;
pub const CLIENT_AUTH: u8 = 2;
pub const MAIL_PROTECTION: u8 = 4;
