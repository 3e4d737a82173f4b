//! The embedded CA: a root made once, an intermediate per node, SVIDs of minutes from that.

use std::path::Path;
use std::time::Duration;

use snapshot::Bundle;

use super::{Error, IssuedSvid, Source};
use crate::config::{SpiffeId, TrustDomain};

/// Makes `root.crt` and `root.key` in `dir`.
pub fn init(dir: &Path, trust_domain: &TrustDomain, now: u64) -> Result<(), Error> {
    let _ = (dir, trust_domain, now);
    Ok(())
}

/// Makes `node.crt`, `node.key` and `bundle.pem` in `out`, signed by the root in `root`.
pub fn issue_node(root: &Path, node: &str, out: &Path, now: u64) -> Result<(), Error> {
    let _ = (root, node, out, now);
    Ok(())
}

/// A node's intermediate, ready to sign.
pub struct EmbeddedCa {
    trust_domain: Option<TrustDomain>,
    ttl: Duration,
}

impl EmbeddedCa {
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let _ = dir;
        Ok(Self { trust_domain: None, ttl: Duration::from_secs(3600) })
    }

    /// Out of the intermediate's name constraints or the root's SPIFFE ID.
    pub fn trust_domain(&self) -> Option<&str> {
        self.trust_domain.as_ref().map(TrustDomain::as_str)
    }

    pub fn with(self, trust_domain: TrustDomain, ttl: Duration) -> Self {
        Self { trust_domain: Some(trust_domain), ttl }
    }
}

impl Source for EmbeddedCa {
    fn issue(&self, id: &SpiffeId, dns_names: &[String], now: u64) -> Result<IssuedSvid, Error> {
        let _ = (id, dns_names, now, self.ttl);
        Err(Error::Ttl(0))
    }

    fn bundle(&self) -> Bundle {
        Bundle { trust_domain: String::new(), roots: Vec::new() }
    }

    fn warnings(&self, _now: u64) -> Vec<String> {
        Vec::new()
    }
}
