//! What a handshake stands on: a workload's own certificate and key, and a trust domain's roots.

use std::sync::{Arc, OnceLock};

use ::snapshot::{Bundle, Svid, channel::PrivateKey};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::certificate::Certificate;
use super::identity;
use super::root::Root;
use super::tickets::Tickets;
use super::verified::Verified;
use crate::snapshot::addresses::Map;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("the private key is not that of the certificate")]
    KeyMismatch,
    #[error("the private key is no PKCS#8 key of a kind that TLS signs with")]
    Key,
    #[error("its certificate breaks the rules of an X.509-SVID: {0}")]
    Certificate(String),
    #[error("its certificate is of {0}")]
    OtherId(String),
}

/// An SVID with its key, imported.
pub struct Credentials {
    svid: Svid,
    spiffe_id: String,
    pub serial: Arc<str>,
    pub(super) resolver: Arc<SingleCertAndKey>,
    /// Made when the first is asked for.
    tickets: OnceLock<Tickets>,
}

impl Credentials {
    /// The key is copied into the crypto library only; the caller's copy is the caller's to wipe.
    pub fn import(svid: &Svid, key: &PrivateKey, spiffe_id: &str) -> Result<Self, ImportError> {
        let chain: Vec<_> = svid.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let leaf = svid.chain.first().ok_or_else(|| ImportError::Certificate("there is none".into()))?;
        let (claim, _) = identity::read_leaf(leaf)
            .map_err(|refusal| ImportError::Certificate(refusal.detail.unwrap_or_default()))?;
        if claim.id != spiffe_id {
            return Err(ImportError::OtherId(claim.id));
        }
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8()));
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(|_| ImportError::Key)?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|_| ImportError::KeyMismatch)?;
        Ok(Self {
            svid: svid.clone(),
            spiffe_id: spiffe_id.to_owned(),
            serial: svid.serial.as_str().into(),
            resolver: Arc::new(SingleCertAndKey::from(certified)),
            tickets: OnceLock::new(),
        })
    }

    /// What was handed out under this SVID, and what was given to it: another has none of it.
    pub(super) fn tickets(&self) -> &Tickets {
        self.tickets.get_or_init(Tickets::new)
    }

    pub fn valid_at(&self, now: u64) -> bool {
        (self.svid.not_before..=self.svid.not_after).contains(&now)
    }

    /// Seconds since the epoch.
    pub fn not_after(&self) -> u64 {
        self.svid.not_after
    }

    /// Whether importing `svid` again would come to the same.
    pub fn is_of(&self, svid: &Svid) -> bool {
        self.svid == *svid
    }

    pub fn is_for(&self, spiffe_id: &str) -> bool {
        self.spiffe_id == spiffe_id
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("spiffe_id", &self.spiffe_id)
            .field("serial", &self.serial)
            .field("not_after", &self.svid.not_after)
            .finish_non_exhaustive()
    }
}

/// The roots of one trust domain. There is no way to ask two domains' roots at once.
#[derive(Debug)]
pub struct Roots {
    trust_domain: Arc<str>,
    bundle: Bundle,
    /// Indices of roots by subject (the content of its Name).
    by_subject: Map<Vec<u8>, Vec<usize>>,
    key_ids: Vec<Option<Vec<u8>>>,
    /// By index.
    known: Vec<Arc<Root>>,
    pub(super) verified: Verified,
}

impl Roots {
    /// Or the index of the root that is none, and why. One that is a certificate and breaks a rule
    /// is taken, and refuses whatever leads to it: the others of its bundle still stand.
    pub fn parse(bundle: &Bundle) -> Result<Self, (usize, String)> {
        let mut by_subject: Map<Vec<u8>, Vec<usize>> = Map::default();
        let (mut key_ids, mut known) = (Vec::new(), Vec::new());
        for (index, der) in bundle.roots.iter().enumerate() {
            let certificate = CertificateDer::from(der.as_slice());
            let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|e| (index, e.to_string()))?;
            by_subject.entry(anchor.subject.to_vec()).or_default().push(index);
            key_ids.push(Certificate::read(der).ok().and_then(|root| root.key_id().map(<[u8]>::to_vec)));
            known.push(Root::of(&anchor, der));
        }
        let trust_domain = bundle.trust_domain.as_str().into();
        Ok(Self { trust_domain, bundle: bundle.clone(), by_subject, key_ids, known, verified: Verified::new() })
    }

    pub fn trust_domain(&self) -> &Arc<str> {
        &self.trust_domain
    }

    pub(super) fn has(&self, subject: &[u8]) -> bool {
        self.by_subject.contains_key(subject)
    }

    /// The roots of this name, first those that have the key wanted: key ids are no proof, and
    /// without them a name that many roots share would have to be tried key by key.
    pub(super) fn named(&self, subject: &[u8], key_id: Option<&[u8]>) -> impl Iterator<Item = usize> {
        let all = self.by_subject.get(subject).map_or(&[][..], Vec::as_slice);
        let wanted = move |&&index: &&usize| key_id.is_some() && self.key_ids[index].as_deref() == key_id;
        all.iter().filter(wanted).chain(all.iter().filter(move |index| !wanted(index))).copied()
    }

    pub(super) fn der(&self, index: usize) -> &[u8] {
        &self.bundle.roots[index]
    }

    pub(super) fn root(&self, index: usize) -> &Arc<Root> {
        &self.known[index]
    }

    /// The first of them.
    #[cfg(test)]
    pub fn any(&self) -> Arc<Root> {
        self.known[0].clone()
    }

    /// Whether what chains to `root` is trusted, whichever certificate of the root is here.
    pub fn trusts(&self, root: &Root) -> bool {
        self.known.iter().any(|own| own.is(root))
    }

    pub fn is_of(&self, bundle: &Bundle) -> bool {
        self.bundle == *bundle
    }
}
