//! A private key of any form that OpenSSL writes, as the PKCS#8 that the dataplane takes.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
};
use rustls_pki_types::{AlgorithmIdentifier, alg_id};
use snapshot::channel::PrivateKey;

/// What kind of key somebody says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Pkcs8,
    Sec1,
    Pkcs1,
}

/// What [`import`] takes.
pub const KINDS: &str = "ECDSA on P-256, P-384 or P-521, RSA of 2048 to 8192 bits, or Ed25519";

pub struct Key {
    pub private: PrivateKey,
    /// What its certificate says that it is.
    pub algorithm: AlgorithmIdentifier,
    /// As it stands in the subjectPublicKey of its certificate.
    pub public: Vec<u8>,
}

impl Key {
    fn of(pkcs8: &[u8], algorithm: AlgorithmIdentifier, public: &[u8]) -> Self {
        Self { private: PrivateKey::new(pkcs8.to_vec()), algorithm, public: public.to_vec() }
    }
}

/// None: it is none of these kinds, or not of the form that its block says.
pub fn import(form: Form, der: &[u8]) -> Option<Key> {
    match form {
        Form::Sec1 => ecdsa(der),
        Form::Pkcs1 => RsaKeyPair::from_der(der).ok().and_then(|pair| rsa(&pair)),
        Form::Pkcs8 => {
            ecdsa(der).or_else(|| RsaKeyPair::from_pkcs8(der).ok().and_then(|pair| rsa(&pair))).or_else(|| ed25519(der))
        }
    }
}

fn ecdsa(der: &[u8]) -> Option<Key> {
    let on = |(curve, algorithm)| Some((EcdsaKeyPair::from_private_key_der(curve, der).ok()?, algorithm));
    let (pair, algorithm) = CURVES.into_iter().find_map(on)?;
    let pkcs8 = pair.to_pkcs8v1().ok()?;
    Some(Key::of(pkcs8.as_ref(), algorithm, pair.public_key().as_ref()))
}

fn rsa(pair: &RsaKeyPair) -> Option<Key> {
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().ok()?;
    Some(Key::of(pkcs8.as_ref(), alg_id::RSA_ENCRYPTION, pair.public_key().as_ref()))
}

fn ed25519(der: &[u8]) -> Option<Key> {
    let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
    let pkcs8 = pair.to_pkcs8v1().ok()?;
    Some(Key::of(pkcs8.as_ref(), alg_id::ED25519, pair.public_key().as_ref()))
}

const CURVES: [(&EcdsaSigningAlgorithm, AlgorithmIdentifier); 3] = [
    (&ECDSA_P256_SHA256_ASN1_SIGNING, alg_id::ECDSA_P256),
    (&ECDSA_P384_SHA384_ASN1_SIGNING, alg_id::ECDSA_P384),
    (&ECDSA_P521_SHA512_ASN1_SIGNING, alg_id::ECDSA_P521),
];
