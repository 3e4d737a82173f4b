//! The cryptography alone, with nothing around it.
//!
//! In the same units as the pairs': every byte through A and B is sealed once and opened once, and
//! every connection between them costs both ends a key exchange, a signature, and the verification
//! of the other's signature and of its two certificates.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey as PeerKey, X25519, agree_ephemeral};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustix::time::{ClockId, clock_gettime};

use super::figure;
use crate::samples::Figure;

/// Certificates of a chain that are verified: leaf and intermediate.
const CHAIN: usize = 2;
/// Seconds of CPU for each figure.
const SPAN: f64 = 0.2;

pub fn measure() -> Result<BTreeMap<String, Figure>> {
    Ok([
        ("AES-128-GCM, records of 1400 B".to_owned(), figure(sealed_and_opened(1400)?, "s/GiB")),
        ("AES-128-GCM, records of 16 KiB".to_owned(), figure(sealed_and_opened(16_384)?, "s/GiB")),
        ("full handshakes, X25519 and P-256".to_owned(), figure(handshakes()?, "s/1000")),
    ]
    .into())
}

/// Seconds of CPU per GiB.
fn sealed_and_opened(record: usize) -> Result<f64> {
    let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(|_| anyhow!("an AES key"))?;
    let (key, mut bytes) = (LessSafeKey::new(key), vec![7; record]);
    let mut number = 0u128;
    let each = seconds_each(|| {
        let nonce =
            || Nonce::assume_unique_for_key(number.to_be_bytes()[16 - NONCE_LEN..].try_into().expect("12 bytes"));
        key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut bytes).map_err(|_| anyhow!("seal"))?;
        key.open_in_place(nonce(), Aad::empty(), &mut bytes).map_err(|_| anyhow!("open"))?;
        bytes.truncate(record);
        number += 1;
        Ok(())
    })?;
    Ok(each * f64::from(1 << 30) / record as f64)
}

/// Seconds of CPU per 1000, both ends.
fn handshakes() -> Result<f64> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
    let message = [7; 130];
    let each = seconds_each(|| {
        let ends = [EphemeralPrivateKey::generate(&X25519, &random)?, EphemeralPrivateKey::generate(&X25519, &random)?];
        let [a, b] = [ends[0].compute_public_key()?, ends[1].compute_public_key()?];
        for (own, peer) in ends.into_iter().zip([b, a]) {
            agree_ephemeral(own, PeerKey::new(&X25519, peer), anyhow!("agree"), |_| Ok(()))?;
            let signature = key.sign(&random, &message)?;
            let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key.public_key());
            for _ in 0..=CHAIN {
                verifier.verify(&message, signature.as_ref())?;
            }
        }
        Ok(())
    })?;
    Ok(each * 1000.0)
}

/// Of this thread's CPU: strangers do not count.
fn seconds_each(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let began = cpu();
    let mut times = 0u32;
    loop {
        for _ in 0..16 {
            work()?;
        }
        times += 16;
        let spent = cpu() - began;
        if spent >= SPAN {
            return Ok(spent / f64::from(times));
        }
    }
}

fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_records_cost_less_and_everything_costs_something() {
        let figures = measure().unwrap();
        let value = |part: &str| figures.iter().find(|(name, _)| name.contains(part)).unwrap().1.value;
        assert!(value("16 KiB") > 0.0 && value("16 KiB") < value("1400 B"), "{figures:?}");
        assert!(value("handshakes") > 0.0);
    }
}
