//! A trust domain in all its parts: its roots, where each is from and who chains to it, whom it revokes, and by
//! which CRLs.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use snapshot::ConnectionReport;

use super::{Facts, Kind, Revision, Unknown, find};
use crate::bundles::{self, RevokedRow, Row};
use crate::config::roots::Certificate;
use crate::config::{TrustBundle, trust};
use crate::source::OfSource;
use crate::{at_stake, fetch};

/// `GET /v1/describe/bundle`. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bundle {
    pub trust_domain: String,
    /// Whether this node gives out its identities.
    pub own: bool,
    /// `default/partner (trust.yaml:1)`. None: the identity source's roots are all there is.
    pub resource: Option<String>,
    pub revision: Revision,
    pub roots: Vec<RootRow>,
    pub revoked: Vec<RevokedRow>,
    pub crls: Vec<CrlRow>,
    /// Where its bundle and CRLs are fetched from.
    pub fetched: Vec<fetch::Row>,
    /// Living connections to peers of it that chain to none of these roots, or to none that is known.
    pub live_elsewhere: Option<u64>,
    pub problems: Vec<String>,
    /// Why it is not known who chains to its roots.
    pub not_counted: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootRow {
    #[serde(flatten)]
    pub root: bundles::RootRow,
    pub validity: Validity,
    /// Identity sources that bring it.
    pub sources: Vec<String>,
    /// Connections that live, and whose peer's chain leads to it. None: see `not_counted`.
    pub live: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validity {
    Valid,
    NotYet,
    Over,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CrlRow {
    #[serde(flatten)]
    pub crl: bundles::CrlRow,
    pub is_stale: bool,
}

/// What only the process knows that gives identities out and fetches bundles.
pub struct Trust<'t> {
    /// All trust domains, as `sluice bundle` has them.
    pub rows: Vec<Row>,
    pub sources: Vec<OfSource>,
    /// What is wrong with a trust domain beyond its own resource.
    pub problems: &'t dyn Fn(&str) -> Vec<String>,
}

impl Bundle {
    /// `name`: a trust domain, or a TrustBundle by its name.
    pub fn of(facts: &Facts<'_>, name: &str, trust: &Trust<'_>) -> Result<Self, Unknown> {
        let resources = &facts.loaded.bundles;
        let names = trust.rows.iter().map(|row| row.trust_domain.as_str());
        let name = find(Kind::TrustDomain, name, names.chain(resources.iter().map(|bundle| bundle.name.as_str())))?;
        let by_name = resources.iter().find(|bundle| bundle.name == name);
        let domain = by_name.map_or(name, |bundle| bundle.trust_domain.as_str());
        let row = trust.rows.iter().find(|row| row.trust_domain == domain).expect("each resource has a row");
        let resource = resources.iter().find(|bundle| bundle.trust_domain.as_str() == domain);
        let brought = brought(&trust.sources, domain);
        let roots = row.roots.iter().map(|root| RootRow {
            root: root.clone(),
            validity: Validity::of(root, facts.now),
            sources: brought.get(&root.sha256).cloned().unwrap_or_default(),
            live: None,
        });
        let crls = row.crls.iter().map(|crl| CrlRow { crl: crl.clone(), is_stale: facts.now > crl.next });
        Ok(Self {
            trust_domain: domain.to_owned(),
            own: row.own,
            resource: row.resource.clone(),
            revision: facts.revision(facts.since.bundle(domain)),
            roots: roots.collect(),
            revoked: row.revoked.clone(),
            crls: crls.collect(),
            fetched: row.fetched.clone(),
            live_elsewhere: None,
            problems: problems(facts, row, resource, (trust.problems)(domain)),
            not_counted: None,
        })
    }

    /// Who lives by its roots, or why that is not known.
    pub fn count(&mut self, counted: Result<&[ConnectionReport], String>) {
        let live = match counted {
            Ok(live) => live,
            Err(why) => return self.not_counted = Some(why),
        };
        let of_domain = || live.iter().filter(|one| at_stake::is_of(one, &self.trust_domain));
        let to = |root: &RootRow| of_domain().filter(|one| at_stake::root_of(one) == Some(&root.root.id)).count();
        let counts: Vec<_> = self.roots.iter().map(to).collect();
        let known = |one: &&ConnectionReport| {
            at_stake::root_of(one).is_some_and(|id| self.roots.iter().any(|root| root.root.id == *id))
        };
        self.live_elsewhere = Some((of_domain().count() - of_domain().filter(known).count()) as u64);
        self.roots.iter_mut().zip(counts).for_each(|(root, count)| root.live = Some(count as u64));
    }
}

impl Validity {
    fn of(root: &bundles::RootRow, now: u64) -> Self {
        match (now < root.not_before, now > root.not_after) {
            (true, _) => Self::NotYet,
            (false, true) => Self::Over,
            (false, false) => Self::Valid,
        }
    }
}

/// Which sources bring each root of the trust domain, by the root's fingerprint.
fn brought(sources: &[OfSource], domain: &str) -> HashMap<String, Vec<String>> {
    let mut brought: HashMap<String, Vec<String>> = HashMap::new();
    for of in sources {
        let own = of.trusted.roots.iter().filter(|_| of.trust_domain == domain);
        let federated = of.trusted.federated.iter().filter(|bundle| bundle.trust_domain == domain);
        for der in own.chain(federated.flat_map(|bundle| &bundle.roots)) {
            let sources = brought.entry(Certificate::shown(der).sha256).or_default();
            if !sources.contains(&of.source) {
                sources.push(of.source.clone());
            }
        }
    }
    brought
}

fn problems(facts: &Facts<'_>, row: &Row, resource: Option<&TrustBundle>, more: Vec<String>) -> Vec<String> {
    let mut found = more;
    if !row.is_usable(facts.now) {
        found.push("no root of it is valid now: nobody of it is verified".to_owned());
    }
    let Some(bundle) = resource else { return found };
    found.extend(trust::expiry(std::slice::from_ref(bundle), facts.now).into_iter().map(|warning| warning.message));
    let places: Vec<_> = bundle.revoked_ids.iter().map(|id| &id.place).chain([&bundle.place]).collect();
    found.extend(facts.warned_at(&places, ""));
    found
}
