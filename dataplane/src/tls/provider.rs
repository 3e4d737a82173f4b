//! Which cryptography TLS runs on.
//!
//! Production is AWS-LC with the post-quantum hybrid first. The simulation needs the same seed to
//! give the same bytes, which AWS-LC's own generator cannot: [`seeded`] takes everything random
//! from a seed and otherwise runs the same record protection, signatures and verification.

use std::sync::Arc;

use ::snapshot::Group;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs as lc};

/// AES-128-GCM first: it is as strong as the 128-bit level of the key exchange and the fastest.
pub fn production() -> Arc<CryptoProvider> {
    of(&Group::ALL)
}

/// The same with these key exchanges only, in this order.
pub fn of(groups: &[Group]) -> Arc<CryptoProvider> {
    let kx_groups = groups.iter().map(|group| exchange(*group)).collect();
    Arc::new(CryptoProvider { cipher_suites: suites(), kx_groups, ..lc::default_provider() })
}

fn exchange(group: Group) -> &'static dyn SupportedKxGroup {
    match group {
        Group::X25519MlKem768 => lc::kx_group::X25519MLKEM768,
        Group::X25519 => lc::kx_group::X25519,
        Group::Secp256r1 => lc::kx_group::SECP256R1,
    }
}

fn suites() -> Vec<rustls::SupportedCipherSuite> {
    use lc::cipher_suite as s;
    vec![
        s::TLS13_AES_128_GCM_SHA256,
        s::TLS13_AES_256_GCM_SHA384,
        s::TLS13_CHACHA20_POLY1305_SHA256,
        // TLS 1.2 is for SIMPLE egress to servers that know no better; AEAD and forward secrecy only.
        s::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        s::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        s::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        s::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ]
}

#[cfg(any(test, feature = "testing"))]
pub use seeded::{provider as seeded, seed};

#[cfg(any(test, feature = "testing"))]
mod seeded {
    use std::cell::Cell;
    use std::sync::Arc;

    use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
    use rustls::crypto::{
        ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
        aws_lc_rs as lc,
    };
    use rustls::{Error, NamedGroup, PeerMisbehaved};

    thread_local!(static STATE: Cell<u64> = const { Cell::new(0) });

    /// Starts this thread's stream of random bytes anew.
    pub fn seed(seed: u64) {
        STATE.set(seed);
    }

    /// For tests only: everything random comes from [`seed`]. Certificates must be Ed25519, since
    /// ECDSA takes a random number for each signature.
    pub fn provider() -> Arc<CryptoProvider> {
        Arc::new(CryptoProvider {
            cipher_suites: super::suites(),
            kx_groups: vec![&SeededX25519],
            secure_random: &SeededRandom,
            ..lc::default_provider()
        })
    }

    /// SplitMix64.
    fn fill(bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
            STATE.set(state);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }

    #[derive(Debug)]
    struct SeededRandom;

    impl SecureRandom for SeededRandom {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
            fill(bytes);
            Ok(())
        }
    }

    #[derive(Debug)]
    struct SeededX25519;

    struct Exchange {
        private: PrivateKey,
        public: Vec<u8>,
    }

    impl SupportedKxGroup for SeededX25519 {
        fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
            let mut bytes = [0; 32];
            fill(&mut bytes);
            let private = PrivateKey::from_private_key(&X25519, &bytes).map_err(|_| GetRandomFailed)?;
            let public = private.compute_public_key().map_err(|_| GetRandomFailed)?.as_ref().to_vec();
            Ok(Box::new(Exchange { private, public }))
        }

        fn name(&self) -> NamedGroup {
            NamedGroup::X25519
        }
    }

    impl ActiveKeyExchange for Exchange {
        fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
            let peer = UnparsedPublicKey::new(&X25519, peer);
            let invalid = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);
            agreement::agree(&self.private, peer, invalid, |secret| Ok(SharedSecret::from(secret)))
        }

        fn pub_key(&self) -> &[u8] {
            &self.public
        }

        fn group(&self) -> NamedGroup {
            NamedGroup::X25519
        }
    }
}
