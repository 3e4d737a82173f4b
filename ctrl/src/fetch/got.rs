//! What was fetched and taken: by it, the configuration says whom to trust and whom not. It outlives a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Key, What};
use crate::config::crl::{self, RevocationList};
use crate::config::crls::{Crl, OnStale};
use crate::config::roots::Certificate;
use crate::config::trust::Root;
use crate::config::{Loaded, TrustBundle, TrustDomain};

/// The last good of each source. Cheap to copy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Got {
    pub bundles: BTreeMap<TrustDomain, GotBundle>,
    pub crls: BTreeMap<Key, GotCrl>,
    /// By trust domain and issuer, those in force, of files too: what has another URL from now on stays until that
    /// one has given it. Otherwise everybody whom it revokes would be let in meanwhile.
    in_force: BTreeMap<(TrustDomain, [u8; 32]), InForce>,
}

#[derive(Debug, Clone, PartialEq)]
struct InForce {
    list: Arc<RevocationList>,
    from: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GotBundle {
    /// What it began with; see [`crate::config::endpoint::Endpoint::origin`].
    pub origin: [u8; 32],
    pub certificates: Arc<Vec<Certificate>>,
    pub sequence: Option<u64>,
    /// Of all that were taken.
    pub highest: Option<u64>,
    pub refresh_hint: Option<u64>,
    /// Seconds since the epoch.
    pub at: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GotCrl {
    pub list: Arc<RevocationList>,
    pub at: u64,
}

/// The same for the next process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    bundles: Vec<KnownBundle>,
    crls: Vec<KnownCrl>,
    in_force: Vec<KnownInForce>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownBundle {
    trust_domain: String,
    origin: [u8; 32],
    roots: Vec<Vec<u8>>,
    sequence: Option<u64>,
    highest: Option<u64>,
    refresh_hint: Option<u64>,
    at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownCrl {
    trust_domain: String,
    url: String,
    der: Arc<[u8]>,
    at: u64,
}

/// None of those in `crls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownInForce {
    trust_domain: String,
    from: String,
    der: Arc<[u8]>,
}

impl GotBundle {
    /// None: it was no step back.
    pub fn warning(&self) -> Option<String> {
        let (now, highest) = (self.sequence?, self.highest?);
        (now < highest).then(|| format!("its sequence number went back from {highest} to {now}: an older bundle?"))
    }
}

impl Got {
    /// Writes into each TrustBundle what was fetched for it, in place of what was before.
    pub fn fill(&self, loaded: &mut Loaded) {
        loaded.bundles.iter_mut().for_each(|bundle| self.fill_one(bundle));
    }

    fn fill_one(&self, bundle: &mut TrustBundle) {
        if let Some(endpoint) = &bundle.endpoint {
            let got = self.bundles.get(&bundle.trust_domain).filter(|got| got.origin == endpoint.origin());
            let root = |certificate: &Certificate| Root {
                certificate: certificate.clone(),
                from: endpoint.url.to_string(),
                place: endpoint.place.clone(),
                path: endpoint.path.clone(),
            };
            bundle.roots = got.map_or(endpoint.initial.clone(), |got| got.certificates.iter().map(root).collect());
        }
        bundle.crls.retain(|crl| !crl.is_fetched);
        let key = |url: &crate::web::Url| Key { domain: bundle.trust_domain.clone(), what: What::Crl(url.clone()) };
        let fetched =
            bundle.crl_urls.iter().filter_map(|url| Some(url.with(self.crls.get(&key(&url.url))?.list.clone())));
        bundle.crls.extend(fetched);
        let left: Vec<_> = self.left(bundle).collect();
        bundle.crls.extend(left);
    }

    /// Those without an entry, while it may yet come by one that is new. How strict that is, these are, too.
    fn left<'a>(&'a self, bundle: &'a TrustBundle) -> impl Iterator<Item = Crl> + 'a {
        let strictest = bundle.awaited().map(|url| url.on_stale).max_by_key(|on_stale| *on_stale == OnStale::Fail);
        let of_domain = self.in_force.iter().filter(|((domain, _), _)| *domain == bundle.trust_domain);
        let gone = of_domain.filter(|((_, issuer), _)| bundle.crls.iter().all(|crl| crl.list.issuer_id != *issuer));
        gone.filter_map(move |(_, one)| {
            let (list, from, on_stale) = (one.list.clone(), one.from.clone(), strictest?);
            let (issuers, place, path) = (Arc::default(), bundle.place.clone(), LEFT.to_owned());
            Some(Crl { list, on_stale, issuers, from, is_fetched: true, place, path })
        })
    }

    /// What `loaded` has is in force from now on. Of the start, its CRLs have yet to be filled in.
    pub fn take(&mut self, loaded: &Loaded) {
        let awaits = |domain: &TrustDomain| {
            let mut of_domain = loaded.bundles.iter().filter(|bundle| bundle.trust_domain == *domain);
            of_domain.any(|bundle| bundle.awaited().next().is_some())
        };
        self.in_force.retain(|(domain, _), _| awaits(domain));
        let all = loaded.bundles.iter().flat_map(|bundle| bundle.crls.iter().map(move |crl| (bundle, crl)));
        let one = |(bundle, crl): (&TrustBundle, &Crl)| {
            let one = InForce { list: crl.list.clone(), from: crl.from.clone() };
            ((bundle.trust_domain.clone(), crl.list.issuer_id), one)
        };
        self.in_force.extend(all.map(one));
    }

    /// What [`Got::from`] makes the same of.
    pub fn known(&self) -> Known {
        let bundle = |(domain, got): (&TrustDomain, &GotBundle)| KnownBundle {
            trust_domain: domain.to_string(),
            origin: got.origin,
            roots: got.certificates.iter().map(|certificate| certificate.der.clone()).collect(),
            sequence: got.sequence,
            highest: got.highest,
            refresh_hint: got.refresh_hint,
            at: got.at,
        };
        let mut room = MOST_REMEMBERED;
        let crl = |(key, got): (&Key, &GotCrl)| {
            let What::Crl(url) = &key.what else { return None };
            room = room.checked_sub(got.list.der.len())?;
            let (trust_domain, url) = (key.domain.to_string(), url.whole());
            Some(KnownCrl { trust_domain, url, der: got.list.der.clone(), at: got.at })
        };
        let bundles = self.bundles.iter().map(bundle).collect();
        let crls = self.crls.iter().filter_map(crl).collect();
        let is_got = |domain: &TrustDomain, list: &RevocationList| {
            let mut of_domain = self.crls.iter().filter(|(key, _)| key.domain == *domain);
            of_domain.any(|(_, got)| got.list.sha256 == list.sha256)
        };
        let in_force = |((domain, _), one): (&(TrustDomain, _), &InForce)| {
            room = room.checked_sub(one.list.der.len())?;
            let (trust_domain, from) = (domain.to_string(), one.from.clone());
            Some(KnownInForce { trust_domain, from, der: one.list.der.clone() })
        };
        let others = self.in_force.iter().filter(|((domain, _), one)| !is_got(domain, &one.list));
        Known { bundles, crls, in_force: others.filter_map(in_force).collect() }
    }
}

impl From<Known> for Got {
    /// What does not read any more is fetched anew.
    fn from(known: Known) -> Self {
        let bundle = |one: KnownBundle| {
            let domain = TrustDomain::parse(&one.trust_domain).ok()?;
            let certificates: Result<Vec<_>, _> =
                one.roots.into_iter().map(|der| Certificate::of(der, &domain)).collect();
            let KnownBundle { origin, sequence, highest, refresh_hint, at, .. } = one;
            let certificates = Arc::new(certificates.ok()?);
            Some((domain, GotBundle { origin, certificates, sequence, highest, refresh_hint, at }))
        };
        let crl = |one: KnownCrl| {
            let domain = TrustDomain::parse(&one.trust_domain).ok()?;
            let key = Key { domain, what: What::Crl(crate::web::Url::parse(&one.url).ok()?) };
            Some((key, GotCrl { list: Arc::new(crl::read(&one.der).ok()?), at: one.at }))
        };
        let in_force = |one: KnownInForce| {
            let domain = TrustDomain::parse(&one.trust_domain).ok()?;
            let list = Arc::new(crl::read(&one.der).ok()?);
            Some(((domain, list.issuer_id), InForce { list, from: one.from }))
        };
        let crls: BTreeMap<_, _> = known.crls.into_iter().filter_map(crl).collect();
        let was_got = |(key, got): (&Key, &GotCrl)| {
            let What::Crl(url) = &key.what else { return None };
            let one = InForce { list: got.list.clone(), from: url.to_string() };
            Some(((key.domain.clone(), got.list.issuer_id), one))
        };
        let in_force = known.in_force.into_iter().filter_map(in_force).chain(crls.iter().filter_map(was_got)).collect();
        Self { bundles: known.bundles.into_iter().filter_map(bundle).collect(), crls, in_force }
    }
}

/// The path of those without an entry.
const LEFT: &str = "spec.crls";
/// Bytes of CRLs: what is remembered together has to be read again as a whole.
const MOST_REMEMBERED: usize = 32 << 20;
