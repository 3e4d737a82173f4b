//! What all sources of a node have peers verified by, as one: now, and as soon as a changed Gateway is taken.

use std::collections::BTreeMap;

use snapshot::Bundle;

use super::super::roots;
use super::{Entry, Error, Gateway, IdentitySource, Sources, Trusted, open};

/// Of the Gateway's own trust domain, and of the others that a source brings; roots that are valid, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Together {
    pub own: Bundle,
    pub federated: Vec<Bundle>,
}

impl Sources {
    /// The roots of all sources that are valid now, each once.
    pub fn bundle(&self, now: u64) -> Bundle {
        bundle(self.trust_domain.clone(), self.all_roots(), now)
    }

    /// The bundles of other trust domains, of all sources together, with roots that are valid now.
    pub fn federated(&self, now: u64) -> Vec<Bundle> {
        federated(self.entries.iter().filter_map(Entry::trusted), now)
    }

    /// An embedded CA is looked at. Whom others would have trusted they say only once they are asked; until then the
    /// roots of the source that had their name stand.
    pub fn would_trust(&self, gateway: &Gateway, now: u64) -> Result<Together, Error> {
        let mut trusted = Vec::with_capacity(gateway.identity.len());
        for named in &gateway.identity {
            let same = self.entries.iter().find(|entry| entry.is_of(named, &gateway.trust_domain));
            let opened = match &named.source {
                IdentitySource::Embedded { .. } => Some(open(named, &gateway.trust_domain, &self.news)),
                IdentitySource::Files(_) | IdentitySource::Spire(_) | IdentitySource::Vault(_) => None,
            };
            let same_domain = gateway.trust_domain.as_str() == self.trust_domain;
            let predecessor = || self.entries.iter().find(|entry| same_domain && entry.name() == named.name);
            trusted.extend(match opened {
                Some(Ok(source)) => Some(Trusted::by(source.as_ref())),
                Some(Err(error)) if same.is_none() => return Err(error),
                Some(Err(_)) | None => same.or_else(predecessor).and_then(Entry::trusted),
            });
        }
        let roots = trusted.iter().flat_map(|trusted| trusted.roots.iter().cloned()).collect();
        let own = bundle(gateway.trust_domain.to_string(), roots, now);
        Ok(Together { own, federated: federated(trusted.into_iter(), now) })
    }
}

fn bundle(trust_domain: String, found: Vec<Vec<u8>>, now: u64) -> Bundle {
    let mut roots = roots::valid(found, now);
    roots.truncate(roots::MOST_TOGETHER);
    Bundle { trust_domain, roots }
}

fn federated(trusted: impl Iterator<Item = Trusted>, now: u64) -> Vec<Bundle> {
    let mut all: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for Bundle { trust_domain, roots } in trusted.flat_map(|trusted| trusted.federated) {
        all.entry(trust_domain).or_default().extend(roots);
    }
    all.into_iter().map(|(trust_domain, found)| bundle(trust_domain, found, now)).collect()
}
