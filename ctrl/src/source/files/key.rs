//! A private key of any form that OpenSSL writes, as the PKCS#8 that the dataplane takes.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
};
use snapshot::channel::PrivateKey;

use super::pem::Form;

/// What [`import`] takes.
pub const KINDS: &str = "ECDSA on P-256, P-384 or P-521, RSA of 2048 to 8192 bits, or Ed25519";

pub struct Key {
    pub private: PrivateKey,
    /// As it stands in the subjectPublicKey of its certificate.
    pub public: Vec<u8>,
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
    let pair = CURVES.iter().find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok())?;
    let pkcs8 = pair.to_pkcs8v1().ok()?;
    Some(Key { private: PrivateKey::new(pkcs8.as_ref().to_vec()), public: pair.public_key().as_ref().to_vec() })
}

fn rsa(pair: &RsaKeyPair) -> Option<Key> {
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().ok()?;
    Some(Key { private: PrivateKey::new(pkcs8.as_ref().to_vec()), public: pair.public_key().as_ref().to_vec() })
}

fn ed25519(der: &[u8]) -> Option<Key> {
    let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
    let pkcs8 = pair.to_pkcs8v1().ok()?;
    Some(Key { private: PrivateKey::new(pkcs8.as_ref().to_vec()), public: pair.public_key().as_ref().to_vec() })
}

const CURVES: [&EcdsaSigningAlgorithm; 3] =
    [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING];
