//! A P-256 key that certificates are signed with, or that an SVID is for.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use zeroize::Zeroizing;

use super::Error;

/// rcgen's own key type keeps the PKCS#8 bytes and does not wipe them; this one keeps none.
pub struct Signer(EcdsaKeyPair);

impl Signer {
    /// A new key, and its PKCS#8 DER.
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), Error> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        let document = document.map_err(|_| Error::Crypto { what: "key", reason: "cannot be made".into() })?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::from_pkcs8(&pkcs8)?, pkcs8))
    }

    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8);
        pair.map(Self).map_err(|error| Error::Crypto { what: "key", reason: error.to_string() })
    }

    /// The uncompressed point.
    pub fn public_key(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn key_id(&self) -> [u8; 32] {
        let spki = self.subject_public_key_info();
        digest(&SHA256, &spki).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        self.public_key()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        signature.map(|s| s.as_ref().to_vec()).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(..)")
    }
}
