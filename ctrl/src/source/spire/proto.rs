//! The messages and clients that `build.rs` makes of `ctrl/proto`, and what they become here.
//!
//! Messages with a private key wipe it when they are dropped and never show it. What gRPC itself keeps of
//! a message while it is read (the frames of HTTP/2 and its buffer of the message) is freed and not wiped:
//! tonic lends neither for writing.

#![allow(clippy::doc_lazy_continuation, reason = "comments of the .proto files")]

use std::collections::HashMap;
use std::mem::take;

use zeroize::{Zeroize as _, Zeroizing};

use crate::config::TrustDomain;

include!(concat!(env!("OUT_DIR"), "/apis.rs"));

pub use spiffe::broker;
pub use spire::api::agent::delegatedidentity::v1 as delegated;
pub use spire::api::types;

/// An SVID as it came, whatever it is.
pub struct Given {
    pub id: String,
    pub chain: Chain,
    pub key: Zeroizing<Vec<u8>>,
}

/// DER, leaf first.
pub enum Chain {
    /// One behind the other.
    Joined(Vec<u8>),
    Apart(Vec<Vec<u8>>),
}

/// All SVIDs that somebody is entitled to.
pub struct Svids {
    pub given: Vec<Given>,
    /// Trust domains that they federate with, as the agent writes them.
    pub federates_with: Vec<String>,
}

/// All bundles, by trust domain as the agent writes it; certificates in DER, one behind the other.
pub struct Bundles(pub HashMap<String, Vec<u8>>);

impl From<X509svidResponse> for Svids {
    fn from(mut message: X509svidResponse) -> Self {
        let one = |svid: &mut X509svid| Given {
            id: take(&mut svid.spiffe_id),
            chain: Chain::Joined(take(&mut svid.x509_svid)),
            key: take(&mut svid.x509_svid_key).into(),
        };
        Self { given: message.svids.iter_mut().map(one).collect(), federates_with: vec![] }
    }
}

impl From<delegated::SubscribeToX509sviDsResponse> for Svids {
    fn from(mut message: delegated::SubscribeToX509sviDsResponse) -> Self {
        let one = |svid: &mut delegated::X509svidWithKey| {
            let types::X509svid { cert_chain, id, .. } = svid.x509_svid.take().unwrap_or_default();
            let types::Spiffeid { trust_domain, path } = id.unwrap_or_default();
            Given {
                id: format!("spiffe://{trust_domain}/{}", path.strip_prefix('/').unwrap_or(&path)),
                chain: Chain::Apart(cert_chain),
                key: take(&mut svid.x509_svid_key).into(),
            }
        };
        let given = message.x509_svids.iter_mut().map(one).collect();
        Self { given, federates_with: message.federates_with }
    }
}

impl From<broker::SubscribeToX509svidResponse> for Svids {
    fn from(mut message: broker::SubscribeToX509svidResponse) -> Self {
        let one = |svid: &mut broker::X509svid| Given {
            id: take(&mut svid.spiffe_id),
            chain: Chain::Joined(take(&mut svid.x509_svid)),
            key: take(&mut svid.x509_svid_key).into(),
        };
        // It is for the workload that was asked about, so all of them are.
        let federates_with = message.federated_bundles.into_keys().collect();
        Self { given: message.svids.iter_mut().map(one).collect(), federates_with }
    }
}

/// Those that came along with SVIDs; `own` is the trust domain that these are to be of. None: there is no SVID.
pub fn bundles_of(message: &mut broker::SubscribeToX509svidResponse, own: &TrustDomain) -> Option<Bundles> {
    // Their names are asked for again.
    let mut all: HashMap<_, _> =
        message.federated_bundles.iter_mut().map(|(name, ders)| (name.clone(), take(ders))).collect();
    let id = format!("spiffe://{own}");
    let is_own =
        |svid: &&mut broker::X509svid| svid.spiffe_id.strip_prefix(&id).is_some_and(|path| path.starts_with('/'));
    if let Some(svid) = message.svids.iter_mut().find(is_own) {
        all.insert(id.clone(), take(&mut svid.bundle));
    }
    (!message.svids.is_empty()).then_some(Bundles(all))
}

impl From<X509BundlesResponse> for Bundles {
    fn from(message: X509BundlesResponse) -> Self {
        Self(message.bundles)
    }
}

impl From<delegated::SubscribeToX509BundlesResponse> for Bundles {
    fn from(message: delegated::SubscribeToX509BundlesResponse) -> Self {
        Self(message.ca_certificates)
    }
}

impl Drop for X509svid {
    fn drop(&mut self) {
        self.x509_svid_key.zeroize();
    }
}

impl Drop for broker::X509svid {
    fn drop(&mut self) {
        self.x509_svid_key.zeroize();
    }
}

impl Drop for delegated::X509svidWithKey {
    fn drop(&mut self) {
        self.x509_svid_key.zeroize();
    }
}

impl std::fmt::Debug for X509svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for broker::X509svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509svid").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for delegated::X509svidWithKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509svidWithKey").field("x509_svid", &self.x509_svid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_shows_its_key() {
        let key = vec![0xa5; 32];
        let mut own = X509svid::default();
        (own.spiffe_id, own.x509_svid_key) = ("spiffe://example.com/a".into(), key.clone());
        let message = X509svidResponse { svids: vec![own], ..X509svidResponse::default() };
        let of_workload = delegated::X509svidWithKey { x509_svid: None, x509_svid_key: key.clone() };
        let mut brokered = broker::X509svid::default();
        brokered.x509_svid_key = key;
        for shown in [format!("{message:?}"), format!("{of_workload:?}"), format!("{brokered:?}")] {
            assert!(!shown.contains("165") && !shown.contains("key"), "{shown}");
        }
        assert!(format!("{message:?}").contains("spiffe://example.com/a"));
    }
}
